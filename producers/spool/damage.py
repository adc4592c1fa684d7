"""Losses of a spool through damage on the medium."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

from producers.spool.segment import Content
from schemas.ranges import RangeSet

_SMALLEST_RECORD: Final = 49


class Damage(NamedTuple):
    """Frames whose bytes were damaged or gone and that were shed for that, and ledgers of which no copy was whole."""

    frames: int = 0
    ledgers: int = 0


def gone(contents: Sequence[Content], following: int, closed: bool) -> RangeSet:
    """Frames of one boot that its segment files, in order, have held and do not hold any more.

    `following` is one after the last frame that the boot's ledger knows of, and that is all when it is `closed`. Where
    a file's end cannot be read, what is missing up to the next file counts, as far as the unreadable bytes could be
    that much: a file in between that was removed because all in it was confirmed makes this too much, never too little.
    `next` and `damaged` of such a file are set accordingly.
    """
    found = RangeSet()
    for content, after in zip_longest(contents, contents[1:]):
        last_written = after is None and content.open
        if after is not None:
            bound = after.first
        elif closed or not content.unreadable_bytes:
            bound = following
        else:
            bound = max(following, content.next + 1)
        if content.unreadable_bytes and not last_written:
            bound = min(bound, content.next + content.unreadable_bytes // _SMALLEST_RECORD)
        if (content.unreadable_bytes or last_written) and bound > content.next:
            content.damaged.add(content.next, bound - 1)
            content.next = bound
        found.update(content.damaged)
    return found
