"""The rounds that decide whether a frame without a fate is lost.

A round begins with the frames that cameras report as confirmed and that have no fate yet. At that time Kafka has held
all of them. Three offsets follow. The first is the end of the frames' log. Once the processors have reached it, the
second and third are the ends of the logs of verdicts and dead letters. Once the recorders have reached those, a frame
without a fate is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from consumers.records.batch import BootKey
from schemas.ranges import RangeSet

Offsets = Mapping[tuple[str, int], int]
"""Offsets by topic and partition."""


class LogOffsets(NamedTuple):
    """The offsets of Kafka, read in this order."""

    processed: Offsets
    """Next offset of the processors for each partition."""
    results: Offsets
    """Ends of the logs of verdicts and dead letters."""
    frames: Offsets
    """Ends of the frames' log."""


class Rounds:
    """The rounds, one after the other. Each step needs offsets that were read after the previous step."""

    def __init__(self) -> None:
        self._candidates: dict[BootKey, RangeSet] | None = None
        self._begun_ms = 0
        self._frames: Offsets | None = None
        self._results: Offsets | None = None
        self.known_to_ms = 0
        """Losses of frames confirmed before this Unix time are final; 0 before the first round has ended."""

    def advance(
        self, taken: Offsets, logs: LogOffsets, unaccounted: Callable[[], dict[BootKey, RangeSet]], now_ms: int
    ) -> Iterator[tuple[BootKey, RangeSet]]:
        """Advance. At the end of a round, yield its candidates for comparison with the frames accounted for now.

        `taken` are the recorders' offsets, read after `logs` and in the same database snapshot as `unaccounted`.
        """
        if self._candidates is None or self._is_recreated(logs):
            self._candidates, self._begun_ms = unaccounted(), now_ms
            self._frames = self._results = None
        elif self._frames is None:
            self._frames = logs.frames
        elif self._results is None:
            if _reached(logs.processed, self._frames):
                self._results = logs.results
        elif _reached(taken, self._results):
            yield from self._candidates.items()
            # Only now: if the caller fails before, it gets the same candidates again.
            self.known_to_ms = self._begun_ms
            self._candidates = self._frames = self._results = None

    def _is_recreated(self, logs: LogOffsets) -> bool:
        """Return whether a log is shorter than it was in this round: its topic was deleted and created again."""
        return not (_reached(logs.frames, self._frames or {}) and _reached(logs.results, self._results or {}))


def _reached(at: Offsets, goal: Offsets) -> bool:
    return all(at.get(place, 0) >= end for place, end in goal.items())
