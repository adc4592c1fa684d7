"""The shed ranges of a ledger as the database keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from schemas.pointillist_pb2 import Range
from schemas.ranges import RangeSet


def shed_text(shed: Iterable[Range]) -> str:
    """A JSON list of [first, last]."""
    return json.dumps([[ranges.first, ranges.last] for ranges in shed])


def shed_ranges(text: str) -> RangeSet:
    """The set that `shed_text` wrote."""
    return RangeSet((first, last) for first, last in json.loads(text))
