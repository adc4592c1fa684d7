"""The state of the system in a state folder: its roles, its cameras, and the reasons of those not well.

The sources are the folder's files and the roles' own `/healthz`: they work even if other roles are busy or gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from consumers.cameras.camera import Camera
from consumers.cameras.open_alerts import muted_cameras, newest_alerts, open_episodes
from consumers.cameras.order import natural
from consumers.cameras.saved import SavedState, read_states
from consumers.cameras.state import State, alert
from consumers.console.data.roles import NO_ANSWER_S, PASSED, RoleState, with_kafka
from consumers.database.cameras import last_recorded
from consumers.database.console_store import Reviews, read_forgotten, recorded_reviews
from consumers.database.engine import open_engine
from consumers.database.mutes import Mute, read_mutes
from consumers.database.tables import boots, cameras
from consumers.records.rows import CameraRow
from infra.local.role_table import not_running, read_roles, running, supervisor
from infra.state_folder import Layout
from infra.up.processes import fetch_health
from infra.up.scrape import Samples
from producers.fleet.camera_file import load_camera_file
from producers.simulation.scenario import load_scenario
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError, UserError
from schemas.identity import CameraId
from schemas.metrics import KAFKA_GROUP_LAG, LAG, RECORDER_LAG, SPOOL_FRAMES
from schemas.printable import printable
from schemas.topics import PROCESSORS_GROUP

PAGES: Final = {"console": "console", "grafana": "Grafana"}
"""Roles with pages for people, and their names there. The others listen for programs only."""
_BACKLOGS: Final = (LAG.name, RECORDER_LAG.name, SPOOL_FRAMES.name)
_AT_ONCE: Final = 64
"""Roles that are queried in parallel: each hanging one takes `NO_ANSWER_S`."""


@dataclass(frozen=True)
class CameraState:
    """One camera with its state, as all programs show it; `age_s` is since its last recorded frame."""

    name: str
    state: State
    detail: str
    """The reason of the state; empty for `online`."""
    age_s: float | None
    frames: int
    size: tuple[int, int] | None
    """Width and height that it announces."""
    frames_per_second: float | None
    own_bytes: int | None = None
    """Mean bytes of a frame of its own video stream, as it announces them; None without a stream."""
    sent_bytes: int | None = None
    """Mean bytes of its published frame messages, as it announces them; None without a stream."""

    @property
    def broken(self) -> bool:
        """Whether the camera needs attention."""
        return self.state.is_fault


def role_states(layout: Layout, *, counted: bool = True) -> list[RoleState]:
    """Return the roles that `up` has started; StateError if no system runs on the folder.

    `counted` adds their frames and backlogs, which cost each role a page of metrics.
    """
    entries = read_roles(layout.folder)
    if not entries:
        raise not_running(layout.folder)
    supervised = is_supervised(layout)
    with ThreadPoolExecutor(min(len(entries), _AT_ONCE)) as asking:
        asked = partial(_role, layout.folder, supervised=supervised, counted=counted)
        roles = list(asking.map(asked, entries, entries.values()))
    if not counted:
        return roles
    return _with_group_lag(with_kafka(roles), entries.get("monitor", {}).get("metrics"))


def _with_group_lag(roles: list[RoleState], monitor: str | None) -> list[RoleState]:
    """Return the roles with the lag of processors that do not answer, if the monitor measures it."""
    processors = [role for role in roles if role.name.startswith("processor")]
    silent = next((role for role in processors if role.state == "not answering"), None)
    if silent is None or monitor is None:
        return roles
    groups = Samples.scrape([monitor], [KAFKA_GROUP_LAG.name]).by(KAFKA_GROUP_LAG.name, "group")
    if PROCESSORS_GROUP not in groups:
        return roles
    others = sum(role.backlog or 0 for role in processors)
    waiting = max(0, round(groups[PROCESSORS_GROUP]) - others)
    return [replace(role, backlog=waiting) if role is silent else role for role in roles]


def is_supervised(layout: Layout) -> bool:
    """Return whether an `up` runs that restarts roles."""
    return supervisor(layout.folder) is not None


def _role(folder: Path, name: str, entry: dict[str, Any], *, supervised: bool, counted: bool) -> RoleState:
    listen, metrics, pid = entry.get("listen"), entry.get("metrics"), entry.get("pid")
    restarts, url = entry.get("restarts", 0), entry.get("url")
    if running(folder, name) is None:
        why = "it has ended; `up` starts it again" if supervised else "it has ended with `up`"
        return RoleState(name, "gone", listen, None, why, restarts=restarts, url=url)
    if not metrics:
        return RoleState(name, "up", listen, pid, restarts=restarts, url=url)
    answer = fetch_health(metrics)
    if answer is None:
        silent = f"no answer for {NO_ANSWER_S:g} s"
        return RoleState(name, "not answering", listen, pid, silent, restarts=restarts, url=url)
    ready, conditions = answer
    missing = [f"{what}: {each.get('detail') or 'no'}" for what, each in conditions.items() if not each.get("ok")]
    detail = "" if ready else "; ".join(missing) or "it starts"
    backlog, frames = _counted(metrics) if counted else (None, None)
    return RoleState(name, "up" if ready else "not ready", listen, pid, detail, backlog, restarts, url, frames)


def _counted(metrics: str) -> tuple[int | None, float | None]:
    """Return the lag of a role, in frames or records, and the frames that have passed it; None for what it lacks."""
    samples = Samples.scrape([metrics], (*_BACKLOGS, *(name for name, _ in PASSED)))
    found = [samples.by(name, "") for name in _BACKLOGS]
    backlog = round(sum(sum(each.values()) for each in found)) if any(found) else None
    passed = [samples.sum(name, **labels) for name, labels in PASSED if samples.by(name, "")]
    return backlog, sum(passed) if passed else None


def page_addresses(roles: Sequence[RoleState]) -> dict[str, str]:
    """Return the addresses for a browser, by the names of the pages."""
    return {
        PAGES[role.name]: f"{role.url or f'http://{role.listen}'}/"
        for role in roles
        if role.name in PAGES and role.listen is not None
    }


def camera_states(layout: Layout, now_ms: int | None = None) -> list[CameraState]:
    """Return the cameras of the database and of the run, the worst first, then by name."""
    now_ms = unix_ms() if now_ms is None else now_ms
    found = _recorded(layout, now_ms)
    for name in run_cameras(layout):
        found.setdefault(name, CameraState(name, State.SILENT, "it has not connected yet", None, 0, None, None))
    return sorted(found.values(), key=lambda each: (each.state.severity, natural(each.name)))


def known_camera(layout: Layout, name: CameraId) -> CameraState:
    """Return the state of one camera; ConfigError if the system has none of this name."""
    for each in camera_states(layout):
        if each.name == name:
            return each
    raise ConfigError(
        f"{name}: expected a camera of `pointillist cameras {layout.state_option}`, got an unknown one. Correct the "
        "name."
    )


def run_cameras(layout: Layout) -> list[CameraId]:
    """Return the cameras that the run's list names now; without a readable list, those of the folder's scenario."""
    if layout.cameras_file is not None:
        try:
            return list(load_camera_file(layout.cameras_file))
        except UserError:  # the cameras of the earlier file continue
            pass
    return scenario_cameras(layout)


def scenario_cameras(layout: Layout) -> list[CameraId]:
    """Return the cameras of the folder's scenario as of the start of the run; none without a readable one."""
    if not layout.scenario.is_file():
        return []
    try:
        return [camera.camera_id for camera in load_scenario(layout.scenario).cameras()]
    except UserError:  # of another release, or without cameras
        return []


