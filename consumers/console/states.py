"""In which state a camera is for whoever looks after it, the worst first."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from schemas.limits import CAMERAS_AT_HAND


class State(StrEnum):
    """What a card says; the order is that of the page."""

    ALERT = "alert"
    """An open backdoor alert."""
    OFFLINE = "offline"
    """Its connection to the broker is gone."""
    SILENT = "silent"
    """No frame has come for longer than it takes between two."""
    DEGRADED = "degraded"
    """It says itself what is wrong."""
    BLACK = "black"
    """Its pictures are dark, or without contrast."""
    FROZEN = "frozen"
    """Nothing in its pictures has moved for a while."""
    BLURRED = "blurred"
    """Its pictures are less sharp than its own usual ones."""
    ONLINE = "online"
    """None of these."""

    @property
    def severity(self) -> int:
        """0 is the worst."""
        return _SEVERITY[self]


_SEVERITY = {state: place for place, state in enumerate(State)}
_NUMBER = re.compile(r"(\d+)")


NaturalKey = tuple[tuple[tuple[int, str, int], ...], str]


@lru_cache(CAMERAS_AT_HAND)
def natural(name: str) -> NaturalKey:
    """Orders names as people do: cam-2 before cam-10. No two names are equal in it."""
    parts = tuple(
        (1, "", int(part)) if part.isdecimal() else (0, part.casefold(), 0) for part in _NUMBER.split(name) if part
    )
    return parts, name
