"""An attacker at the brokers, without any key, tries to disable the defence or to block commands to cameras."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks._stranger import Stranger, await_frames, now_ms, p99_s, query, refused
from benchmarks.security.attacks.outcome import Outcome
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import SHED, Command, Meta, ProbeRequest
from schemas.topics import Channel, mqtt_topic

CAMERAS: Final = 8
FPS: Final = 2
OWN_DROP: Final = 16
"""Dropped pixels among the 64 of a block, as the cameras are set."""
COMMANDED_DROP: Final = 24
OWN_SHARE: Final = 0.02
"""A probe share so small that some cameras have no baseline during the whole attack. These must send more probes."""
BEFORE_S: Final = 15.0
PHASE_S: Final = 15.0
WHAT: Final = (
    "With stolen certificates of roles, published as each camera's meta, and produced into Kafka, without a key: drop "
    "ratio 0, rates that are no number, metas of before, and requests for probes issued in the year 2200"
)


def attack(folder: Path) -> Outcome:
    """Succeed if a camera's drop or its probe plan changes, or if it ignores a later genuine command."""
    state = folder / "forged-meta"
    options = ("--cameras", CAMERAS, "--fps", FPS, "--drop-ratio", OWN_DROP / 64, "--probe-share", OWN_SHARE)
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        layout = Layout(state)
        await_frames(layout, CAMERAS)
        with Stranger(system) as stranger:
            begun_ms = now_ms()
            time.sleep(BEFORE_S)
            attacked_ms = now_ms()
            first = {camera: heard[0] for camera, heard in stranger.heard.items()}
            for _ in range(round(PHASE_S)):
                _claim(stranger, first, fps=0.001, share=OWN_SHARE)
                for camera, payload in first.items():
                    stranger.publish(mqtt_topic(camera, Channel.META), payload)
                time.sleep(1)
            no_number_ms = now_ms()
            for _ in range(round(1.5 * PHASE_S)):
                _claim(stranger, dict([next(iter(first.items()))]), fps=math.nan, share=OWN_SHARE)
                time.sleep(1)
            future_ms = now_ms()
            far = ProbeRequest(issued_ms=7_258_118_400_000, probe_share=0.0)
            stranger.produce(ProbeRequest, [(camera, far.SerializeToString()) for camera in first])
            for camera in first:
                stranger.publish(f"pointillist/v1/{camera}/cmd/probes", far.SerializeToString())
            time.sleep(5)
            issued_ms = now_ms()
            for camera in first:
                command = sign_message(
                    layout.camera_key(camera), Command(issued_ms=issued_ms, dropped_per_block=COMMANDED_DROP)
                )
                stranger.publish(mqtt_topic(camera, Channel.SETTINGS), command)
            deaf = _deaf(layout, issued_ms)
            ended_ms = now_ms()
        system.process.send_signal(signal.SIGINT)
        system.finish()
    # Count only now: late frames are recorded as well.
    whole = _whole(layout, no_number_ms + 5000, future_ms)
    strained = _strained(layout, no_number_ms - 10_000, future_ms)
    seen: dict[str, Any] = {
        "cameras_whose_drop_changed": _changed(layout, attacked_ms, issued_ms),
        "whole_frames_of_100_before": _whole(layout, begun_ms, attacked_ms),
        "whole_frames_of_100_while_a_rate_is_no_number": whole,
        "probes_left_unchecked_meanwhile": strained,
        "cameras_deaf_to_a_genuine_command": deaf,
        "dead_letters": refused(layout),
        "thrown_out_by_the_mqtt_broker": stranger.thrown_out,
    }
    # Overloaded processors request no more probes from new cameras. In that case the attack has stopped nothing.
    stopped = whole <= 200 * OWN_SHARE and not strained
    reached = bool(seen["cameras_whose_drop_changed"] or deaf or stopped)
    before, during = p99_s(layout, begun_ms, attacked_ms), p99_s(layout, attacked_ms, ended_ms)
    return Outcome(WHAT, reached, audit(state)[1]["frames_lost"], before, during, seen)


def _claim(stranger: Stranger, first: dict[CameraId, bytes], fps: float, share: float) -> None:
    """Publish each camera's meta with forged drop, rate and probe share, over MQTT and into Kafka as a bridge does."""
    events = []
    for camera, payload in first.items():
        meta = Meta.FromString(payload)
        meta.dropped_per_block, meta.frames_per_second, meta.probe_share = 0, fps, share
        stranger.publish(mqtt_topic(camera, Channel.META), meta.SerializeToString())
        events.append((camera, meta.SerializeToString()))
    stranger.produce(Meta, events)


def _changed(layout: Layout, since_ms: int, until_ms: int) -> list[str]:
    rows = query(
        layout,
        "select distinct camera from frames where captured_ms between ? and ? and dropped_per_block <> ?",
        since_ms, until_ms, OWN_DROP,
    )  # fmt: skip
    return sorted(str(camera) for (camera,) in rows)


def _whole(layout: Layout, since_ms: int, until_ms: int) -> float:
    rows = query(layout, "select avg(whole) from frames where captured_ms between ? and ?", since_ms, until_ms)
    return 100 * float(str(rows[0][0] or 0))


def _strained(layout: Layout, since_ms: int, until_ms: int) -> int:
    text = "select count(*) from frames where captured_ms between ? and ? and strip = ?"
    return int(str(query(layout, text, since_ms, until_ms, SHED)[0][0]))


def _deaf(layout: Layout, issued_ms: int, deadline_s: float = 60.0) -> int:
    """Return the number of cameras that have sent no frame with the commanded drop within the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        rows = query(
            layout,
            "select distinct camera from frames where captured_ms > ? and dropped_per_block = ?",
            issued_ms, COMMANDED_DROP,
        )  # fmt: skip
        if len(rows) == CAMERAS or time.monotonic() > end:
            return CAMERAS - len(rows)
        time.sleep(0.2)
