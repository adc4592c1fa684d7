"""The search for the rate factor at which H.264 shows as much as something else."""

from __future__ import annotations

from typing import Final

CRFS: Final = range(52)
FIRST_CRF: Final = 16
STRIDE: Final = 5
"""How far the search goes on while it has seen only better ones, or only worse."""


def next_factor(known: list[tuple[int, float]], wanted: float) -> int | None:
    """The rate factor to try next, of which the qualities `known` are shown; None when the highest is among them that
    shows at least what is `wanted`, or when none does.

    A higher factor shows less. Between two it is looked for on the straight line through them.
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
