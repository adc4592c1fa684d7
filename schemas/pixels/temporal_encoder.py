"""When a camera under the profile `temporal` sends a key frame, and which blocks its other frames leave out.

A block is unchanged while the root of its mean squared difference to the key frame, over the pixels that the receiver
has of it, is at most `unchanged_rms` grey levels. The comparison is always with the key frame, never with the frame
before, so that nothing drifts away slowly.

A block that has changed for good is sent with every frame until the next key frame. So a key frame is due when what was
paid for blocks that differ from the key frame and not from the frame before exceeds what the key frame cost: as in the
ski rental problem (Karlin et al. 1988), that is at most twice what knowing the future would cost. What moves pays its
own way and renews nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.keys import CameraKey
from schemas.limits import BLOCK
from schemas.pixels import lossless
from schemas.pixels.gather import spread
from schemas.pixels.masks import Mask, blocks_of, kept_mask
from schemas.pixels.packing import Picture
from schemas.pixels.temporal import (
    Blocks,
    KeyPicture,
    block_sums,
    changed_blocks,
    pack_delta,
    squared_differences,
    unpack_delta,
    whole_blocks,
)

UNCHANGED_RMS: Final = 5.0
"""Grey levels; chosen by `python -m benchmarks.temporal`."""
MOST_RMS: Final = 64.0
CUT_SHARE: Final = 0.5
"""With more than this share of the blocks changed, a key frame is sent: a scene cut, or new light."""
KEY_FRAMES: Final = 128
"""A key frame serves fewer frames than that, so that its distance takes one byte, and at most `KEY_AGE_MS`, well within
what Kafka retains."""
KEY_AGE_MS: Final = 3_600_000


class KeyCause(StrEnum):
    """Why a frame is a key frame."""

    FIRST = "first"
    SETTINGS = "settings"
    CUT = "cut"
    RENEWED = "renewed"
    AGED = "aged"
    ASKED = "asked"
    SHED = "shed"


class Coded(NamedTuple):
    """The pixels of one frame as they travel."""

    data: bytes
    key_distance: int
    """How many sequence numbers ago its key frame was; 0 for a key frame."""
    cause: KeyCause | None
    """Why it is a key frame, None when it is not."""
    blocks_sent: int
    blocks: int


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    key: KeyPicture
    key_bytes: int
    captured_ms: int
    window: NDArray[np.uint8]
    """(H, W·C), 255 at what the key frame keeps, else 0."""
    pixels: Picture
    """Those of the key frame, in whole blocks, as is `previous`."""
    limits: NDArray[np.floating]
    """(rows, columns): the sum of squared differences up to which a block is unchanged."""
    previous: Picture
    """The frame before at what the key frame keeps."""
    stale_bytes: float = 0.0
    """Paid since the key frame for what differs from it and not from the frame before."""


class TemporalEncoder:
    """The coding of one camera's frames, one after the other. `published` must follow each `encode` that is sent."""

    def __init__(self, unchanged_rms: float = UNCHANGED_RMS) -> None:
        if not 0 <= unchanged_rms <= MOST_RMS:
            raise ConfigError(f"expected unchanged_rms from 0 to {MOST_RMS} grey levels, got {unchanged_rms}")
        self._limit = unchanged_rms**2
        self._state: _State | None = None
        self._next: _State | None = None
        self._due: KeyCause | None = KeyCause.FIRST

    @property
    def key(self) -> tuple[int, int] | None:
        """Boot id and sequence number of the key frame that the next frame may name."""
        return (self._state.key.boot_id, self._state.key.seq) if self._state is not None else None

    def renew(self, cause: KeyCause) -> None:
        """Make the next frame a key frame."""
        self._due = self._due or cause

    def published(self) -> None:
        """The frame that was encoded last is on its way: later ones may name it."""
        if self._next is not None and self._next.key is not (self._state.key if self._state is not None else None):
            self._due = None
        self._state, self._next = self._next or self._state, None

    def encode(
        self, picture: Picture, kept: Mask, boot_id: int, seq: int, captured_ms: int, dropped_per_block: int
    ) -> Coded:
        """A `picture` (H, W, C) uint8 of which the mask `kept` (H, W) of its own identity is sent, or a part of it."""
        state, blocks = self._state, blocks_of(*kept.shape)
        cause = self._due or _expired(state, picture, boot_id, seq, captured_ms, dropped_per_block)
        if cause is None and state is not None:
            channels = picture.shape[2]
            seen = whole_blocks(_flat(picture) & state.window, channels)
            changed = squared_differences(seen, state.pixels, channels) > state.limits
            count = int(np.count_nonzero(changed))
            if count <= CUT_SHARE * changed.size:
                data = pack_delta(picture, kept, changed)
                stale_bytes = state.stale_bytes
                if count:
                    stale = differences_in(changed, seen, state.previous, channels) <= state.limits[changed]
                    stale_bytes += len(data) * np.count_nonzero(stale) / count
                self._next = replace(state, previous=seen, stale_bytes=stale_bytes)
                return Coded(data, seq - state.key.seq, None, count, changed.size)
            cause = KeyCause.CUT
        data = lossless.encode(picture, kept)
        self._next = self._key_state(picture, kept, boot_id, seq, captured_ms, dropped_per_block, len(data))
        return Coded(data, 0, cause, blocks[0] * blocks[1], blocks[0] * blocks[1])

    def _key_state(
        self, picture: Picture, kept: Mask, boot_id: int, seq: int, captured_ms: int, dropped: int, size: int
    ) -> _State:
        channels = picture.shape[2]
        window = spread(kept, channels)
        pixels = _flat(picture) & window
        limits = block_sums(kept.astype(np.uint16), 1) * (channels * self._limit)
        key = KeyPicture(boot_id, seq, dropped, pixels.reshape(picture.shape), kept)
        compared = whole_blocks(pixels, channels)
        return _State(key, size, captured_ms, window, compared, limits, compared)


