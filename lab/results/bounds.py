"""Verdicts of figures by their bounds: `aim`, `must` or `missed`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final

LEGEND: Final = (
    "*must* is the bound that this project requires of the figure, *aim* the better one that it hopes for. *reached* "
    "names the better of the two that the figure meets as it is shown, without regard to its interval, or `missed`; it "
    "is empty if there is no bound in numbers. The dates of the bounds were not recorded, and some were changed later "
    "(see the Git history)."
)
"""The line above each table with these columns."""
TIMES: Final = "×"
_UNITS: Final = ("s", "MiB", "kB", "%", "bytes", TIMES)
_NUMBER: Final = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+")
_BOUND: Final = re.compile(r"(?:all )?([≥≤<>]?) ?((?:\d[\d,]*)?\.?\d+)(?: (.*))?")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "≥": operator.ge, "≤": operator.le, ">": operator.gt, "<": operator.lt, "": operator.eq,
}  # fmt: skip


def reached(must: str, aim: str, measured: str) -> str:
    """Return the verdict of a figure as it is shown; an empty text if the bounds hold no number to compare.

    Bounds of several numbers are met part by part: `≤ 1; ≤ 5 %` by `0.5; 0.9 %`, `0 skipped, 0 lost` by the numbers in
    front of these words, `≤ 2 ×` by the ratio of `0.4 → 0.5 s`. An aim without a sign has that of the bound.
    """
    required = _meets(must, measured)
    hoped = _meets(_signed(aim, must), measured)
    if required is None and hoped is None:
        return ""
    if hoped and required is not False:
        return "aim"
    return "must" if required else "missed" if required is False else ""


def _signed(aim: str, must: str) -> str:
    sign = must[:1]
    return f"{sign} {aim}" if aim[:1].isdigit() and sign in ("≥", "≤") else aim


def _meets(bound: str, measured: str) -> bool | None:
    """Return whether every number of the bound is met; None without a number to compare."""
    bounds, values = _parts(bound), _parts(measured)
    found = [
        _met(each, _named(each, values) or (values[place] if place < len(values) else ""))
        for place, each in enumerate(bounds)
    ]
    numbers = [each for each in found if each is not None]
    if len(numbers) < sum(_BOUND.fullmatch(each) is not None for each in bounds):
        return None  # a part was not measured
    return all(numbers) if numbers else None


def _parts(text: str) -> list[str]:
    return re.split(r"; |, ", text)


def _named(bound: str, values: list[str]) -> str:
    """Return the value that names the quantity of a bound such as `0 lost`."""
    word = bound.rpartition(" ")[2]
    named = [value for value in values if word.isalpha() and re.match(rf"\d+ {word}\b", value)]
    return named[0] if named and word not in _UNITS else ""


def _met(bound: str, value: str) -> bool | None:
    parsed, numbers = _BOUND.fullmatch(bound), _NUMBER.findall(value)
    if parsed is None or not numbers:
        return None
    sign, limit, unit = parsed[1], _number(parsed[2]), (parsed[3] or "").partition(" ")[0]
    figure = _number(numbers[0])
    if unit == TIMES:
        if "→" in value:
            figure = _number(numbers[1]) / figure
        elif TIMES not in value:
            return None
    elif unit in _UNITS and not re.search(rf"\d ?{unit}(?![A-Za-z])", value):
        raise ValueError(f"figure {value!r}: expected the unit of its bound {bound!r}. Correct one of them.")
    return _COMPARE[sign](figure, limit)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
