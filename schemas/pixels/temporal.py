"""The profile `temporal`: of a fixed camera's frame, only the blocks that differ from a key frame are sent.

A key frame is a `lossless` frame. A delta frame names its key frame and carries a bitmap of the changed 8×8 blocks, in
raster order, followed by their kept pixels as `lossless` codes them. A changed block has the delta's own mask and
pixels, an unchanged one the key frame's: in each block, the pixels of exactly one mask are known.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadPixels
from schemas.limits import BLOCK
from schemas.pixels import lossless
from schemas.pixels.masks import Mask, blocks_of
from schemas.pixels.packing import Picture

Blocks = NDArray[np.bool_]
"""(rows, columns) of the 8×8 blocks of a frame: True where one has changed."""

_PLAIN_BITMAP_BYTES: Final = 32
"""Of so few, Deflate makes no fewer."""
_MOST_DIFFERENCE: Final = 90
"""Larger differences count as this one, so that 8 squares fit into 16 bits."""
_STRIP_SAMPLES: Final = 2**17
"""Two pictures are compared about so many bytes at a time, which stay in the cache."""

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class KeyPicture:
    """What the receiver has of a key frame."""

    boot_id: int
    seq: int
    dropped_per_block: int
    pixels: Picture
    """(H, W, C), zero where a pixel was dropped."""
    kept: Mask
    """(H, W)."""


def pack_delta(picture: Picture, kept: Mask, changed: Blocks) -> bytes:
    """The `changed` blocks of a `picture` (H, W, C), with the pixels that the frame's own mask `kept` (H, W) keeps."""
    bits = np.packbits(changed).tobytes()
    bitmap = bits if len(bits) <= _PLAIN_BITMAP_BYTES else _deflated(bits)
    at = _kept_in(changed, kept)
    return bitmap + lossless.encode_few(picture, at) if len(at) else bitmap


def _kept_in(changed: Blocks, kept: Mask) -> NDArray[np.intp]:
    """The positions in a frame of what `kept` (H, W) keeps of the `changed` blocks."""
    height, width = kept.shape
    row, column = np.nonzero(changed.repeat(BLOCK, axis=0)[:height])
    pixels = (row * width + column * BLOCK)[:, None] + np.arange(BLOCK)
    if width % BLOCK:
        pixels = pixels[pixels < (row * width + width)[:, None]]
    pixels = pixels.reshape(-1)
    at: NDArray[np.intp] = pixels[np.flatnonzero(kept.reshape(-1).take(pixels, mode="clip"))]
    return at


def unpack_delta(data: bytes | memoryview, kept: Mask, key: KeyPicture) -> tuple[Picture, Mask]:
    """The picture (H, W, C), zero where nothing is known, and its mask (H, W), each block from one frame.

    `kept` (H, W) is the delta's own mask. Raises `BadPixels` for what `pack_delta` cannot have written; memory is
    bounded by the size of the frame, whatever `data` would inflate to.
    """
    changed, coded = _take_bitmap(data, *blocks_of(*kept.shape))
    area = in_blocks(changed, *kept.shape)
    sent = kept & area
    channels = key.pixels.shape[2]
    pixels = key.pixels.copy()
    pixels.reshape(-1, channels)[np.flatnonzero(area)] = 0
    if sent.any():
        # Outside the window nothing is sent, so that the order of what is sent stays the same.
        values = lossless.decode(coded, np.ascontiguousarray(sent[_window(changed)]), channels)
        pixels.reshape(-1, channels)[np.flatnonzero(sent)] = values
    elif coded:
        raise BadPixels(f"expected no pixels, for no block has changed, got {len(coded)} bytes")
    return pixels, np.where(area, kept, key.kept)


def changed_blocks(data: bytes | memoryview, height: int, width: int) -> Blocks:
    """The blocks that a delta of a frame (height, width) brings; `BadPixels` as from `unpack_delta`."""
    return _take_bitmap(data, *blocks_of(height, width))[0]


def in_blocks(changed: Blocks, height: int, width: int) -> Mask:
    """Which pixels (height, width) lie in the `changed` blocks."""
    return changed.repeat(BLOCK, axis=0)[:height].repeat(BLOCK, axis=1)[:, :width]


