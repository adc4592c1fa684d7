"""One attack of the table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.attacks.table.target import Target


@dataclass(frozen=True)
class Attack:
    """What is done, and by what it must be seen."""

    name: str
    who: Literal["nobody", "stranger", "camera"]
    what: str
    answer: Literal["refused", "bounded"]
    """What is to become of it."""
    seen_by: tuple[str, ...]
    """Counters of `Target.counters` that must grow; one that ends in a space stands for all that begin so."""
    run: Callable[[Target, float], Counter[str]]
    """Attacks until that monotonic time. Gives what was done, counted: `tries`, `messages`; and what was reached of
    what nobody is to reach, under names that begin with `reached`."""


def until(end: float, a_second: float) -> Iterator[int]:
    """Count from 0, so often a second, until the monotonic time `end`."""
    begun, number = time.monotonic(), 0
    while (now := time.monotonic()) < end:
        ahead_s = number / a_second - (now - begun)
        if ahead_s > 0:
            time.sleep(min(ahead_s, end - now))
        yield number
        number += 1
