"""The probe plan: cameras that should send more whole frames, and the requests to the bridges.

Cameras without a baseline, or with rising evidence, are probed more often, within a budget. A calm camera returns to
its own setting. A camera announces its current share. If the announcement differs from the plan, the request is
repeated; nothing here waits for a confirmation.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, delete, select

from consumers.database.engine import insert_or_replace
from consumers.database.tables import probing
from consumers.settings import ProbePlan
from schemas.pointillist_pb2 import Meta, ProbeRequest

_SAME: Final = 1e-6
_LARGE_PART: Final = 1 / 4
"""Part of the budget above which a suspect camera comes after the others. It announces its frame rate itself, and a
false one must not take the whole budget."""
_MOST_EXAMINED: Final = 200
"""Maximum number of new cameras in one plan besides the commanded ones."""


class ProbeCandidate(NamedTuple):
    """The plan's view of a camera that is sending frames."""

    camera: str
    level: float
    """Evidence level: 0 without evidence, 1 at an alarm."""
    is_new: bool
    meta: Meta
    """The camera's last announcement."""


class CommandedShare(NamedTuple):
    """A camera's own share, and the share that was last requested."""

    own_share: float
    commanded_share: float


class Change(NamedTuple):
    """A change of a camera's probe share."""

    camera: str
    request: ProbeRequest | None
    """The request; None if the camera has complied and its entry can be deleted."""
    commanded: CommandedShare | None


def load_commanded(connection: Connection) -> dict[str, CommandedShare]:
    """Return the shares that earlier recorders requested."""
    rows = connection.execute(select(probing.c.camera, probing.c.own_share, probing.c.commanded_share))
    return {camera: CommandedShare(own, commanded) for camera, own, commanded in rows}


def store_commanded(engine: Engine, changed: Mapping[str, CommandedShare | None]) -> None:
    """Store requested shares before they are sent. For the database thread."""
    stored = insert_or_replace(engine, probing)
    with engine.begin() as connection:
        for camera, commanded in changed.items():
            if commanded is None:
                connection.execute(delete(probing).where(probing.c.camera == camera))
            else:
                connection.execute(stored, {"camera": camera, **commanded._asdict()})


