"""The thread that reads ahead from a source: live and file sources, failures, and hangs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from producers.camera.camera_settings import CameraSettings
from producers.sources.reader import InlineReader, ThreadReader, read_from
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame, DecodedFrame
from schemas.errors import SourceHungError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.waiting import cancel
from tests.producers.fleet_rig import offline_camera
from tests.producers.source_rig import Numbers
from tests.waiting import PATIENCE_S, until


async def positions(reader: ThreadReader) -> list[int]:
    found = []
    while (reading := await reader.next()) is not None:
        found.append(reading.captured.position)
    return found


async def test_a_file_source_yields_every_frame() -> None:
    source = Numbers(20, live=False)
    reader = ThreadReader(source)
    source.gate.release(21)
    await until(lambda: reader._ahead, "a frame read ahead")
    assert await positions(reader) == list(range(20))
    assert reader.take_skipped() == 0
    assert await asyncio.to_thread(source.closed.wait, 60)


async def test_a_live_source_keeps_its_newest_frame_and_counts_skipped_ones() -> None:
    source = Numbers(20, live=True)
    reader = ThreadReader(source)
    source.gate.release(21)
    assert await asyncio.to_thread(source.closed.wait, 60)
    assert await positions(reader) == [19]
    assert reader.take_skipped() == 19
    assert reader.take_skipped() == 0


async def test_only_frames_of_a_live_source_that_are_taken_are_converted() -> None:
    class Undecided(Numbers):
        converted: ClassVar[list[tuple[int, str]]] = []

        def read_decoded(self) -> CapturedFrame | DecodedFrame | None:
            captured = self.read()
            if captured is None:
                return None

            def convert() -> CapturedFrame:
                self.converted.append((captured.position, threading.current_thread().name))
                return captured

            return DecodedFrame(convert, 1_000 + captured.position, captured.picture.nbytes)

    source = Undecided(20, live=True)
    reader = ThreadReader(source, ahead=2)
    source.gate.release(21)
    assert await asyncio.to_thread(source.closed.wait, 60)
    found = [await reader.next() for _ in range(3)]
    assert [each and each.captured_ms for each in found] == [1_018, 1_019, None]
    assert source.converted == [(n, "source-numbers-picture") for n in (18, 19)]
    assert reader.take_skipped() == 18


async def test_a_live_source_with_read_ahead_keeps_its_newest_frames_in_order() -> None:
    source = Numbers(20, live=True)
    reader = ThreadReader(source, ahead=8)
    source.gate.release(21)
    assert await asyncio.to_thread(source.closed.wait, 60)
    assert await positions(reader) == list(range(12, 20))
    assert reader.take_skipped() == 12


@pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
async def test_the_newest_frames_stay_when_the_read_ahead_is_reduced(live: bool) -> None:
    source = Numbers(20, live)
    reader = ThreadReader(source, ahead=8)
    source.gate.release(8)
    await until(lambda: len(reader._ahead) == (8 if live else 1), "frames read ahead")
    reader.keep_ahead(1)
    reading = await reader.next()
    assert reading is not None
    assert (reading.captured.position, reader.take_skipped()) == ((7, 7) if live else (0, 0))
    source.gate.release(13)
    if live:
        assert await asyncio.to_thread(source.closed.wait, 60)
    assert (await positions(reader))[-1] == 19
    assert reader.take_skipped() == (11 if live else 0)


async def test_frames_read_ahead_are_also_limited_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.sources.reader._AHEAD_BYTES", 3 * 64 + 1)
    source = Numbers(20, live=True)
    reader = ThreadReader(source, ahead=8)
    source.gate.release(21)
    assert await asyncio.to_thread(source.closed.wait, 60)
    assert await positions(reader) == [17, 18, 19]


async def test_a_frame_has_its_capture_time_if_the_source_reports_one() -> None:
    class Clocked(Numbers):
        def read(self) -> CapturedFrame | None:
            captured = super().read()
            return captured and captured._replace(captured_ms=1234 if captured.position else None)

    source = Clocked(2, live=True)
    reader = ThreadReader(source, ahead=2)
    source.gate.release(3)
    first, second = await reader.next(), await reader.next()
    assert first is not None
    assert second is not None
    assert second.captured_ms == 1234
    assert first.captured_ms > 10**12
    reader.close()


async def test_a_frame_read_before_a_failure_is_returned_first() -> None:
    source = Numbers(1, live=True, failure=SourceHungError("no picture for 1 s"))
    reader = ThreadReader(source)
    source.gate.release(2)
    assert await asyncio.to_thread(source.closed.wait, 60)
    reading = await reader.next()
    assert reading is not None
    assert reading.captured.position == 0
    with pytest.raises(SourceHungError):
        await reader.next()


@pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
async def test_only_a_live_source_reports_a_failure_while_a_frame_waits(live: bool) -> None:
    source = Numbers(1, live, failure=SourceHungError("no picture for 1 s"))
    reader = ThreadReader(source)
    assert not reader.check()
    source.gate.release()
    await until(lambda: reader.check(), "a frame")
    source.gate.release()
    assert await asyncio.to_thread(source.closed.wait, 60)
    if live:
        with pytest.raises(SourceHungError):
            reader.check()
    else:
        assert reader.check()


async def test_a_live_source_with_a_stuck_read_raises_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.sources.reader._SPARE_S", 0.05)
    source, file = Numbers(2, live=True), Numbers(1, live=False)
    reader, other = read_from(source, hang_s=0.05), read_from(file, hang_s=0.05)
    waiting = asyncio.create_task(other.next())
    source.gate.release()
    assert await reader.next() is not None
    with pytest.raises(SourceHungError, match=r"no frame for 0\.1 s"):
        await asyncio.wait_for(reader.next(), PATIENCE_S)
    reader.close()
    assert not waiting.done()
    for each in (source, file):
        each.gate.release(2)
    assert await waiting is not None
    assert await asyncio.to_thread(source.closed.wait, 60)


async def test_a_live_source_continues_with_a_new_frame_after_a_pause() -> None:
    source = Numbers(3, live=True)
    reader = ThreadReader(source)
    source.gate.release(2)
    await until(lambda: reader._skipped == 1, "both frames read")
    reader.discard()
    source.gate.release(2)
    assert await positions(reader) == [2]
    assert reader.take_skipped() == 0


async def test_closing_ends_a_reader_with_an_unread_frame() -> None:
    source = Numbers(5, live=False)
    reader = ThreadReader(source)
    source.gate.release(5)
    assert await reader.next() is not None
    reader.close()
    assert await asyncio.to_thread(source.closed.wait, 60)


async def test_only_a_source_that_may_block_gets_a_thread() -> None:
    source = Numbers(0, live=False)
    source.blocking = False
    assert isinstance(read_from(source), InlineReader)


@pytest.mark.parametrize("live", [False, True])
async def test_an_exception_while_closing_does_not_change_the_end_of_a_source(live: bool) -> None:
    class Stubborn(Numbers):
        def close(self) -> None:
            super().close()
            raise RuntimeError("the device is gone")

    source = Stubborn(0, live)
    reader = ThreadReader(source)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)  # the reader gets its turn and waits from here on
    source.gate.release()
    assert await asyncio.wait_for(waiting, 60) is None


async def test_frames_that_a_live_source_gives_are_published_or_skipped_up_to_its_end(tmp_path: Path) -> None:
    camera_id = CameraId("lab/door")
    key = derive_camera_key(b"a fleet secret of thirty-two byte", camera_id)
    settings = CameraSettings(camera_id=camera_id, fps=0.1, source=SourceSettings(kind="scene"))
    camera, source = offline_camera(settings, key, tmp_path), Numbers(30, live=True)
    camera._source = source
    source.gate.release(1)
    capture = asyncio.create_task(camera._capture())
    await until(lambda: camera.spool.current.next > 0, "a frame that is published")
    source.gate.release(30)
    assert await asyncio.to_thread(source.closed.wait, PATIENCE_S)
    await cancel(capture)
    ledger = camera.spool.current
    assert ledger.next + ledger.frames_skipped >= 29  # the newest may wait unread
    await camera.close(0.1)
