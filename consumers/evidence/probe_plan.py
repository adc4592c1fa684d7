"""Which cameras are to send more of their frames whole, and what the bridges are asked to tell them.

A camera without a baseline, or one whose evidence is on its way to an alarm, is looked at more often, within a budget;
when it is calm again it goes back to its own setting. The camera announces what it does: what it does not do yet is
asked for again, so that nothing here waits for an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, delete, select

from consumers.database.engine import upsert
from consumers.database.tables import probing
from consumers.settings import ProbePlan
from schemas.announcement import check_announcement
from schemas.errors import Malformed
from schemas.pointillist_pb2 import Meta, ProbeRequest

_SAME: Final = 1e-6


class Seen(NamedTuple):
    """What the plan asks of a camera that sends frames now."""

    camera: str
    level: float
    """How far its evidence is on its way to an alarm, 0 to 1."""
    is_new: bool
    meta: bytes
    """Its last announcement."""


class Told(NamedTuple):
    """What a camera's own share is, and the one that it was told last."""

    own_share: float
    told_share: float


class Change(NamedTuple):
    """What a camera is to be told."""

    camera: str
    request: ProbeRequest | None
    """None when it has done so, and nothing of it needs to be remembered."""
    told: Told | None


def load_told(connection: Connection) -> dict[str, Told]:
    """What earlier recorders have told."""
    rows = connection.execute(select(probing.c.camera, probing.c.own_share, probing.c.told_share))
    return {camera: Told(own, told) for camera, own, told in rows}


def store_told(engine: Engine, changed: Mapping[str, Told | None]) -> None:
    """Remember what is told before it is. For the database thread."""
    insertion = upsert(engine, probing)
    stored = insertion.on_conflict_do_update(
        index_elements=[probing.c.camera],
        set_={name: insertion.excluded[name] for name in ("own_share", "told_share")},
    )
    with engine.begin() as connection:
        for camera, told in changed.items():
            if told is None:
                connection.execute(delete(probing).where(probing.c.camera == camera))
            else:
                connection.execute(stored, {"camera": camera, **told._asdict()})


class Probing:
    """Plans shares and remembers when a camera was told last."""

    def __init__(self, plan: ProbePlan) -> None:
        self._plan = plan
        self.told: dict[str, Told] = {}
        self._at: dict[str, tuple[float, float]] = {}

    def changes(self, cameras: Iterable[Seen], now_s: float, now_ms: int, *, strained: bool = False) -> list[Change]:
        """What has to be told now; `now_s` is monotonic.

        While the processors are `strained` and leave probes unchecked, only suspect cameras send more of them.
        """
        known = {seen.camera: (seen, meta) for seen in cameras if (meta := _announced(seen.meta)) is not None}
        for camera, told in list(self.told.items()):
            ours = (*told, self._plan.rising_share, self._plan.new_share)
            if camera in known and _differ(known[camera][1].probe_share, *ours):
                # Somebody else has set it since: that is its own share from now on.
                self.told[camera] = Told(known[camera][1].probe_share, told.told_share)
        wanted = self._wanted(known, strained)
        found = []
        for camera, (_, meta) in known.items():
            before, share = self.told.get(camera), wanted[camera]
            if abs(meta.probe_share - share) <= _SAME:
                if before is not None and abs(before.own_share - share) <= _SAME:
                    found.append(Change(camera, None, None))
                continue
            asked, at_s = self._at.get(camera, (-1.0, 0.0))
            if asked == share and now_s - at_s < self._plan.again_s:
                continue
            own = before.own_share if before is not None else meta.probe_share
            self._at[camera] = share, now_s
            found.append(Change(camera, ProbeRequest(issued_ms=now_ms, probe_share=share), Told(own, share)))
        self._at = {camera: at for camera, at in self._at.items() if camera in known}
        return found

    def remember(self, changes: Iterable[Change]) -> dict[str, Told | None]:
        """Note what is told; what of it the database has to know."""
        changed: dict[str, Told | None] = {}
        for change in changes:
            changed[change.camera] = change.told
            if change.told is None:
                self.told.pop(change.camera, None)
            else:
                self.told[change.camera] = change.told
        return changed

    def _wanted(self, known: Mapping[str, tuple[Seen, Meta]], strained: bool) -> dict[str, float]:
        """The share of each camera: the most suspect first, then the new ones, as far as the budgets reach."""
        left = self._plan.extra_per_s
        left_of_new = self._plan.new_extra * sum(meta.frames_per_second for _, meta in known.values())
        wanted = {}
        for camera in sorted(known, key=lambda camera: self._turn_of(known[camera][0])):
            seen, meta = known[camera]
            told = self.told.get(camera)
            own = told.own_share if told is not None else meta.probe_share
            share = max(own, self._asked_for(seen, strained))
            extra = (share - own) * meta.frames_per_second
            is_suspect = self._is_suspect(seen)
            is_within = extra <= left + _SAME and (is_suspect or left_of_new > 0)
            # Without probes of its own it is not watched at all, and without a rate nobody knows what it would cost.
            if not own or not meta.frames_per_second or not is_within:
                share, extra = own, 0.0
            wanted[camera] = share
            left -= extra
            left_of_new -= 0.0 if is_suspect else extra
        return wanted

    def _turn_of(self, seen: Seen) -> tuple[float, bool, str]:
        """Who comes first. A new camera that was told to send more goes on until it has its baseline."""
        told = self.told.get(seen.camera)
        waits = told is None or told.told_share <= told.own_share
        return -seen.level if self._is_suspect(seen) else 0.0, waits, seen.camera

    def _is_suspect(self, seen: Seen) -> bool:
        return seen.level >= self._plan.rising_level

    def _asked_for(self, seen: Seen, strained: bool) -> float:
        if self._is_suspect(seen):
            return self._plan.rising_share
        return self._plan.new_share if seen.is_new and not strained else 0.0


def _differ(announced: float, *expected: float) -> bool:
    return all(abs(announced - value) > _SAME for value in expected)


def _announced(meta: bytes) -> Meta | None:
    """What a camera has said of itself; None when that cannot be planned with."""
    if not meta:
        return None
    try:
        said = Meta.FromString(meta)
        check_announcement(said)
    except (DecodeError, Malformed):
        return None
    return said
