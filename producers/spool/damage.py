"""Losses of a spool through damage on the medium."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

from producers.spool.segment import SegmentContent
from schemas.ranges import RangeSet

_SMALLEST_RECORD: Final = 49


class Damage(NamedTuple):
    """Frames whose bytes were damaged or gone and that were shed for that, and ledgers of which no copy was whole."""

    frames: int = 0
    ledgers: int = 0


def missing_frames(contents: Sequence[SegmentContent], following: int, closed: bool) -> RangeSet:
    """Return the frames of one boot that its segment files, in order, have held and no longer hold.

    `following` is one after the last frame in the boot's ledger; it is final when the boot is `closed`. If the end of a
    file is unreadable, the frames missing up to the next file count, as far as the unreadable bytes could hold them. A
    file in between may have been removed because all its frames were confirmed: the result is then too large, never too
    small. `next` and `damaged` of such a file are set accordingly.
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
