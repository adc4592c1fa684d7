"""When a frame that is not accounted for is lost: once all that Kafka held when it was confirmed has been recorded.

A round begins with the frames that cameras call confirmed and that have no fate yet. Kafka had them all by then, so
that three marks follow: the end of the frames' log at that time; when the processors have taken up to there, the ends
of the verdicts' and the dead letters' logs; and when the recorders have taken up to those, what has no fate is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from consumers.reading.batch import BootKey
from schemas.ranges import RangeSet

Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""


class Marks(NamedTuple):
    """What Kafka said, asked in this order."""

    processed: Offsets
    """The next frame that the processors will take, of each partition."""
    results: Offsets
    """The ends of the verdicts' and the dead letters' logs."""
    frames: Offsets
    """The ends of the frames' log."""


class Rounds:
    """One round after the other; each step needs marks that were asked for after the last one."""

    def __init__(self) -> None:
        self._candidates: dict[BootKey, RangeSet] | None = None
        self._begun_ms = 0
        self._frames: Offsets | None = None
        self._results: Offsets | None = None
        self.known_to_ms = 0
        """What was confirmed by then, Unix time, and is lost, is known to be; 0 before the first round has ended."""

    def over(
        self, taken: Offsets, marks: Marks, unaccounted: Callable[[], dict[BootKey, RangeSet]], now_ms: int
    ) -> Iterator[tuple[BootKey, RangeSet]]:
        """Go on; at the end of a round its candidates, to be compared with what is accounted for now.

        `taken` are the recorders' offsets, read after `marks` and in the moment of the database that `unaccounted`
        speaks of.
        """
        if self._candidates is None:
            self._candidates, self._begun_ms = unaccounted(), now_ms
        elif self._frames is None:
            self._frames = marks.frames
        elif self._results is None:
            if _reached(marks.processed, self._frames):
                self._results = marks.results
        elif _reached(taken, self._results):
            ended, self._candidates, self._frames, self._results = self._candidates, None, None, None
            self.known_to_ms = self._begun_ms
            yield from ended.items()


def _reached(at: Offsets, goal: Offsets) -> bool:
    return all(at.get(place, 0) >= end for place, end in goal.items())
