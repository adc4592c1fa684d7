"""The checks of a camera's `meta` and `status`: the ranges of their fields, and the order of two messages."""

from __future__ import annotations

import math
from typing import Final, TypeVar

from schemas.clock import unix_ms
from schemas.errors import MalformedError
from schemas.identity import BOOT_ID_LIMIT
from schemas.limits import MAX_DROPPED_PER_BLOCK, MAX_FRAMES_PER_SECOND, MAX_SIDE
from schemas.messages.frame import CHANNELS, PROFILES, TIME_LIMIT
from schemas.pointillist_pb2 import Meta, Status, Turn

LAST_MESSAGE: Final = 2**32 - 1
"""The number of a last will among its connection's messages: signed before all others, it counts as the last."""

Said = TypeVar("Said", Meta, Status)


def turn(connection: int, message: int) -> Turn:
    """Return the position of a message that is signed now."""
    return Turn(connection=connection, message=message, at_ms=unix_ms())


def check_announcement(message: Meta | Status) -> None:
    """Raise `MalformedError` for a field out of its range: one camera's message must not stop the others' plan."""
    if not (0 < message.boot_id < BOOT_ID_LIMIT and message.turn.at_ms < TIME_LIMIT):
        raise MalformedError(
            f"expected 0 < boot_id < 2**63 and a time below 2**53, got {message.boot_id} and {message.turn.at_ms}"
        )
    if isinstance(message, Meta):
        _check_meta(message)
    elif not 0 <= message.longest_gap_s < math.inf:
        raise MalformedError(f"longest_gap_s: expected 0 or more seconds, got {message.longest_gap_s}")


def _check_meta(meta: Meta) -> None:
    if not (meta.height <= MAX_SIDE and meta.width <= MAX_SIDE and meta.channels in (0, *CHANNELS)):
        raise MalformedError(
            f"expected sides up to {MAX_SIDE} and 0, 1 or 3 channels, got {meta.height}x{meta.width}x{meta.channels}"
        )
    # The comparisons are written such that NaN is rejected as well.
    if not (0 <= meta.frames_per_second <= MAX_FRAMES_PER_SECOND and 0 <= meta.probe_share <= 1):
        raise MalformedError(
            f"expected 0 to {MAX_FRAMES_PER_SECOND} frames per second and a probe share from 0 to 1, "
            f"got {meta.frames_per_second} and {meta.probe_share}"
        )
    if meta.dropped_per_block > MAX_DROPPED_PER_BLOCK or meta.profile not in PROFILES.values():
        raise MalformedError(
            f"expected at most {MAX_DROPPED_PER_BLOCK} dropped pixels a block and one of the profiles {PROFILES}, "
            f"got {meta.dropped_per_block} and {meta.profile}"
        )


def is_newer(message: Said, held: Said, held_ms: int) -> bool:
    """Return whether `message` is newer than `held`, which the server received at `held_ms` by its own clock.

    Within a boot, the messages' positions decide. Between boots, the camera's clock decides: a new boot and the server
    share nothing else. A message from the future counts as of its receipt. A camera, or its replacement, is therefore
    accepted again once its clock is right.
    """
    if message.boot_id == held.boot_id:
        return _place(message.turn) > _place(held.turn)
    return message.turn.at_ms > min(held.turn.at_ms, held_ms)


def _place(found: Turn) -> tuple[int, int]:
    return found.connection, found.message
