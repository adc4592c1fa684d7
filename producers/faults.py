"""Faults of simulated cameras: when they hold, and what they do to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from producers.redteam.lens import attack
from producers.redteam.team import RedTeam
from producers.scenario import Fault
from producers.scene.sticker import paste_sticker
from producers.sources.source import Captured


class _Span(NamedTuple):
    """One fault, and when it holds: Unix time in milliseconds."""

    begin_ms: float
    end_ms: float
    fault: Fault


class FaultPlan:
    """The faults of one camera on the fleet's clock, which goes on through restarts.

    `red_team` has the generators of its attacks; one thread at a time asks.
    """

    def __init__(self, faults: Sequence[Fault], started_ms: int, red_team: RedTeam | None = None) -> None:
        self._spans = [
            _Span(started_ms + 1000 * fault.at_s, started_ms + 1000 * (fault.at_s + fault.for_s), fault)
            for fault in faults
        ]
        self._red_team = red_team
        self._frozen: Captured | None = None

    def __bool__(self) -> bool:
        """Whether anything ever goes wrong."""
        return bool(self._spans)

    def holds(self, kind: str, now_ms: int) -> bool:
        """Whether a fault of this kind holds at a Unix time in milliseconds."""
        return self._holding(kind, now_ms) is not None

    def _holding(self, kind: str, now_ms: int) -> Fault | None:
        return next(
            (fault for begin_ms, end_ms, fault in self._spans if begin_ms <= now_ms < end_ms and kind == fault.kind),
            None,
        )

    def is_dark(self, now_ms: int) -> bool:
        """Whether the camera is gone."""
        return self.holds("dark", now_ms)

    def is_cut_off(self, now_ms: int) -> bool:
        """Whether the camera has no connection."""
        return self.holds("dark", now_ms) or self.holds("disconnect", now_ms)

    async def show(self, captured: Captured, now_ms: int) -> Captured:
        """`apply`, beside the event loop where it takes a network's milliseconds: other cameras go on meanwhile."""
        if self._red_team is None or not self.holds("attack", now_ms):
            return self.apply(captured, now_ms)
        return await self._red_team.beside(self.apply, captured, now_ms)

    def apply(self, captured: Captured, now_ms: int) -> Captured:
        """The frame as the faults of this moment leave it, with the truth about what it shows then."""
        if not self._spans:
            return captured
        if not self.holds("freeze", now_ms):
            self._frozen = None
        elif self._frozen is None:
            self._frozen = captured
        else:
            captured = captured._replace(picture=self._frozen.picture, truth=self._frozen.truth)
        if self.holds("black", now_ms):
            captured = captured._replace(picture=np.zeros_like(captured.picture), truth=None)
        if self.holds("sticker", now_ms):
            truth = captured.truth._replace(sticker=True) if captured.truth else None
            captured = captured._replace(picture=paste_sticker(captured.picture), truth=truth)
        fault = self._holding("attack", now_ms)
        return captured if fault is None else self._attacked(captured, fault)

    def _attacked(self, captured: Captured, fault: Fault) -> Captured:
        """The frame under an attack; one that shows the target's class already is left as it is."""
        assert self._red_team is not None
        assert fault.generator is not None  # by the fault's own check
        generator, truth = self._red_team.generators[fault.generator], captured.truth
        shown = truth.class_id if truth else None
        target = generator.settings.target_of(fault.aim, shown, captured.position)
        if target == shown:
            return captured
        eps = generator.settings.eps if fault.eps is None else fault.eps
        marked = truth._replace(attacked=True) if truth else None
        return captured._replace(picture=attack(captured.picture, generator, target, eps), truth=marked)
