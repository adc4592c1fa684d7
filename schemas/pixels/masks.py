"""Which pixels of a frame are kept: keyed masks drawn from a per-camera codebook.

A codebook holds `ROWS` patterns of an 8×8 block, each with exactly the same number of dropped pixels, spread out so
that a dropped pixel has kept ones beside it: 2 dB more of the picture comes back than from uniformly random rows. All
cameras draw them from one public pool of 4,096 patterns, each shifted around the block and mirrored by the camera's
key, in 512 ways. The frame's seed (camera key, boot id, sequence number) picks one row of the camera's for each block,
so the mask is never sent and one that leaks tells nothing about the next. A mask carries log2(`ROWS`) = 12 bits of
entropy a block, 192 bits at 32×32, even for who knows the camera's codebook; for who does not, a block's row is one of
4,096 × 512 = 2^21, of which 98 % are distinct at r = .25, 65 % at r = .15 and few below r = .1.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.keys import CameraKey
from schemas.limits import BLOCK, BLOCK_PIXELS, MAX_DROPPED_PER_BLOCK
from schemas.pixels.philox import philox, philox_each
from schemas.pixels.symmetries import Words, turned

ROWS: Final = 4096
"""Rows of a codebook, a power of two up to 65,536."""

CLUMPING_SIGMA: Final = 0.7
"""Range in pixels of the clumping energy; from .5 to .8 the pictures come back equally well."""

SWAP_TRIES: Final = 200
"""Exchanges tried on each pattern of the pool: more bring little and make patterns alike."""

FEW_ROWS: Final = 256
"""Up to so many rows, those of a frame of 128×128 pixels, are made sooner than the codebook that they are of."""

Mask = NDArray[np.bool_]


def blocks_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of 8×8 blocks that cover a frame; the last ones may reach over its edge."""
    return -(-height // BLOCK), -(-width // BLOCK)


def codebook(seed: tuple[int, int], dropped_per_block: int) -> Words:
    """The rows (ROWS,) as 64-bit words: bit 8·y + x is set where the pixel (y, x) of the block is kept.

    Each word of Philox under `seed` picks a pattern of the pool, a shift around the block and a mirroring.
    """
    _check_drop(dropped_per_block)
    return _rows(philox(seed, ROWS // 4).reshape(-1), dropped_per_block)


def codebook_rows(seeds: NDArray[np.uint64], rows: NDArray[np.int64], dropped_per_block: int) -> Words:
    """Of N codebooks, by their `seeds` (N, 2), those of their rows (N, K) that `rows` names, and nothing else.

    A small frame takes few of the 4,096 rows: so many cameras need no codebooks at hand.
    """
    _check_drop(dropped_per_block)
    found = philox_each(seeds, (rows >> 2).astype(np.uint64))
    return _rows(np.take_along_axis(found, (rows & 3)[..., None], axis=-1)[..., 0], dropped_per_block)


def _rows(words: NDArray[np.uint32], dropped_per_block: int) -> Words:
    """The rows that words of Philox stand for."""
    return turned(_pool(dropped_per_block)[words & (ROWS - 1)], words >> 23)


_POOLS: Final[dict[int, Words]] = {}
_MAKING: Final = Lock()


def _pool(dropped_per_block: int) -> Words:
    """Made once, whoever else asks meanwhile: a fleet begins with thousands of cameras that want the same one."""
    found = _POOLS.get(dropped_per_block)
    if found is None:
        with _MAKING:
            found = _POOLS.get(dropped_per_block)
            if found is None:
                found = _POOLS[dropped_per_block] = _as_words(spread_patterns(dropped_per_block))
    return found


def uniform_codebook(seed: tuple[int, int], dropped_per_block: int) -> NDArray[np.uint64]:
    """The rows (ROWS,) of a codebook without spreading, for comparison: uniformly random patterns."""
    _check_drop(dropped_per_block)
    return _as_words(_uniform_patterns(seed, dropped_per_block))


def _check_drop(dropped_per_block: int) -> None:
    if not 0 <= dropped_per_block <= MAX_DROPPED_PER_BLOCK:
        raise ValueError(f"expected 0 to {MAX_DROPPED_PER_BLOCK} dropped pixels a block, got {dropped_per_block}")


def _as_words(kept: Mask) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = np.packbits(kept, axis=1, bitorder="little").view("<u8")[:, 0]
    words.flags.writeable = False
    return words


def _uniform_patterns(seed: tuple[int, int], dropped_per_block: int) -> Mask:
    """Kept pixels (ROWS, 64): in each row the ones with the largest random words."""
    order = np.argsort(philox(seed, ROWS * BLOCK_PIXELS // 4).reshape(ROWS, BLOCK_PIXELS), axis=1, kind="stable")
    kept = np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    np.put_along_axis(kept, order[:, :dropped_per_block], False, axis=1)
    return kept


def spread_patterns(dropped_per_block: int, sigma: float = CLUMPING_SIGMA, tries: int = SWAP_TRIES) -> Mask:
    """The pool: kept pixels (ROWS, 64) whose dropped pixels keep apart.

    Uniform patterns in which `tries` random pairs of a dropped and a kept pixel are exchanged whenever that lowers
    the clumping energy, a Gaussian of `sigma` pixels of the distance around the block, summed over all pairs of
    dropped pixels. It is counted in integers, so that every machine makes the same exchanges.
    """
    if dropped_per_block == 0:
        return np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    energy = _pair_energy(sigma)
    kept = _uniform_patterns((dropped_per_block, 0), dropped_per_block)
    # Dropped pixels first in each row, then the kept ones.
    order = np.argsort(kept, axis=1, kind="stable")
    field = energy[order[:, :dropped_per_block]].sum(axis=1)
    draws = philox((dropped_per_block, 1), ROWS * tries // 4).reshape(tries, ROWS).astype(np.int64)
    rows = np.arange(ROWS)
    for draw in draws:
        leaving = (draw & 0xFFFF) * dropped_per_block >> 16
        entering = dropped_per_block + ((draw >> 16) * (BLOCK_PIXELS - dropped_per_block) >> 16)
        old, new = order[rows, leaving], order[rows, entering]
        better = np.flatnonzero(field[rows, new] - energy[old, new] < field[rows, old] - energy[0, 0])
        old, new = old[better], new[better]
        order[better, leaving[better]], order[better, entering[better]] = new, old
        field[better] += energy[new] - energy[old]
    spread = np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    np.put_along_axis(spread, order[:, :dropped_per_block], False, axis=1)
    return spread


def _pair_energy(sigma: float) -> NDArray[np.int64]:
    """Clumping energy (64, 64) of two dropped pixels, in units of 2^-16, by their distance on the block's torus."""
    along = np.abs(np.arange(BLOCK)[:, None] - np.arange(BLOCK))
    along = np.minimum(along, BLOCK - along) ** 2
    squared = along[:, None, :, None] + along[None, :, None, :]
    energy: NDArray[np.float64] = np.exp(-squared / (2 * sigma**2)) * 2**16
    return np.rint(energy).astype(np.int64).reshape(BLOCK_PIXELS, BLOCK_PIXELS)


def row_indices(seed: tuple[int, int], blocks: int) -> NDArray[np.int64]:
    """The codebook row of each block, in raster order: the low and then the high half of each Philox word."""
    return _halves(philox(seed, -(-blocks // 8)).reshape(1, -1))[0, :blocks]


class CodebooksAtHand:
    """Codebooks that a process keeps, 32 KiB each: making one takes .3 ms, the rows of a small frame half of that.

    With more cameras than there is room for, all in turn, whatever is kept would be thrown away before it is used
    again. So a codebook that small frames ask for stays out when there is no room; for large ones the oldest goes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._books: dict[tuple[tuple[int, int], int], Words] = {}
        self._changing = Lock()

    def __len__(self) -> int:
        return len(self._books)

    def rows(self, seed: tuple[int, int], rows: NDArray[np.int64], dropped_per_block: int) -> Words:
        """The rows (K,) of the codebook under `seed` that `rows` names."""
        book = self._books.get((seed, dropped_per_block))
        if book is None:
            if len(rows) <= FEW_ROWS and len(self._books) >= self._capacity:
                found: Words
                (found,) = codebook_rows(np.array([seed], dtype=np.uint64), rows[None], dropped_per_block)
                return found
            book = codebook(seed, dropped_per_block)
            with self._changing:
                if len(self._books) >= self._capacity:
                    del self._books[next(iter(self._books))]
                self._books[seed, dropped_per_block] = book
        return book.take(rows)


_AT_HAND: Final = CodebooksAtHand(256)


def block_patterns(
    seeds: NDArray[np.uint64], book_seeds: NDArray[np.uint64], blocks: int, dropped_per_block: int
) -> Words:
    """The patterns (N, blocks) of the blocks of N frames at once, in raster order.

    `seeds` (N, 2) are those of the frames, `book_seeds` (N, 2) those of their cameras' codebooks.
    """
    _check_drop(dropped_per_block)
    words = philox_each(seeds, np.arange(-(-blocks // 8), dtype=np.uint64)[None].repeat(len(seeds), axis=0))
    return codebook_rows(book_seeds, _halves(words.reshape(len(seeds), -1))[:, :blocks], dropped_per_block)


def _halves(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The codebook rows (N, 2 · W) that words (N, W) stand for: the low and then the high half of each."""
    halves = words.astype("<u4", copy=False).view("<u2")
    return (halves & (ROWS - 1)).astype(np.int64)


def kept_mask(key: CameraKey, boot_id: int, seq: int, height: int, width: int, dropped_per_block: int) -> Mask:
    """Which pixels (height, width) of a frame are kept: True where one is sent."""
    if dropped_per_block == 0:
        return np.ones((height, width), dtype=np.bool_)
    rows, columns = blocks_of(height, width)
    indices = row_indices(key.frame_seed(boot_id, seq), rows * columns)
    words = _AT_HAND.rows(key.codebook_seed(dropped_per_block), indices, dropped_per_block)
    # A byte of a word is one row of its block: put into raster order while they are still an eighth of the bits.
    raster = words.view(np.uint8).reshape(rows, columns, BLOCK).transpose(0, 2, 1).reshape(rows * BLOCK, columns)
    return np.unpackbits(raster[:height], axis=1, count=width, bitorder="little").view(np.bool_)
