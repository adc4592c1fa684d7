"""One attack of the table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.security.attacks.table.target import Target


@dataclass(frozen=True)
class Attack:
    """One attack: its actions, its expected outcome and the counters that must detect it."""

    name: str
    who: Literal["nobody", "stranger", "camera"]
    what: str
    answer: Literal["refused", "bounded"]
    """The expected outcome."""
    seen_by: tuple[str, ...]
    """Counters of `Target.counters` that must grow. A name that ends in a space matches all names with this prefix."""
    run: Callable[[Target, float], Counter[str]]
    """Attack until the given monotonic time, and return counts.

    `tries` and `messages` count actions. Names that begin with `reached` count aims that no attack may reach.
    """


def until(end: float, a_second: float) -> Iterator[int]:
    """Count from 0 at `a_second` numbers per second until the monotonic time `end`."""
    begun, number = time.monotonic(), 0
    while (now := time.monotonic()) < end:
        ahead_s = number / a_second - (now - begun)
        if ahead_s > 0:
            time.sleep(min(ahead_s, end - now))
        yield number
        number += 1