def _recorded(layout: Layout, now_ms: int) -> dict[str, CameraState]:
    try:
        engine = open_engine(layout.database_url, writes=False)
    except StateError:  # the recorder has not created it yet
        return {}
    try:
        store = layout.console_store
        return _read(engine, recorded_reviews(store) or {}, read_forgotten(store), now_ms)
    except SQLAlchemyError as error:
        raise StateError(
            f"the recorder's database: expected a response in {layout.folder}, got "
            f"{error.__class__.__name__}. Start the recorder."
        ) from None
    finally:
        engine.dispose()


def _read(engine: Engine, reviews: Reviews, forgotten: Mapping[str, int], now_ms: int) -> dict[str, CameraState]:
    counted = select(boots.c.camera, func.sum(boots.c.frames), last_recorded(now_ms)).group_by(boots.c.camera)
    with engine.begin() as connection:
        sent = {name: (int(frames), last_ms) for name, frames, last_ms in connection.execute(counted)}
        statuses = {row.camera: CameraRow(*row) for row in connection.execute(select(cameras))}
        saved = {each.camera: each for each in read_states(connection)}
        standing = open_episodes(newest_alerts(connection), reviews)
        muted = muted_cameras(standing, read_mutes(connection, now_ms))
    alerts = Counter(each.camera for each in standing if not each.wanted)
    names = {
        name
        for name in sent.keys() | statuses.keys()
        if forgotten.get(name, -1)
        < max((sent[name][1] or 0) if name in sent else 0, statuses[name].seen_ms if name in statuses else 0)
    }
    return {
        name: _camera(name, statuses.get(name), saved.get(name), sent.get(name), alerts[name], muted.get(name), now_ms)
        for name in names
    }


def _camera(
    name: str,
    status: CameraRow | None,
    saved: SavedState | None,
    sent: tuple[int, int | None] | None,
    alerts: int,
    mute: Mute | None,
    now_ms: int,
) -> CameraState:
    camera = Camera(name)
    if status is not None:
        camera.record_status(status)
        camera.status_seen_ms = status.state_ms
    frames, last_ms = sent or (0, None)
    judged = camera.judge_of_frame(last_ms, now_ms) if saved is None else saved.now(last_ms, now_ms)
    judged = alert(judged, alerts if mute is None or mute.is_of_camera else 0)
    meta = camera.meta
    size = (meta.width, meta.height) if meta is not None and meta.width else None
    rate = meta.frames_per_second or None if meta is not None else None
    age_s = None if last_ms is None else (now_ms - last_ms) / 1000
    reason = judged.reason
    if mute is not None:
        reason = (
            f"{reason}{'; ' if reason else ''}muted for {-(-(mute.until_ms - now_ms) // 60_000)} min: {mute.reason}"
        )
    own = meta.stream_frame_bytes or None if meta is not None else None
    published = meta.sent_frame_bytes or None if meta is not None else None
    return CameraState(name, judged.state, printable(reason), age_s, frames, size, rate, own, published)
