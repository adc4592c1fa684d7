"""Intended silence in a camera's status: paused by a command, outside its schedule, or at the end of its file."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from benchmarks.harness.videos import shades, write_video
from infra.state_folder import Layout
from infra.up.preparation import check_sources
from producers.camera.camera import Camera
from producers.camera.camera_settings import CameraSettings
from producers.fleet.camera_spec import CameraSpec, CameraSpecs
from producers.fleet.fleet import Fleet
from producers.fleet.real import run_camera
from producers.fleet.supervisor import CameraSupervisor, TaskPhase
from producers.gate.schedule import Schedule
from producers.publisher.applied_commands import write_command_state
from producers.simulation.scenario import parse_scenario
from producers.sources.source import Source
from producers.spool.folder import spool_root
from schemas.errors import SourceError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.messages.frame import open_own_message, sign_message
from schemas.pointillist_pb2 import DEGRADED, ENDED, ONLINE, PAUSED, Command, CommandState, Status
from schemas.runtime.health import Health
from tests.producers.fleet_rig import capturing, offline_camera
from tests.producers.source_rig import Numbers
from tests.waiting import PATIENCE_S, until

CAMERA = CameraId("lab/door")
KEY = derive_camera_key(b"a fleet secret for the tests", CAMERA)
HOURS = {"hours": ["mon 07:00-19:00"]}
OUTSIDE = "outside the hours in which it sends"


@dataclass
class Running:
    """A camera without a broker, and the statuses that it has published."""

    camera: Camera
    statuses: list[Status] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, _retain: bool) -> None:
        if topic == self.camera.publisher.presence.status_topic:
            self.statuses.append(open_own_message(Status, KEY, payload))

    def pause(self) -> None:
        self._command(enabled=False)

    def resume(self) -> None:
        self._command(enabled=True)

    def _command(self, *, enabled: bool) -> None:
        issued_ms = max(time.time_ns() // 10**6, self.camera._control.state.issued_ms + 1)
        assert self.camera._control.command(sign_message(KEY, Command(issued_ms=issued_ms, enabled=enabled)))

    @property
    def states(self) -> list[tuple[int, str]]:
        return [(status.state, status.detail) for status in self.statuses]


@asynccontextmanager
async def running(
    folder: Path, wrap: Callable[[Source], Source] | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Run a camera that captures into its spool; `wrap` replaces its source."""
    plan: CameraSettings
    [plan] = parse_scenario({"site": "lab", "cameras": [{"name": "door", **settings}]}, "camera").cameras()
    running_camera = Running(offline_camera(plan, KEY, folder))
    running_camera.camera._wrap_source = wrap
    running_camera.camera.publisher.presence._publish = running_camera.publish
    async with capturing(running_camera.camera):
        yield running_camera


@dataclass
class Hours:
    """The schedule of a camera, which a test opens and closes."""

    are_open: bool = True


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    schedule_hours = Hours()
    monkeypatch.setattr("producers.gate.schedule.Schedule.holds", lambda *_: schedule_hours.are_open)
    monkeypatch.setattr("producers.gate.schedule.Schedule.opens_at", lambda *_: None)
    return schedule_hours


async def test_a_pause_and_its_end_by_command_are_published(tmp_path: Path) -> None:
    async with running(tmp_path, source={"kind": "scene"}, fps=50) as running_camera:
        await until(lambda: running_camera.camera.spool.current.next > 0, "the first frame")
        now_ms = time.time_ns() // 10**6
        for number, enabled in enumerate((False, True)):
            command = sign_message(KEY, Command(issued_ms=now_ms + number, enabled=enabled))
            assert running_camera.camera._control.command(command)
            await until(lambda: len(running_camera.statuses) > number, "its status")  # noqa: B023  # awaited in the loop
        assert running_camera.states == [(PAUSED, "paused by a command"), (ONLINE, "")]