def _window(changed: Blocks) -> tuple[slice, slice]:
    """The rows and columns of pixels that hold all `changed` blocks: the decoder need not look at the rest."""
    sides = []
    for axis in (1, 0):
        lines = np.flatnonzero(changed.any(axis=axis))
        sides.append(slice(int(lines[0]) * BLOCK, (int(lines[-1]) + 1) * BLOCK) if len(lines) else slice(0, 0))
    return sides[0], sides[1]


def block_sums(values: NDArray[np.uint16], channels: int) -> NDArray[np.uint32]:
    """Sums (rows, columns) of `values` (H, W·C), of which eight never pass 16 bits, over the 8×8 blocks of a frame."""
    values = whole_blocks(values, channels)
    lines = np.add.reduce(values.reshape(-1, BLOCK, values.shape[1]), axis=1, dtype=np.uint16)
    return _across(lines.astype(np.uint32), BLOCK * channels)


def squared_differences(first: Picture, second: Picture, channels: int) -> NDArray[np.uint32]:
    """Sums (rows, columns) over each 8×8 block of the squared differences of two pictures (H, W·C) uint8."""
    first, second = whole_blocks(first, channels), whole_blocks(second, channels)
    height, width = first.shape
    sums = np.empty((height // BLOCK, width // (BLOCK * channels)), dtype=np.uint32)
    step = BLOCK * max(1, _STRIP_SAMPLES // (BLOCK * width))
    most = np.full((step, width), _MOST_DIFFERENCE, dtype=np.uint8)  # numpy's minimum with one number is slow
    for top in range(0, height, step):
        one, other = first[top : top + step], second[top : top + step]
        difference = np.maximum(one, other)
        difference -= np.minimum(one, other)
        np.minimum(difference, most[: len(one)], out=difference)
        # Two to a word, and squared there: to widen bytes costs more.
        low = difference.view(np.uint16).reshape(-1, BLOCK, width // 2)
        high = low >> 8
        low &= 0xFF
        lines = np.zeros((len(one) // BLOCK, width // 2), dtype=np.uint32)
        for squares in (low, high):
            squares *= squares
            lines += np.add.reduce(squares, axis=1, dtype=np.uint16)
        sums[top // BLOCK : (top + step) // BLOCK] = _across(lines, BLOCK * channels // 2)
    return sums


def whole_blocks(values: NDArray[Number], channels: int) -> NDArray[Number]:
    """`values` (H, W·C) with zeros below and to the right, up to whole 8×8 blocks."""
    height, samples = values.shape
    rows, columns = blocks_of(height, samples // channels)
    missing = (rows * BLOCK - height, columns * BLOCK * channels - samples)
    return np.pad(values, ((0, missing[0]), (0, missing[1]))) if any(missing) else values


def _across(lines: NDArray[np.uint32], samples: int) -> NDArray[np.uint32]:
    """The sums of every so many samples of each line."""
    sums: NDArray[np.uint32] = np.add.reduceat(lines, np.arange(0, lines.shape[1], samples), axis=1, dtype=np.uint32)
    return sums


def _deflated(bits: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(bits) + deflater.flush()


def _take_bitmap(data: bytes | memoryview, rows: int, columns: int) -> tuple[Blocks, bytes | memoryview]:
    """The bitmap (rows, columns) at the beginning of a delta, and what follows it."""
    size = -(-rows * columns // 8)
    if size <= _PLAIN_BITMAP_BYTES:
        bits, coded = bytes(data[:size]), data[size:]
    else:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            bits = inflater.decompress(data, size + 1)
        except zlib.error as error:
            raise BadPixels(f"expected a Deflate stream of changed blocks: {error}") from None
        if not inflater.eof:
            raise BadPixels(f"expected the bitmap of {rows}x{columns} blocks to end after {size} bytes")
        coded = inflater.unused_data
    if len(bits) != size:
        raise BadPixels(f"expected a bitmap of {size} bytes for {rows}x{columns} blocks, got {len(bits)}")
    flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8)).view(np.bool_)
    if flags[rows * columns :].any():
        raise BadPixels(f"expected a bitmap of {rows}x{columns} blocks, got one set beyond them")
    return flags[: rows * columns].reshape(rows, columns), coded
