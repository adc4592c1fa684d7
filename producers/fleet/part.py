"""The part of a fleet's cameras that one of several processes runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")
MAX_PARTS: Final = 16
"""Maximum number of processes of one fleet."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `parts`, counted from 1. All parts together hold every camera exactly once."""

    number: int = 1
    parts: int = 1

    def of(self, cameras: Sequence[T]) -> Sequence[T]:
        """Return this part's cameras of the whole list: every `parts`-th, so that unequal groups spread evenly."""
        return cameras[self.number - 1 :: self.parts]


WHOLE: Final = Part()
"""The only part of a fleet in one process."""
