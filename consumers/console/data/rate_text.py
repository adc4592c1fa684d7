"""Rates as text for people."""

from __future__ import annotations

from typing import Final

_UNITS_S: Final = {"s": 1, "min": 60, "h": 3_600}
_LEAST_OF_UNIT: Final = 0.1
"""Rate below which a longer unit is used."""


def frame_rate(per_second: float, noun: str = "", digits: int = 2) -> str:
    """Return a rate, such as `1,234/s` or `3.6/min`, with the plural `noun` before the unit, such as `78 frames/s`.

    `digits` is the number of significant ones; a larger rate is a whole number.
    """
    fitting = (each for each in _UNITS_S.items() if per_second * each[1] >= _LEAST_OF_UNIT)
    unit, seconds = next(fitting, ("h", 3_600)) if per_second else ("s", 1)
    number = per_second * seconds
    words = f"{number:,.0f}" if number >= 10**digits - 0.5 else f"{number:,.{digits}g}"
    noun = noun.removesuffix("s") if words == "1" else noun
    return f"{words} {noun}/{unit}" if noun else f"{words}/{unit}"
