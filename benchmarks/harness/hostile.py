"""Hostile publishers: random, mutated and replayed payloads at the topics that the bridge reads.

The publishers are cameras with a valid enrolment, enough of them to keep each within its quota. TLS and access rights
stop everybody else, and messages beyond a quota are not parsed (`benchmarks.security.attacks.table` shows both).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.harness.intruder import Intruder, enrolled, mqtt_of
from benchmarks.harness.system import RunningSystem
from infra.state_folder import Layout
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.messages.frame import Encoding, encode_frame
from schemas.topics import Channel, mqtt_topic

INTRUDERS: Final = 40
PER_S: Final = 3200.0
"""Messages per second of all publishers. `pointillist up` accepts at least 100 a second of each camera."""
OWN_FRAMES: Final = 50
OUT_OF_TURN: Final = 1 / 500
"""Share of the messages on another camera's topic. The broker closes the connection after such a message."""


@dataclass(frozen=True)
class Hostility:
    """The outcome of a hostile run: its duration and the number of disconnections."""

    seconds: float
    thrown_out: int


def hostile_message(source: random.Random, own: list[bytes], topic: str, cameras: list[CameraId]) -> tuple[str, bytes]:
    """Return one topic and payload that no camera would send now. `own` are valid frames on `topic`."""
    if source.random() < OUT_OF_TURN:
        return mqtt_topic(source.choice(cameras), Channel.FRAME), source.choice(own)
    kind = source.randrange(5)
    if kind == 0:
        return topic, source.randbytes(source.choice((0, 1, 9, 50, 2346, 20_000)))
    payload = source.choice(own)
    if kind == 1:
        return topic, payload
    if kind == 2:
        return topic.removesuffix(Channel.FRAME) + Channel.EVENT, payload
    if kind == 3:
        return topic, payload[: source.randrange(len(payload))]
    mutated = bytearray(payload)
    for _ in range(source.choice((1, 1, 1, 4))):
        mutated[source.randrange(len(mutated))] ^= 1 << source.randrange(8)
    return topic, bytes(mutated)


def publish_hostile(system: RunningSystem, messages: int, cameras: list[CameraId], seed: int = 0) -> Hostility:
    """Publish `messages` hostile payloads, next to the good frames of `cameras`."""
    layout, source = Layout(system.state), random.Random(seed)
    names = [CameraId(f"local/intruder-{number}") for number in range(INTRUDERS)]
    intruders = [Intruder(mqtt_of(system), enrolled(layout, name)) for name in names]
    picture = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    now_ms = unix_ms()
    own = {
        intruder.enrolment.camera: [
            encode_frame(intruder.enrolment.key, 1, seq, now_ms, picture, Encoding(16)) for seq in range(OWN_FRAMES)
        ]
        for intruder in intruders
    }
    begun = time.monotonic()
    for number in range(messages):
        ahead_s = number / PER_S - (time.monotonic() - begun)
        if ahead_s > 0:
            time.sleep(ahead_s)
        intruder = intruders[number % INTRUDERS]
        frames = own[intruder.enrolment.camera]
        intruder.publish(*hostile_message(source, frames, intruder.own_topic, cameras))
    for intruder in intruders:
        intruder.close()
    return Hostility(time.monotonic() - begun, sum(intruder.thrown_out for intruder in intruders))
