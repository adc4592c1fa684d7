"""A search for the rate factor at which H.264 has the same quality as another way."""

from __future__ import annotations

from typing import Final

CRFS: Final = range(52)
FIRST_CRF: Final = 16
STRIDE: Final = 5
"""Step of the search while all known qualities are on the same side of the target."""


def next_factor(known: list[tuple[int, float]], wanted: float) -> int | None:
    """Return the rate factor to try next, given the pairs `known` of factor and quality.

    Return None if `known` holds the highest factor with at least the `wanted` quality, or if no factor has it. A higher
    factor has lower quality. Between two known factors the search interpolates linearly.
    """
    found = dict(known)
    enough = max((crf for crf, each in known if each >= wanted), default=None)
    less = min((crf for crf, each in known if each < wanted), default=None)
    low, high = CRFS[0] if enough is None else enough + 1, CRFS[-1] if less is None else less - 1
    if low > high:
        return None
    if enough is not None and less is not None:
        guess = round(enough + (found[enough] - wanted) / max(found[enough] - found[less], 1e-9) * (less - enough))
    elif enough is not None:
        guess = enough + STRIDE
    else:
        guess = FIRST_CRF if less is None else less - STRIDE
    return min(max(guess, low), high)