def _flat(picture: Picture) -> Picture:
    return picture.reshape(len(picture), -1)


def differences_in(blocks: Blocks, first: Picture, second: Picture, channels: int) -> NDArray[np.uint32]:
    """What `squared_differences` gives for those `blocks`, one after the other, of pictures in whole blocks."""
    rows, columns = np.nonzero(blocks)
    lines = (rows * BLOCK + np.arange(BLOCK)[:, None]) * blocks.shape[1] + columns
    # Eight pixels of a line are one item.
    one, other = (
        picture.reshape(-1).view(f"V{BLOCK * channels}").take(lines).view(np.uint8) for picture in (first, second)
    )
    found: NDArray[np.uint32] = squared_differences(one, other, channels)[0]
    return found


def _expired(
    state: _State | None, picture: Picture, boot_id: int, seq: int, captured_ms: int, dropped_per_block: int
) -> KeyCause | None:
    """Why this frame cannot or should not name the key frame, None when it may."""
    if state is None:
        return KeyCause.FIRST
    key = state.key
    if (key.boot_id, key.dropped_per_block, key.pixels.shape) != (boot_id, dropped_per_block, picture.shape):
        return KeyCause.SETTINGS
    if seq - key.seq >= KEY_FRAMES or not 0 <= captured_ms - state.captured_ms <= KEY_AGE_MS:
        return KeyCause.AGED
    return KeyCause.RENEWED if state.stale_bytes > state.key_bytes else None


class Seen(NamedTuple):
    """One frame as the receiver has it."""

    pixels: Picture
    """(H, W, C), zero where nothing is known."""
    kept: Mask
    """(H, W): True where a pixel is known."""
    changed: Blocks
    """(rows, columns): the blocks that this frame brought; the others are its key frame's."""
    coded: Coded


def seen_frames(
    key: CameraKey,
    pictures: Iterable[Picture],
    dropped_per_block: int,
    unchanged_rms: float = UNCHANGED_RMS,
    boot_id: int = 1,
) -> Iterator[Seen]:
    """What a receiver sees of a camera's `pictures` (H, W, C) uint8, each encoded and decoded as on the way."""
    encoder = TemporalEncoder(unchanged_rms)
    reference: KeyPicture | None = None
    for seq, picture in enumerate(pictures):
        height, width, channels = picture.shape
        kept = kept_mask(key, boot_id, seq, height, width, dropped_per_block)
        coded = encoder.encode(picture, kept, boot_id, seq, seq, dropped_per_block)
        encoder.published()
        if reference is None or coded.cause is not None:
            pixels = np.zeros_like(picture)
            pixels[kept] = lossless.decode(coded.data, kept, channels)
            reference = KeyPicture(boot_id, seq, dropped_per_block, pixels, kept)
            yield Seen(pixels, kept, np.ones(blocks_of(height, width), dtype=np.bool_), coded)
            continue
        pixels, known = unpack_delta(coded.data, kept, reference)
        yield Seen(pixels, known, changed_blocks(coded.data, height, width), coded)