async def test_the_end_of_a_file_is_published(tmp_path: Path) -> None:
    video = write_video(tmp_path / "short.mp4", shades(5, 48, 32, 40))
    async with running(tmp_path / "spool", source={"kind": "video", "file": str(video)}) as running_camera:
        await until(lambda: running_camera.camera.ended, "the end of the file")
        assert running_camera.states == [(ENDED, "its source has ended")]


async def test_a_failure_before_the_end_of_a_source_is_no_fault_after_it(tmp_path: Path) -> None:
    sources = [Numbers(0, live=True, failure=SourceError("gone")), Numbers(0, live=True)]
    for each in sources:
        each.gate.release()
    async with running(tmp_path, source={"kind": "scene"}, fps=20, wrap=lambda _: sources.pop(0)) as running_camera:
        await until(lambda: running_camera.camera.ended, "the end of the source")
        assert [state for state, _ in running_camera.states] == [DEGRADED, ONLINE, ENDED]
        assert running_camera.camera.trouble == ""


async def test_a_pause_outside_the_schedule_is_published(tmp_path: Path, hours: Hours) -> None:
    hours.are_open = False
    async with running(tmp_path, source={"kind": "scene"}, fps=50, schedule=HOURS) as running_camera:
        await until(lambda: running_camera.statuses, "its status")
        assert running_camera.states == [(PAUSED, "outside the hours in which it sends")]


class Live(Numbers):
    """A live source; the test releases each picture that the camera waits for."""

    def __init__(self, *_: object) -> None:
        super().__init__(10**6, live=True)


@pytest.mark.parametrize("fps", [0, 20])
@pytest.mark.parametrize("cause", ["a command", "the hours"])
async def test_a_picture_captured_after_the_pause_is_not_sent(
    tmp_path: Path, hours: Hours, fps: int, cause: str
) -> None:
    live = Live()
    async with running(
        tmp_path, source={"kind": "scene"}, fps=fps, schedule=HOURS, wrap=lambda _: live
    ) as running_camera:
        ledger, detail = running_camera.camera.spool.current, OUTSIDE if cause == "the hours" else "paused by a command"
        live.gate.release()
        await until(lambda: ledger.next == 1, "a frame")
        await asyncio.sleep(0.3)  # until the camera waits for the next picture
        if cause == "the hours":
            hours.are_open = False
        else:
            running_camera.pause()
        live.gate.release()
        await until(lambda: running_camera.states[-1:] == [(PAUSED, detail)], "its status")
        assert ledger.next == 1


