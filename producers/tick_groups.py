"""Looking after many cameras on one loop, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator


class TickGroups:
    """Which of `cameras` are looked after when: each in every round, but of many the calm ones in every tenth only."""

    def __init__(self, cameras: int) -> None:
        self.count = min(10, 1 + cameras // 256)
        """Parts of a round, for which a loop with other things to do stops."""
        self._every = min(10, 1 + cameras // 512)
        self.cameras = cameras
        self._round = 0

    def next_round(self) -> Iterator[Iterator[tuple[int, bool]]]:
        """The next round: in each part its cameras' numbers, and whether one is looked after though it is calm."""
        self._round += 1
        for part in range(self.count):
            numbers = range(part, self.cameras, self.count)
            yield ((number, (place + self._round) % self._every == 0) for place, number in enumerate(numbers))
