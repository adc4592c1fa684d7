"""Faults of simulated cameras: when they hold, and what they do to a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from producers.scenario import Fault
from producers.scene.sticker import paste_sticker
from producers.sources.source import Captured


class FaultPlan:
    """The faults of one camera on the fleet's clock, which goes on through restarts."""

    def __init__(self, faults: Sequence[Fault], started_ms: int) -> None:
        self._spans = [
            (started_ms + 1000 * fault.at_s, started_ms + 1000 * (fault.at_s + fault.for_s), fault.kind)
            for fault in faults
        ]
        self._frozen: Captured | None = None

    def holds(self, kind: str, now_ms: int) -> bool:
        """Whether a fault of this kind holds at a Unix time in milliseconds."""
        return any(begin <= now_ms < end and kind == name for begin, end, name in self._spans)

    def is_dark(self, now_ms: int) -> bool:
        """Whether the camera is gone."""
        return self.holds("dark", now_ms)

    def is_cut_off(self, now_ms: int) -> bool:
        """Whether the camera has no connection."""
        return self.holds("dark", now_ms) or self.holds("disconnect", now_ms)

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
        return captured
