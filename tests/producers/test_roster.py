"""Cameras from a list that changes while they run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.rtsp import RtspServer
from benchmarks.harness.videos import shades, write_video
from infra.local.mosquitto import Mosquitto
from producers.spool import scan_spool
from producers.spool.folder import spool_root
from schemas.pointillist_pb2 import DEGRADED, ONLINE
from tests.producers.fake_bridge import FakeBridge
from tests.producers.roster_rig import ListInMemory, running
from tests.waiting import until

FPS = 10


@pytest.fixture
def cameras(mosquitto: Mosquitto, tmp_path: Path, site: str) -> ListInMemory:
    place = (mosquitto.host, mosquitto.port)
    return ListInMemory(place, site, tmp_path, fps=0, drop_ratio=0, probe_share=0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a video of forty grey frames of 48 × 32 at 10 frames a second."""
    return write_video(tmp_path_factory.mktemp("video") / "grey.mp4", shades(40, 48, 32, 5), crf="10")


@pytest.mark.brokers
@pytest.mark.slow
async def test_hanging_dying_added_removed_and_rejected_cameras_cost_the_others_no_frame(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may stop the test for longer than a camera's read-ahead lasts.
    monkeypatch.setattr("producers.camera.camera._AHEAD", 10_000)
    counted = ("--counted", 64, 48, FPS)
    with (
        RtspServer(*counted) as working,
        RtspServer(*counted) as hanging,
        RtspServer(*counted) as dying,
        RtspServer(*counted, login="viewer:right") as closed,
    ):
        for name in ("steady-1", "steady-2", "leaving"):
            cameras.cameras[name] = {"source": {"address": working.address("counted"), "hang_s": 60}}
        cameras.cameras["hanging"] = {"source": {"address": hanging.address("counted"), "hang_s": 2}}
        cameras.cameras["dying"] = {"source": {"address": dying.address("counted"), "hang_s": 2}}
        cameras.cameras["refused"] = {"source": {"address": closed.address("counted", "viewer:hidden"), "hang_s": 2}}
        async with running(cameras, mosquitto, bridge, state_dir) as roster:
            for name in ("steady-1", "steady-2", "leaving", "hanging", "dying"):
                await until(lambda name=name: roster.frames(name) > 5, f"frames of {name}")
            hanging.pause()
            dying.kill()
            del cameras.cameras["leaving"]
            cameras.cameras["coming"] = {"source": {"address": working.address("counted"), "hang_s": 60}}
            cameras.mark_changed()
            await until(lambda: _degraded(roster.status("hanging"), "no frame for 2 s"), "the hang")
            await until(lambda: roster.frames("coming") > 5, "frames of the added camera")
            await until(lambda: _degraded(roster.status("dying"), ""), "the end of the stream")
            await until(lambda: _degraded(roster.status("refused"), "401 Unauthorized"), "the rejected login")
            await until(
                lambda: "3 of 6 fail" in str(roster.health.report()[1]["cameras"]["detail"]), "the health report"
            )
            report = json.loads(roster.report.read_text())
            assert report[roster.id("refused")]["phase"] == "failing"
            assert report[roster.id("steady-1")] == {"phase": "capturing", "detail": ""}
            assert roster.id("leaving") not in report
            await until(lambda: roster.health.report()[0], "a healthy fleet of the other cameras")
            _, conditions = roster.health.report()
            assert str(roster.id("refused")) in str(conditions["cameras"]["detail"])
            hanging.resume()
            await until(lambda: roster.status("hanging") == (ONLINE, ""), "the end of the hang")
        for name in ("steady-1", "steady-2", "coming"):
            numbers = roster.numbers(name)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), name
            assert len(roster.boots(name)) == 1
        assert roster.outcome is not None
        assert (roster.outcome.drained, roster.outcome.frames_skipped) == (True, 0)
        published = roster.value("pointillist_camera_frames_total", outcome="published")
        assert roster.outcome.frames_published == published == len(bridge.frames)
        assert "hidden" not in json.dumps(report) + json.dumps(conditions)


def _degraded(status: tuple[int, str] | None, detail: str) -> bool:
    return status is not None and status[0] == DEGRADED and detail in status[1]


