"""The rounds in which one event loop ticks many cameras, in small groups."""

from __future__ import annotations

from collections.abc import Iterator


class TickGroups:
    """The order of ticks: every camera once a round, but in a large fleet an idle one only once in ten rounds."""

    def __init__(self, cameras: int) -> None:
        self.count = min(10, 1 + cameras // 256)
        """Groups in a round; the loop does its other work between two groups."""
        self._every = min(10, 1 + cameras // 512)
        self.cameras = cameras
        self._round = 0

    def next_round(self) -> Iterator[Iterator[tuple[int, bool]]]:
        """Return the groups of the next round: numbers of cameras, and whether to tick an idle one too."""
        self._round += 1
        for part in range(self.count):
            numbers = range(part, self.cameras, self.count)
            yield ((number, (place + self._round) % self._every == 0) for place, number in enumerate(numbers))
