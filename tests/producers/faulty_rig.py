"""Pictures that pass through a faulty source at the times that a test chooses."""

from __future__ import annotations

from collections.abc import Iterable

from producers.simulation.faults import FaultPlan, FaultySource
from producers.simulation.red_team import RedTeam
from producers.sources.source import CapturedFrame


class Pictures:
    """A source of fixed pictures that records whether it was closed."""

    kind = "pictures"
    live = False
    blocking = False
    on_demand = False

    def __init__(self, pictures: Iterable[CapturedFrame]) -> None:
        self._pictures = iter(pictures)
        self.closed = False

    def seek(self, position: int) -> None:
        raise NotImplementedError

    def read(self) -> CapturedFrame | None:
        return next(self._pictures, None)

    def close(self) -> None:
        self.closed = True


def frames_with_faults(
    plan: FaultPlan, pictures: Iterable[tuple[CapturedFrame, int]], red_team: RedTeam | None = None
) -> list[CapturedFrame]:
    """Return the frames of a source with these faults, for pictures captured at these times (Unix time in ms)."""
    timed = [captured._replace(captured_ms=at_ms) for captured, at_ms in pictures]
    source = FaultySource(Pictures(timed), plan, red_team, clock_ms=lambda: 0)
    return list(iter(source.read, None))