@pytest.mark.brokers
async def test_files_are_sent_completely_and_then_the_fleet_ends(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path
) -> None:
    for name in ("one", "two"):
        cameras.cameras[name] = {"source": {"file": str(video)}}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        await until(lambda: roster.task is not None and roster.task.done(), "the end of the fleet")
    assert (roster.frames("one"), roster.frames("two")) == (40, 40)
    assert roster.outcome is not None
    assert (roster.outcome.drained, roster.outcome.frames_published, roster.outcome.frames_pending) == (True, 80, 0)


@pytest.mark.brokers
async def test_a_list_that_is_still_being_written_is_not_applied(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("producers.fleet.fleet._POLL_S", 0.02)
    whole = {name: {"source": {"file": str(video), "loop": True}, "fps": FPS} for name in ("one", "two")}
    cameras.cameras = dict(whole)
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        for name in whole:
            await until(lambda name=name: roster.frames(name) > 0, f"frames of {name}")
        stamp, checks = cameras.stamp, 0

        def writing() -> Hashable:
            nonlocal checks
            checks += 1
            return stamp() if checks > 20 else -checks  # a new size at each of the first checks

        del cameras.cameras["two"]  # the half that is written
        monkeypatch.setattr(cameras, "stamp", writing)
        await until(lambda: checks > 10, "checks of the list")
        assert roster.reported("two")
        cameras.cameras = whole | {"three": whole["one"]}
        cameras.mark_changed()
        await until(lambda: roster.frames("three") > 0, "frames of the added camera")
    assert [len(roster.boots(name)) for name in ("one", "two", "three")] == [1, 1, 1]


@pytest.mark.brokers
async def test_a_camera_added_during_the_first_read_of_the_list_is_started(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path
) -> None:
    source = {"source": {"file": str(video), "loop": True}, "fps": FPS}
    cameras.cameras["early"] = source

    def add_late() -> None:
        cameras.after_read = None
        cameras.cameras["late"] = source
        cameras.mark_changed()

    cameras.after_read = add_late
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        for name in ("early", "late"):
            await until(lambda name=name: roster.frames(name) > 0, f"frames of {name}")
    assert all(boot.closed and not boot.shed for boot in scan_spool(spool_root(state_dir)))


@pytest.mark.brokers
async def test_a_changed_camera_continues_in_its_file_and_affects_no_other(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path
) -> None:
    cameras.cameras = {name: {"fps": 10, "source": {"file": str(video)}} for name in ("changed", "other")}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        await until(lambda: roster.frames("changed") > 5)
        cameras.cameras["changed"]["fps"] = 50
        cameras.mark_changed()
        await until(lambda: roster.frames("changed") + roster.frames("other") >= 80)
    assert len(roster.boots("changed")) == 2
    assert len(roster.boots("other")) == 1
    assert (roster.frames("changed"), roster.frames("other")) == (40, 40)


@pytest.mark.brokers
async def test_a_camera_with_a_temporarily_unreadable_enrolment_continues_in_its_file(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path
) -> None:
    cameras.cameras = {name: {"fps": 10, "source": {"file": str(video)}} for name in ("one", "other")}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        await until(lambda: roster.frames("one") > 5)
        one, cameras.rejected = cameras.cameras.pop("one"), {roster.id("one"): "expected an enrolment"}
        cameras.mark_changed()
        await until(lambda: roster.reported("one") == ("failing", "expected an enrolment"))
        cameras.cameras["one"], cameras.rejected = one, {}
        cameras.mark_changed()
        await until(lambda: roster.task is not None and roster.task.done(), "the end of the fleet")
    assert (len(roster.boots("one")), len(roster.boots("other"))) == (2, 1)
    assert (roster.frames("one"), roster.frames("other")) == (40, 40)


@pytest.mark.brokers
async def test_cameras_and_lists_that_could_not_be_read_are_read_again_without_a_change(
    cameras: ListInMemory,
    mosquitto: Mosquitto,
    bridge: FakeBridge,
    state_dir: Path,
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("producers.fleet.fleet._REREAD_S", 0.1)
    source = {"fps": 10, "source": {"file": str(video), "loop": True}}
    cameras.cameras = {"one": source}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        cameras.rejected = {roster.id("two"): "expected a readable enrolment, got Permission denied"}
        cameras.mark_changed()
        await until(lambda: roster.reported("two")[0] == "failing")
        cameras.rejected, cameras.cameras["two"] = {}, source
        await until(lambda: roster.frames("two") > 0, "frames of the camera that could not run")
        cameras.error, cameras.cameras["three"] = "cameras.yaml: expected a readable file", source
        cameras.mark_changed()
        await until(lambda: roster.value("pointillist_camera_list_refused") == 1)
        cameras.error = ""
        await until(lambda: roster.frames("three") > 0, "frames of the camera of the list that could not be read")
    assert len(roster.boots("one")) == 1


@pytest.mark.brokers
async def test_an_invalid_list_is_reported_and_changes_nothing(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path
) -> None:
    cameras.cameras = {"one": {"fps": 20, "source": {"file": str(video), "loop": True}}}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        await until(lambda: roster.frames("one") > 3)
        cameras.error = "cameras.yaml: cameras.0.fps: expected a number"
        cameras.mark_changed()
        await until(lambda: roster.value("pointillist_camera_list_refused") == 1)
        assert "cameras.0.fps" in str(roster.health.report()[1]["list"]["detail"])
        cameras.defect = RuntimeError("a bug")
        cameras.mark_changed()
        await until(lambda: "see the log" in str(roster.health.report()[1]["list"]["detail"]))
        before = roster.frames("one")
        await until(lambda: roster.frames("one") > before + 5, "frames of the running camera")
        cameras.error, cameras.defect = "", None
        cameras.rejected = {roster.id("two"): "expected an enrolment"}
        cameras.mark_changed()
        await until(lambda: roster.value("pointillist_camera_list_refused") == 0)
        await until(lambda: roster.reported("two") == ("failing", "expected an enrolment"))
    assert len(roster.boots("one")) == 1


@pytest.mark.brokers
async def test_a_roster_waits_for_a_spool_in_use(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, video: Path
) -> None:
    from producers.spool.folder import FolderLock

    lock = FolderLock(spool_root(state_dir) / cameras.site / "one")
    cameras.cameras = {"one": {"source": {"file": str(video)}}}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        await until(lambda: "in use" in roster.reported("one")[1])
        lock.release()
        await until(lambda: roster.frames("one") == 40)


@pytest.mark.brokers
async def test_a_still_scene_sends_heartbeats_and_every_frame_is_counted(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, tmp_path: Path
) -> None:
    grey = [np.full((32, 48, 3), 90, np.uint8)] * 40
    file = write_video(tmp_path / "still.mp4", grey, crf="10")
    cameras.cameras = {"one": {"fps": 20, "motion": {"heartbeat_s": 1, "hold_s": 0}, "source": {"file": str(file)}}}
    async with running(cameras, mosquitto, bridge, state_dir) as roster:
        await until(lambda: roster.task is not None and roster.task.done(), "the end of the fleet")
    still = roster.value("pointillist_camera_frames_total", outcome="no_motion")
    published = roster.value("pointillist_camera_frames_total", outcome="published")
    assert still is not None
    assert published is not None
    assert still + published == 40
    times = sorted(frame.captured_ms for frame in bridge.frames.values())
    assert len(times) == published >= 2
    assert all(later - earlier >= 1000 for earlier, later in pairwise(times))


@pytest.mark.brokers
async def test_a_camera_outside_its_schedule_pauses_and_closes_its_source(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from producers.gate.schedule import Schedule

    hours = asyncio.Event()
    monkeypatch.setattr(Schedule, "holds", lambda self, now_s: hours.is_set())
    with RtspServer("--counted", 64, 48, FPS) as server:
        source = {"address": server.address("counted"), "hang_s": 2}
        cameras.cameras = {"one": {"schedule": ["07:00-08:00"], "source": source}}
        async with running(cameras, mosquitto, bridge, state_dir) as roster:
            await until(lambda: "outside the hours" in roster.reported("one")[1])
            assert not roster.frames("one")
            hours.set()
            await until(lambda: roster.frames("one") > 2)
            hours.clear()
            await until(lambda: "outside the hours" in roster.reported("one")[1])
            seen = roster.frames("one")
            hours.set()
            await until(lambda: roster.frames("one") > seen + 2)
    assert len(roster.boots("one")) == 1
