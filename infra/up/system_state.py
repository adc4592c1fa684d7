"""How the system of a state folder is: its roles, its cameras, and which of them are not well and why.

From what lies in the folder and from the roles' own `/healthz`: it can be asked whoever else is busy or gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from consumers.board.camera import Camera
from consumers.console.states import natural
from consumers.database.engine import open_engine
from consumers.database.tables import boots, cameras
from consumers.reading.rows import CameraRow
from infra.layout import Layout
from infra.local.role_table import read_roles, running
from infra.up.processes import health_of
from producers.scenario import load_scenario
from schemas.errors import StateError, UserError
from schemas.pointillist_pb2 import DEGRADED, OFFLINE

PAGES: Final = {
    "console": "console",
    "recorder": "pages",
    "prometheus": "Prometheus",
    "alertmanager": "Alertmanager",
    "grafana": "Grafana",
}
"""Roles that answer browsers, and what a person calls them."""
SILENT_S: Final = 10.0
"""A camera without a frame for so long is silent, unless it announces fewer frames than that."""
BROKEN: Final = ("degraded", "silent", "offline", "never heard")


@dataclass(frozen=True)
class RoleState:
    """One role: `up`, `not ready` or `gone`, and what is missing."""

    name: str
    state: str
    listen: str | None
    pid: int | None
    detail: str = ""


@dataclass(frozen=True)
class CameraState:
    """One camera: `online`, or one of `BROKEN` with the reason; `age_s` is since its last recorded frame."""

    name: str
    state: str
    detail: str
    age_s: float | None
    frames: int
    size: tuple[int, int] | None
    """Width and height that it announces."""
    frames_per_second: float | None

    @property
    def broken(self) -> bool:
        """Whether somebody has to look."""
        return self.state in BROKEN


def role_states(layout: Layout) -> list[RoleState]:
    """The roles that `up` has started; StateError when the folder is none of a system that runs."""
    entries = read_roles(layout.folder)
    if not entries:
        raise StateError(f"expected a running system in {layout.folder}, nothing runs there: pointillist up")
    with ThreadPoolExecutor(8) as asking:
        return list(asking.map(lambda name: _role(layout.folder, name, entries[name]), entries))


def _role(folder: Path, name: str, entry: dict[str, Any]) -> RoleState:
    listen, metrics, pid = entry.get("listen"), entry.get("metrics"), entry.get("pid")
    if running(folder, name) is None:
        return RoleState(name, "gone", listen, None, "it has ended; `up` starts it again")
    if not metrics:
        return RoleState(name, "up", listen, pid)
    ready, conditions = health_of(metrics)
    if ready:
        return RoleState(name, "up", listen, pid)
    missing = [f"{what}: {each.get('detail') or 'no'}" for what, each in conditions.items() if not each.get("ok")]
    return RoleState(name, "not ready", listen, pid, "; ".join(missing) or "it does not answer")


def page_addresses(roles: Sequence[RoleState]) -> dict[str, str]:
    """What a browser is to be given, by what it is called."""
    return {
        PAGES[role.name]: f"http://{role.listen}/" for role in roles if role.name in PAGES and role.listen is not None
    }


def camera_states(layout: Layout, now_ms: int | None = None) -> list[CameraState]:
    """The cameras that the database knows or the folder's scenario names, those that are not well first, by name."""
    now_ms = time.time_ns() // 10**6 if now_ms is None else now_ms
    found = _recorded(layout, now_ms)
    for name in _expected(layout):
        found.setdefault(name, CameraState(name, "never heard", "it has not connected yet", None, 0, None, None))
    order = {state: place for place, state in enumerate(BROKEN)}
    return sorted(found.values(), key=lambda each: (order.get(each.state, len(order)), natural(each.name)))


def _expected(layout: Layout) -> list[str]:
    if not layout.scenario.is_file():
        return []
    try:
        return [camera.camera_id for camera in load_scenario(layout.scenario).cameras()]
    except UserError:  # of another release
        return []


def _recorded(layout: Layout, now_ms: int) -> dict[str, CameraState]:
    try:
        engine = open_engine(layout.database_url, writes=False)
    except StateError:  # the recorder has not made it yet
        return {}
    try:
        return _read(engine, now_ms)
    except SQLAlchemyError as error:
        raise StateError(
            f"expected the recorder's database in {layout.folder} to answer: {error.__class__.__name__}"
        ) from None
    finally:
        engine.dispose()


def _read(engine: Engine, now_ms: int) -> dict[str, CameraState]:
    counted = select(boots.c.camera, func.sum(boots.c.frames), func.max(boots.c.last_ms)).group_by(boots.c.camera)
    with engine.begin() as connection:
        sent = {name: (int(frames), int(last_ms)) for name, frames, last_ms in connection.execute(counted)}
        said = {row.camera: CameraRow(*row) for row in connection.execute(select(cameras))}
    return {name: _camera(name, said.get(name), sent.get(name), now_ms) for name in sent.keys() | said.keys()}


def _camera(name: str, said: CameraRow | None, sent: tuple[int, int] | None, now_ms: int) -> CameraState:
    """As `consumers.board.camera.Camera.state` has it, by the times that the database knows."""
    camera = Camera(name)
    if said is not None:
        camera.say(said)
    frames, last_ms = sent or (0, 0)
    age_s = (now_ms - last_ms) / 1000 if frames else None
    sends = age_s is not None and age_s <= camera.patience_s(SILENT_S)
    state, detail = "online" if sends else "silent", "" if sends else f"no frame for {_ago(age_s)}"
    if said is not None and said.state == OFFLINE and not (sends and last_ms - said.state_ms > 1000 * SILENT_S):
        state, detail = "offline", f"no connection for {_ago((now_ms - said.state_ms) / 1000)}"
    elif said is not None and said.state == DEGRADED:
        state, detail = "degraded", said.detail
    meta = camera.meta
    size = (meta.width, meta.height) if meta is not None and meta.width else None
    rate = meta.frames_per_second or None if meta is not None else None
    return CameraState(name, state, detail, age_s, frames, size, rate)


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "as long as it is known"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