class ProbePlanner:
    """Plans probe shares and stores the time of each camera's last request.

    Incremental: inputs are pushed as they change, and the plan is recomputed only then. With thousands of calm or
    waiting cameras, a full scan each second would dominate the cost of a plan.
    """

    def __init__(self, plan: ProbePlan) -> None:
        self._plan = plan
        self.commanded: dict[str, CommandedShare] = {}
        self._at: dict[str, tuple[float, float]] = {}
        self._known: dict[str, ProbeCandidate] = {}
        self._rate = 0.0
        """Total frames per second of all known cameras."""
        self._suspect: set[str] = set()
        self._waiting: list[str] = []
        """A heap of new cameras that still wait for more probes; outdated entries are possible."""
        self._is_waiting: set[str] = set()
        self._stirred = False
        self._strained = False
        self._again_s = math.inf

    def observe(self, seen: ProbeCandidate) -> None:
        """Update the state of a camera that is sending frames."""
        before = self._known.get(seen.camera)
        if before == seen:
            return
        self._known[seen.camera] = seen
        self._rate += seen.meta.frames_per_second - (before.meta.frames_per_second if before is not None else 0.0)
        commanded = self.commanded.get(seen.camera)
        if commanded is not None:
            self.commanded[seen.camera] = commanded._replace(own_share=self._own_share(seen.meta, commanded))
        was = before is not None and self._is_suspect(before)
        if self._is_suspect(seen):
            self._suspect.add(seen.camera)
        else:
            self._suspect.discard(seen.camera)
        if seen.is_new:
            self._enqueue(seen.camera)
        self._stirred |= (
            before is None
            or before.meta != seen.meta
            or before.is_new != seen.is_new
            or self._is_suspect(seen)
            or was
        )  # fmt: skip

    def remove(self, camera: str) -> None:
        """Remove a camera that no longer sends frames."""
        before = self._known.pop(camera, None)
        if before is not None:
            self._rate = self._rate - before.meta.frames_per_second if self._known else 0.0
            self._suspect.discard(camera)
            self._at.pop(camera, None)
            self._stirred = True

    def changes(self, now_s: float, now_ms: int, *, strained: bool = False) -> list[Change]:
        """Return the changes to request now; `now_s` is monotonic.

        While the processors are `strained` and skip probes, only suspect cameras send more of them.
        """
        if not self._stirred and strained == self._strained and now_s < self._again_s:
            return []
        self._stirred, self._strained, self._again_s = False, strained, math.inf
        found = []
        for camera, share in self._plan_shares(strained).items():
            meta, before = self._known[camera].meta, self.commanded.get(camera)
            if abs(meta.probe_share - share) <= _SAME:
                if before is not None and abs(before.own_share - share) <= _SAME:
                    found.append(Change(camera, None, None))
                continue
            asked, at_s = self._at.get(camera, (-1.0, 0.0))
            if asked == share and now_s - at_s < self._plan.again_s:
                self._again_s = min(self._again_s, at_s + self._plan.again_s)
                continue
            own = before.own_share if before is not None else meta.probe_share
            self._at[camera] = share, now_s
            self._again_s = min(self._again_s, now_s + self._plan.again_s)
            found.append(Change(camera, ProbeRequest(issued_ms=now_ms, probe_share=share), CommandedShare(own, share)))
        return found

    def remember(self, changes: Iterable[Change]) -> dict[str, CommandedShare | None]:
        """Record requested changes. Return the entries to write to the database."""
        changed: dict[str, CommandedShare | None] = {}
        for change in changes:
            changed[change.camera] = change.commanded
            if change.commanded is None:
                self.commanded.pop(change.camera, None)
            else:
                self.commanded[change.camera] = change.commanded
        return changed

    def _own_share(self, meta: Meta, commanded: CommandedShare) -> float:
        """Return the camera's own share: the user may have set another one since the request."""
        state = meta.command_state
        if state.HasField("probe_share"):
            return state.probe_share
        # Without a request in force, the announced share is the camera's own.
        unasked = meta.HasField("command_state") and not state.HasField("asked_share")
        if unasked or _differ(meta.probe_share, *commanded, self._plan.rising_share, self._plan.new_share):
            return meta.probe_share
        return commanded.own_share

    def _enqueue(self, camera: str) -> None:
        if camera not in self._is_waiting:
            self._is_waiting.add(camera)
            heapq.heappush(self._waiting, camera)

    def _plan_shares(self, strained: bool) -> dict[str, float]:
        """Return the planned share of each camera within the budgets: the most suspect first, then the new ones.

        Suspect cameras that would take a large part of the budget come after the other suspect ones. Cameras without an
        entry keep their own share.
        """
        budget = _Budget(self._plan.extra_per_s, self._plan.new_extra * self._rate)
        large_part = _LARGE_PART * self._plan.extra_per_s

        def rank(camera: str) -> tuple[bool, float, str]:
            takes_much = self._extra_per_s(camera, self._plan.rising_share) > large_part + _SAME
            return takes_much, -self._known[camera].level, camera

        suspect = sorted(self._suspect, key=rank)
        planned = {camera: self._share(camera, self._plan.rising_share, budget, suspect=True) for camera in suspect}
        commanded = sorted(
            (self._keeps_own_share(camera), camera) for camera in self.commanded if camera in self._known
        )
        # A new camera with a raised share keeps it until it has a baseline. The waiting cameras come next.
        for keeps_own, camera in commanded:
            if not keeps_own and camera not in planned:
                planned[camera] = self._share(camera, self._new_share(camera, strained), budget)
        examined: list[str] = []
        left = 0 if strained else _MOST_EXAMINED
        while self._waiting and budget.has_room and left:
            camera = heapq.heappop(self._waiting)
            seen = self._known.get(camera)
            if seen is None or not seen.is_new:
                self._is_waiting.discard(camera)
                continue
            examined.append(camera)
            if camera not in planned:
                planned[camera] = self._share(camera, self._plan.new_share, budget)
                left -= 1
        for camera in examined:
            heapq.heappush(self._waiting, camera)
        for _, camera in commanded:
            if camera not in planned:
                planned[camera] = self.commanded[camera].own_share
        return planned

    def _share(self, camera: str, asked: float, budget: _Budget, *, suspect: bool = False) -> float:
        """Return a camera's share: `asked` if the budgets allow it, else its own share."""
        own = self._present_own_share(camera)
        # A camera without probes of its own is not watched. Without a frame rate, the cost is unknown.
        if not own or not self._known[camera].meta.frames_per_second:
            return own
        return max(own, asked) if budget.try_spend(self._extra_per_s(camera, asked), suspect=suspect) else own

    def _extra_per_s(self, camera: str, asked: float) -> float:
        """Return the frames per second that a camera would send whole beyond its own setting, by its announced rate."""
        return max(0.0, asked - self._present_own_share(camera)) * self._known[camera].meta.frames_per_second

    def _present_own_share(self, camera: str) -> float:
        commanded = self.commanded.get(camera)
        return commanded.own_share if commanded is not None else self._known[camera].meta.probe_share

    def _keeps_own_share(self, camera: str) -> bool:
        commanded = self.commanded[camera]
        return commanded.commanded_share <= commanded.own_share

    def _new_share(self, camera: str, strained: bool) -> float:
        return self._plan.new_share if self._known[camera].is_new and not strained else 0.0

    def _is_suspect(self, seen: ProbeCandidate) -> bool:
        return seen.level >= self._plan.rising_level


class _Budget:
    """The remaining frames per second that cameras may send whole beyond their own settings."""

    def __init__(self, left: float, left_of_new: float) -> None:
        self._left = left
        self._left_of_new = left_of_new

    @property
    def has_room(self) -> bool:
        """Return whether another new camera fits."""
        return self._left > _SAME and self._left_of_new > 0

    def try_spend(self, extra: float, *, suspect: bool) -> bool:
        """Take `extra` frames per second from the budget. Return whether they were granted."""
        if extra > self._left + _SAME or not (suspect or self._left_of_new > 0):
            return False
        self._left -= extra
        self._left_of_new -= 0.0 if suspect else extra
        return True


def _differ(announced: float, *expected: float) -> bool:
    return all(abs(announced - value) > _SAME for value in expected)