@pytest.mark.parametrize("cause", ["a command", "the hours"])
async def test_a_camera_with_one_frame_in_ten_minutes_pauses_at_once(
    tmp_path: Path, hours: Hours, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.camera.camera._HOURS_S", 0.1)
    async with running(tmp_path, source={"kind": "scene"}, fps=1 / 600, schedule=HOURS) as running_camera:
        await until(lambda: running_camera.camera.spool.current.next == 1, "the first frame")
        await asyncio.sleep(0.3)  # it has checked its schedule twice
        assert running_camera.camera.spool.current.next == 1
        if cause == "the hours":
            hours.are_open = False
        else:
            running_camera.pause()
        await until(lambda: [state for state, _ in running_camera.states] == [PAUSED], "its status")


async def test_a_paused_camera_closes_its_source_outside_its_schedule(tmp_path: Path, hours: Hours) -> None:
    live = Live()
    async with running(
        tmp_path, source={"kind": "scene"}, fps=20, schedule=HOURS, wrap=lambda _: live
    ) as running_camera:
        live.gate.release()
        await until(lambda: running_camera.camera.spool.current.next == 1, "a frame")
        running_camera.pause()
        live.gate.release()
        await until(lambda: (PAUSED, "paused by a command") in running_camera.states, "the pause")
        hours.are_open = False

        def is_closed() -> bool:
            live.gate.release()  # a source that waits for its next picture closes after it
            return live.closed.is_set()

        await until(is_closed, "a closed source")
        await until(lambda: running_camera.states[-1:] == [(PAUSED, OUTSIDE)], "its status")


@pytest.mark.parametrize("cause", ["a command", "the hours"])
async def test_the_phase_of_a_paused_camera_has_the_reason(
    tmp_path: Path, hours: Hours, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, source={"kind": "scene"}, fps=20, schedule=HOURS) as running_camera:
        camera, detail = running_camera.camera, OUTSIDE if cause == "the hours" else "paused by a command"
        spec = CameraSpec(camera.settings, KEY, ("127.0.0.1", 9))
        task = CameraSupervisor(spec, tmp_path, lambda _: camera, marks_start=False)
        task.open()
        if cause == "the hours":
            hours.are_open = False
        else:
            running_camera.pause()
        await until(lambda: running_camera.states[-1:] == [(PAUSED, detail)], "its status")
        monkeypatch.setattr(camera.publisher.link, "up", True)
        assert task.phase() == (TaskPhase.CAPTURING, detail)


async def test_a_failure_before_the_end_of_the_hours_is_no_fault_outside_of_them(tmp_path: Path, hours: Hours) -> None:
    live = Numbers(0, live=True, failure=SourceError("gone"))
    live.gate.release(100)
    async with running(
        tmp_path, source={"kind": "scene"}, fps=20, schedule=HOURS, wrap=lambda _: live
    ) as running_camera:
        await until(lambda: DEGRADED in [state for state, _ in running_camera.states], "a degraded camera")
        hours.are_open = False
        await until(lambda: running_camera.states[-1:] == [(PAUSED, OUTSIDE)], "its status")
        assert running_camera.camera.trouble == ""


async def test_a_paused_camera_shows_no_fault_of_its_source_and_tries_it_again_after_the_pause(tmp_path: Path) -> None:
    opened: list[Numbers] = []

    def fail(_: Source) -> Source:
        opened.append(Numbers(0, live=True, failure=SourceError("gone")))
        opened[-1].gate.release()
        return opened[-1]

    async with running(tmp_path, source={"kind": "scene"}, fps=20, wrap=fail) as running_camera:
        await until(lambda: DEGRADED in [state for state, _ in running_camera.states], "a degraded camera")
        running_camera.pause()
        await until(lambda: running_camera.states[-1:] == [(PAUSED, "paused by a command")], "its status")
        assert running_camera.camera.trouble == ""
        before = len(opened)
        running_camera.resume()
        await until(lambda: len(opened) > before and running_camera.states[-1][0] == DEGRADED, "another try")


@pytest.mark.parametrize("cause", ["a command", "the hours"])
async def test_a_source_that_opens_late_during_a_pause_is_opened_again_after_it(
    tmp_path: Path, hours: Hours, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures until then would be of the pause."""
    opened: list[Live] = []
    answered = threading.Event()

    def open_late(*_: object, **__: object) -> Source:
        assert answered.wait(PATIENCE_S)
        opened.append(Live())
        opened[-1].gate.release()
        return opened[-1]

    monkeypatch.setattr("producers.camera.camera.open_source", open_late)
    monkeypatch.setattr("producers.sources.settings.SourceSettings.opening_s", 0.1)
    source = {"kind": "url", "address": "rtsp://127.0.0.1:9/late"}
    async with running(tmp_path, source=source, fps=20, schedule=HOURS) as running_camera:
        await until(lambda: running_camera.camera.trouble, "an opening that takes too long")
        if cause == "the hours":
            hours.are_open = False
        else:
            running_camera.pause()
        await until(lambda: running_camera.states[-1:] and running_camera.states[-1][0] == PAUSED, "the pause")
        answered.set()
        await until(lambda: opened and opened[0].closed.is_set(), "the end of the late source")
        hours.are_open = True
        running_camera.resume()
        await until(lambda: running_camera.camera.spool.current.next == 1, "a frame")
        assert len(opened) == 2


async def test_the_heartbeat_of_a_motion_gate_is_announced_as_the_longest_gap(tmp_path: Path) -> None:
    async with running(tmp_path, source={"kind": "scene"}, fps=50, motion={"heartbeat_s": 60}) as running_camera:
        running_camera.camera.publisher.presence.announce_online()
        assert running_camera.statuses[-1].longest_gap_s == 60


async def lines_of_start(plan: CameraSettings, state: Path) -> list[str]:
    """Run the camera for half a second, and return what `up` prints about its source."""
    await run_camera(
        CameraSpec(plan, KEY, ("127.0.0.1", 9)), state=state, registry=CollectorRegistry(), health=Health(),
        stop=asyncio.Event(), ends_at_ms=int(1000 * time.time()) + 500, drain_s=0,
    )  # fmt: skip
    lines: list[str] = []
    check_sources(Layout(state), [plan], lines.append, lambda: None)
    return lines


async def test_an_unreachable_camera_outside_its_schedule_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Schedule, "holds", lambda self, now_s: False)
    source = {"kind": "url", "address": "rtsp://127.0.0.1:9/off"}
    plan = CameraSettings.model_validate({"camera_id": CAMERA, "source": source, "schedule": "07:00-08:00"})
    assert await lines_of_start(plan, tmp_path) == [
        "1 of 1 cameras are outside their schedule: their sources are not tried"
    ]


async def test_an_unreachable_camera_that_a_command_pauses_starts(tmp_path: Path) -> None:
    source = {"kind": "url", "address": "rtsp://127.0.0.1:9/off"}
    plan = CameraSettings.model_validate({"camera_id": CAMERA, "source": source})
    folder = spool_root(tmp_path) / CAMERA
    folder.mkdir(parents=True)
    write_command_state(folder, CommandState(issued_ms=1, enabled=False), plan.encoding, plan.fps)
    assert await lines_of_start(plan, tmp_path) == [
        "1 of 1 cameras are paused by a command: their sources are not tried"
    ]


async def test_a_failing_camera_does_not_end_the_start_while_another_is_outside_its_schedule(
    tmp_path: Path, hours: Hours
) -> None:
    source = {"kind": "url", "address": "rtsp://127.0.0.1:9/off"}

    def key_of(camera: CameraSettings) -> CameraKey:
        return derive_camera_key(b"a fleet secret for the tests", camera.camera_id)

    failing = CameraSettings.model_validate({"camera_id": "lab/day", "source": source})
    resting = CameraSettings.model_validate({"camera_id": "lab/night", "source": source, "schedule": "07:00-08:00"})
    hours.are_open = False
    lines: list[str] = []
    for cameras, strict in (([failing, resting], False), ([failing], True)):
        specs = CameraSpecs({each.camera_id: CameraSpec(each, key_of(each), ("127.0.0.1", 9)) for each in cameras})
        async with Fleet(
            specs, state=tmp_path / str(strict), registry=CollectorRegistry(), health=Health(), stop=asyncio.Event()
        ) as fleet:
            fleet.open()
            with pytest.raises(SourceError) if strict else nullcontext():
                await fleet.open_sources(strict=True)
    check_sources(Layout(tmp_path), [failing, resting], lines.append, lambda: None)
    assert "the camera is degraded and retries" in lines[1]
    with pytest.raises(SourceError, match=r"lab/day.* Start the camera, or correct its address"):
        check_sources(Layout(tmp_path), [failing], lines.append, lambda: None)


def test_the_sources_of_a_run_get_the_remedy_for_an_unknown_scheme(tmp_path: Path) -> None:
    source = {"kind": "url", "address": "rtps://127.0.0.1:9/off"}
    mistyped = CameraSettings.model_validate({"camera_id": "lab/day", "source": source})
    with pytest.raises(
        SourceError, match=r"lab/day: .*Protocol not found\. Use rtsp://, rtsps://, http:// or https://\.$"
    ):
        check_sources(Layout(tmp_path), [mistyped], print, lambda: None)
