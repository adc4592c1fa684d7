"""The order in which people read names of cameras."""

from __future__ import annotations

import re
from functools import lru_cache

from schemas.limits import MAX_CAMERAS

_NUMBER = re.compile(r"(\d+)")


NaturalKey = tuple[tuple[tuple[int, str, int], ...], str]


@lru_cache(MAX_CAMERAS)
def natural(name: str) -> NaturalKey:
    """Return a sort key that puts cam-2 before cam-10. No two names have the same key."""
    parts = tuple(
        (1, "", int(part)) if part.isdecimal() else (0, part.casefold(), 0) for part in _NUMBER.split(name) if part
    )
    return parts, name
