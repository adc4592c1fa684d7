"""A camera that is told its rate or its drop while it captures: from the next frame on, and back to its own."""

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


def tell(made: Camera, rate: float) -> None:
    issued_ms = max(time.time_ns() // 10**6, made._control.state.issued_ms + 1)
    assert made._control.command(sign_message(KEY, Command(issued_ms=issued_ms, frames_per_second=rate)))


async def rests(made: Camera) -> bool:
    """Whether it sends nothing for much longer than at 50 frames a second."""
    before = made.spool.current.next
    await asyncio.sleep(0.4)
    return made.spool.current.next == before


@pytest.mark.parametrize("own", [RARELY, 0.0], ids=["paced", "all-that-come"])
async def test_a_camera_sends_at_the_rate_that_it_is_told_and_at_its_own_again(tmp_path: Path, own: float) -> None:
    async with camera(tmp_path, own) as made:
        await until(lambda: made.spool.current.next > 0, "the first frame")
        if own:
            await until(lambda: rests(made), "a camera that rests")
        tell(made, 50.0)
        first, began_s = made.spool.current.next, time.monotonic()
        await until(lambda: made.spool.current.next >= first + 15, "frames at the rate")
        assert time.monotonic() - began_s > 0.2
        assert made._meta().frames_per_second == 50.0
        tell(made, RARELY)
        await until(lambda: rests(made), "a camera that rests")
        now = made.spool.current.next
        tell(made, 0.0)
        assert made._meta().frames_per_second == own
        if own:
            await until(lambda: rests(made), "a camera that rests")
        else:
            await until(lambda: made.spool.current.next > now + 20, "all that come")


async def test_what_is_told_between_two_sleeps_is_not_slept_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with camera(tmp_path, RARELY) as made:

        async def told_meanwhile() -> None:
            if not made.spool.current.next:
                tell(made, 50.0)

        monkeypatch.setattr(made._fair_gate, "enter", told_meanwhile)
        await until(lambda: made.spool.current.next > 5, "frames at the rate")


async def test_the_patterns_of_a_new_drop_are_made_while_other_cameras_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def quick(dropped: int) -> masks.Mask:
        threads.append(threading.current_thread())
        return masks._uniform_patterns((dropped, 0), dropped)

    monkeypatch.setattr(masks, "spread_patterns", quick)
    monkeypatch.setattr(masks, "_POOLS", {})
    monkeypatch.setattr(masks, "_AT_HAND", masks.CodebookCache(256))
    async with camera(tmp_path, 50.0) as made:
        await until(lambda: made.spool.current.next > 0, "the first frame")
        assert made._control.command(sign_message(KEY, Command(issued_ms=1, dropped_per_block=40)))
        first = made.spool.current.next
        await until(lambda: made.spool.current.next > first, "a frame after the command")
        stored = made.spool.get((made.spool.current.boot_id, first))
        assert stored is not None
        assert parse_frame(made.spool.read(stored)).dropped_per_block == 40
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_no_frame_is_sent_after_a_pause_that_comes_while_patterns_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, sent = {0}, list[int]()
    monkeypatch.setattr("producers.sources.scene.SceneSource.live", True)

    async with camera(tmp_path, 50.0) as made:

        def paused_meanwhile(dropped: int) -> None:
            assert made._control.command(sign_message(KEY, Command(issued_ms=2, enabled=False)))
            sent.append(made.spool.current.next)
            pools.add(dropped)

        await until(lambda: made.spool.current.next > 0, "the first frame")
        monkeypatch.setattr("producers.camera.camera.has_pool", lambda dropped: dropped in pools)
        monkeypatch.setattr("producers.camera.camera.make_pool", paused_meanwhile)
        # From here on the camera's own drop has no patterns, so the next frame waits for them.
        await until(lambda: "command" in made.publisher.presence._rests, "a pause")
        assert sent == [made.spool.current.next]


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
    async with capturing(offline_camera(settings, KEY, tmp_path)) as made:
        await until(lambda: bool(rates), "the first frame")
        tell(made, 50.0)
        await until(lambda: 50.0 in rates, "a key frame at the rate")
    assert set(rates) == {20.0, 50.0}
