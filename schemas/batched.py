"""Long sequences in parts of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def batched(items: Sequence[_Item], size: int = 500) -> Iterator[Sequence[_Item]]:
    """Split `items` into parts. As many names as one part has by default fit the parameters of one SQL statement."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
