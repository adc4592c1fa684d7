"""The attack of one camera with a valid key that sends pixel bombs: messages of a few hundred bytes that unpack to the
maximum number of pixels."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.intruder import Intruder, enrolled, mqtt_of
from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks.outcome import Outcome, p99_s
from infra.audit.kafka_files import read_topic
from infra.state_folder import Layout
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.messages.frame import Encoding, encode_frame
from schemas.pointillist_pb2 import LOSSLESS, DeadLetter
from schemas.topics import KafkaTopic

BOMBS = 40
CAMERAS = 8
FPS = 2
WINDOW_S = 30.0
LARGEST = (1792, 8192)
"""Height and width of the largest grey picture that the wire format allows."""
LARGEST_TAKEN = (1088, 1920)
"""Height and width of a picture with `schemas.limits.USUAL_FRAME_PIXELS`; only the device-time quota limits it."""


def bombed(state: Path, shape: tuple[int, int]) -> Outcome:
    """Compare the other cameras' frames before and during a burst of black frames of this height and width."""
    options = ("--cameras", CAMERAS, "--fps", FPS, "--probe-share", 0, "--drain-s", 120, "--no-prometheus")
    attacker = CameraId("local/mallory")
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        layout = Layout(state)
        intruder = Intruder(mqtt_of(system), enrolled(layout, attacker))
        bombs = made(intruder.enrolment.key, shape)
        time.sleep(10)
        before_ms = unix_ms()
        time.sleep(WINDOW_S)
        begun_ms = unix_ms()
        for bomb in bombs:
            intruder.publish(intruder.own_topic, bomb)
        time.sleep(WINDOW_S)
        ended_ms = unix_ms()
        time.sleep(5)
        system.interrupt()
        intruder.close()
        status, report = system.wait(300)
    before_s = p99_s(layout, before_ms, begun_ms, attacker)
    pending = report.get("frames_pending", 0)
    # If frames still wait after the drain, their latency is unknown.
    during_s = None if pending else p99_s(layout, begun_ms, ended_ms, attacker)
    lost = report.get("frames_lost", audit(state)[1]["frames_lost"])
    return Outcome(
        what=f"{BOMBS} frames of at most {max(map(len, bombs))} bytes that unpack to {shape[1]}x{shape[0]} pixels, "
        "from one camera with a valid key",
        succeeded=lost > 0 or before_s is None or during_s is None or during_s > 2 * before_s,
        lost=lost,
        p99_before_s=before_s,
        p99_during_s=during_s,
        seen={
            "exit_status": status,
            "frames_pending": pending,
            "dead_letters_of_the_attacker": dict(refusals(layout, attacker)),
        },
    )


def made(key: CameraKey, shape: tuple[int, int]) -> list[bytes]:
    """Return messages of one new boot: black frames of this height and width."""
    boot_id = secrets.randbits(62) + 1
    black = np.zeros((*shape, 1), np.uint8)
    encoding = Encoding(16, profile=LOSSLESS)
    return [encode_frame(key, boot_id, seq, unix_ms(), black, encoding) for seq in range(BOMBS)]


def refusals(layout: Layout, camera_id: CameraId) -> Counter[Any]:
    """Return the number of a camera's dead letters for each reason."""
    letters = [
        DeadLetter.FromString(record.value)
        for record in read_topic(layout.kafka_data, KafkaTopic.DEAD_LETTERS)
        if record.value
    ]
    return Counter(letter.reason for letter in letters if letter.camera_id == camera_id)


BOMBS_BY_NAME = {
    "pixel-bomb": partial(bombed, shape=LARGEST),
    "largest-frames": partial(bombed, shape=LARGEST_TAKEN),
}
"""Attacks by name; each takes the folder of the system's state."""
