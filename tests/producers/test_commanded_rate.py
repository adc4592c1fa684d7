"""Commands that change a camera's rate or drop ratio while it captures, from the next frame on."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from producers.camera.camera import Camera
from producers.camera.camera_settings import CameraSettings
from producers.publisher import WindowSettings
from producers.sources.settings import SourceSettings
from producers.video import comparison
from producers.video.encoder import Encoder, software_encoder
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.access_unit import Codec
from schemas.messages.frame import parse_frame, sign_message
from schemas.pixels import masks
from schemas.pointillist_pb2 import Command
from tests.producers.fleet_rig import capturing, offline_camera
from tests.waiting import until

CAMERA = CameraId("lab/paced")
KEY = derive_camera_key(b"a fleet secret for the tests", CAMERA)
RARELY = 1 / 600


def camera(folder: Path, fps: float) -> AbstractAsyncContextManager[Camera]:
    settings = CameraSettings(
        camera_id=CAMERA, fps=fps, source=SourceSettings(kind="scene"), window=WindowSettings(frames=60_000)
    )
    return capturing(offline_camera(settings, KEY, folder))


def command_rate(running_camera: Camera, rate: float) -> None:
    issued_ms = max(time.time_ns() // 10**6, running_camera._control.state.issued_ms + 1)
    assert running_camera._control.command(sign_message(KEY, Command(issued_ms=issued_ms, frames_per_second=rate)))


async def is_idle(running_camera: Camera) -> bool:
    """Return whether the camera sends nothing for much longer than one frame at 50 frames a second."""
    before = running_camera.spool.current.next
    await asyncio.sleep(0.4)
    return running_camera.spool.current.next == before


@pytest.mark.parametrize("own", [RARELY, 0.0], ids=["paced", "every-frame"])
async def test_a_camera_follows_a_commanded_rate_and_returns_to_its_own(tmp_path: Path, own: float) -> None:
    async with camera(tmp_path, own) as running_camera:
        await until(lambda: running_camera.spool.current.next > 0, "the first frame")
        if own:
            await until(lambda: is_idle(running_camera), "an idle camera")
        command_rate(running_camera, 50.0)
        first, began_s = running_camera.spool.current.next, time.monotonic()
        await until(lambda: running_camera.spool.current.next >= first + 15, "frames at the commanded rate")
        assert time.monotonic() - began_s > 0.2
        assert running_camera._meta().frames_per_second == 50.0
        command_rate(running_camera, RARELY)
        await until(lambda: is_idle(running_camera), "an idle camera")
        now = running_camera.spool.current.next
        command_rate(running_camera, 0.0)
        assert running_camera._meta().frames_per_second == own
        if own:
            await until(lambda: is_idle(running_camera), "an idle camera")
        else:
            await until(lambda: running_camera.spool.current.next > now + 20, "every frame of the source")


async def test_a_command_that_arrives_between_two_sleeps_takes_effect_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with camera(tmp_path, RARELY) as running_camera:

        async def command_meanwhile() -> None:
            if not running_camera.spool.current.next:
                command_rate(running_camera, 50.0)

        monkeypatch.setattr(running_camera._fair_gate, "enter", command_meanwhile)
        await until(lambda: running_camera.spool.current.next > 5, "frames at the commanded rate")


async def test_the_patterns_of_a_new_drop_ratio_are_made_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def record_thread(dropped: int) -> masks.Mask:
        threads.append(threading.current_thread())
        return masks._uniform_patterns((dropped, 0), dropped)

    monkeypatch.setattr(masks, "spread_patterns", record_thread)
    monkeypatch.setattr(masks, "_POOLS", {})
    monkeypatch.setattr(masks, "_AT_HAND", masks.CodebookCache(256))
    async with camera(tmp_path, 50.0) as running_camera:
        await until(lambda: running_camera.spool.current.next > 0, "the first frame")
        assert running_camera._control.command(sign_message(KEY, Command(issued_ms=1, dropped_per_block=40)))
        first = running_camera.spool.current.next
        await until(lambda: running_camera.spool.current.next > first, "a frame after the command")
        stored = running_camera.spool.get((running_camera.spool.current.boot_id, first))
        assert stored is not None
        assert parse_frame(running_camera.spool.read(stored)).dropped_per_block == 40
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_no_frame_is_sent_after_a_pause_that_arrives_while_patterns_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, sent = {0}, list[int]()
    monkeypatch.setattr("producers.sources.scene.SceneSource.live", True)

    async with camera(tmp_path, 50.0) as running_camera:

        def pause_meanwhile(dropped: int) -> None:
            assert running_camera._control.command(sign_message(KEY, Command(issued_ms=2, enabled=False)))
            sent.append(running_camera.spool.current.next)
            pools.add(dropped)

        await until(lambda: running_camera.spool.current.next > 0, "the first frame")
        monkeypatch.setattr("producers.camera.camera.has_pool", lambda dropped: dropped in pools)
        monkeypatch.setattr("producers.camera.camera.make_pool", pause_meanwhile)
        # The camera's own drop ratio has no patterns from here on, so the next frame waits for them.
        await until(lambda: "command" in running_camera.publisher.presence._rests, "a pause")
        assert sent == [running_camera.spool.current.next]


async def test_frames_are_compared_with_plain_video_at_the_rate_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def recorded(codec: Codec, height: int, width: int, rate: float, *others: Any) -> Encoder:
        rates.append(rate)
        return software_encoder(codec, height, width, rate, *others)

    monkeypatch.setattr(comparison, "software_encoder", recorded)
    monkeypatch.setattr(comparison, "EVERY", 1)  # each key frame is compared
    source = SourceSettings(kind="scene", size=(160, 128))
    settings = CameraSettings(camera_id=CAMERA, fps=20.0, source=source, profile="video", measure_codec=True)
    async with capturing(offline_camera(settings, KEY, tmp_path)) as running_camera:
        await until(lambda: bool(rates), "the first frame")
        command_rate(running_camera, 50.0)
        await until(lambda: 50.0 in rates, "a key frame at the commanded rate")
    assert set(rates) == {20.0, 50.0}
