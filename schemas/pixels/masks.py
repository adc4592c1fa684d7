"""Masks of kept pixels, drawn from a keyed codebook for each camera.

A codebook holds `ROWS` patterns of an 8×8 block, each with exactly the same number of dropped pixels. The patterns are
spread out: each dropped pixel has kept neighbours. Reconstruction gains nearly 2 dB compared with uniformly random
rows. All cameras draw from one public pool of 4,096 patterns. The camera's key shifts each pattern around the block
and mirrors it, in 512 ways.

The frame's seed (camera key, boot id, sequence number) picks one row of the camera's codebook for each block. The mask
is never sent. A leaked mask shows rows of the codebook, and not the next choice among them.

Against an attacker with the camera's codebook, a mask carries log2(`ROWS`) = 12 bits of entropy per block, 192 bits at
32×32. Without the codebook, a block's row is one of 4,096 × 512 = 2^21. Of these, 98 % are distinct at the drop ratio
.25, 65 % at .15 and few below .1.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.keys.keys import CameraKey
from schemas.limits import BLOCK, BLOCK_PIXELS, MAX_DROPPED_PER_BLOCK
from schemas.pixels.philox import philox, philox_each
from schemas.pixels.symmetries import Words, turned

ROWS: Final = 4096
"""Rows of a codebook, a power of two up to 65,536."""

CLUMPING_SIGMA: Final = 0.7
"""Range in pixels of the clumping energy; reconstruction is equally good from .5 to .8."""

SWAP_TRIES: Final = 200
"""Exchanges tried on each pattern of the pool: more gain little and make patterns alike."""

FEW_ROWS: Final = 256
"""Maximum number of rows for which single rows are faster to make than the whole codebook: a frame of 128×128
pixels."""

Mask = NDArray[np.bool_]


def blocks_of(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of 8×8 blocks that cover a frame; the last ones may reach over its edge."""
    return -(-height // BLOCK), -(-width // BLOCK)


def codebook(seed: tuple[int, int], dropped_per_block: int) -> Words:
    """Return the rows (ROWS,) as 64-bit words: bit 8·y + x is set where the pixel (y, x) of the block is kept.

    Each word of Philox under `seed` picks a pattern of the pool, a shift around the block and a mirroring.
    """
    _check_drop(dropped_per_block)
    return _rows(philox(seed, ROWS // 4).reshape(-1), dropped_per_block)


def codebook_rows(seeds: NDArray[np.uint64], rows: NDArray[np.int64], dropped_per_block: int) -> Words:
    """Return the given `rows` (N, K) of N codebooks, identified by their `seeds` (N, 2), and make no other row.

    A small frame uses few of the 4,096 rows, so cameras with small frames need no cached codebook.
    """
    _check_drop(dropped_per_block)
    found = philox_each(seeds, (rows >> 2).astype(np.uint64))
    return _rows(np.take_along_axis(found, (rows & 3)[..., None], axis=-1)[..., 0], dropped_per_block)


def _rows(words: NDArray[np.uint32], dropped_per_block: int) -> Words:
    """Return the rows for words of Philox."""
    return turned(_pool(dropped_per_block)[words & (ROWS - 1)], words >> 23)


_POOLS: Final[dict[int, Words]] = {}
_MAKING: Final = Lock()


def _pool(dropped_per_block: int) -> Words:
    """Return the pool, which is made once even under concurrent calls: a fleet starts thousands of cameras that need
    it.
    """
    found = _POOLS.get(dropped_per_block)
    if found is None:
        with _MAKING:
            found = _POOLS.get(dropped_per_block)
            if found is None:
                found = _POOLS[dropped_per_block] = _as_words(spread_patterns(dropped_per_block))
    return found


def has_pool(dropped_per_block: int) -> bool:
    """Return whether a mask needs no new pool: it was made before, or nothing is dropped."""
    return dropped_per_block == 0 or dropped_per_block in _POOLS


def make_pool(dropped_per_block: int) -> None:
    """Make the pool of patterns if it is missing, for all cameras of the process."""
    _pool(dropped_per_block)


def uniform_codebook(seed: tuple[int, int], dropped_per_block: int) -> NDArray[np.uint64]:
    """Return the rows (ROWS,) of a codebook without spreading, for comparison: uniformly random patterns."""
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
    """Return kept pixels (ROWS, 64): in each row the ones with the largest random words."""
    order = np.argsort(philox(seed, ROWS * BLOCK_PIXELS // 4).reshape(ROWS, BLOCK_PIXELS), axis=1, kind="stable")
    kept = np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    np.put_along_axis(kept, order[:, :dropped_per_block], False, axis=1)
    return kept


def spread_patterns(dropped_per_block: int, sigma: float = CLUMPING_SIGMA, tries: int = SWAP_TRIES) -> Mask:
    """Make the pool: kept pixels (ROWS, 64) with the dropped pixels spread out.

    The input is uniform patterns. `tries` random pairs of a dropped and a kept pixel are exchanged whenever that lowers
    the clumping energy. The energy is the sum over all pairs of dropped pixels of a Gaussian of their distance around
    the block, with `sigma` in pixels. It is computed in integers: every machine makes the same exchanges.
    """
    if dropped_per_block == 0:
        return np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    energy = _pair_energy(sigma)
    kept = _uniform_patterns((dropped_per_block, 0), dropped_per_block)
    # Dropped pixels come first in each row, then the kept ones.
    order = np.argsort(kept, axis=1, kind="stable")
    field = energy[order[:, :dropped_per_block]].sum(axis=1)
    draws = philox((dropped_per_block, 1), ROWS * tries // 4).reshape(tries, ROWS).astype(np.int64)
    # Flat places and `take` cost two thirds of the time that pairs of indices cost.
    starts = np.arange(ROWS) * BLOCK_PIXELS
    places, fields, energies = order.reshape(-1), field.reshape(-1), energy.reshape(-1)
    leaving = ((draws & 0xFFFF) * dropped_per_block >> 16) + starts
    entering = dropped_per_block + ((draws >> 16) * (BLOCK_PIXELS - dropped_per_block) >> 16) + starts
    for leaves, enters in zip(leaving, entering, strict=True):
        old, new = places.take(leaves), places.take(enters)
        less = fields.take(starts + old) - fields.take(starts + new) + energies.take(old * BLOCK_PIXELS + new)
        better = np.flatnonzero(less > energy[0, 0])
        old, new = old[better], new[better]
        places[leaves[better]], places[enters[better]] = new, old
        field[better] += energy.take(new, axis=0) - energy.take(old, axis=0)
    spread = np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    np.put_along_axis(spread, order[:, :dropped_per_block], False, axis=1)
    return spread


def _pair_energy(sigma: float) -> NDArray[np.int64]:
    """Return the clumping energy (64, 64) of two dropped pixels, in units of 2^-16, by their distance on the block's
    torus.
    """
    along = np.abs(np.arange(BLOCK)[:, None] - np.arange(BLOCK))
    along = np.minimum(along, BLOCK - along) ** 2
    squared = along[:, None, :, None] + along[None, :, None, :]
    energy: NDArray[np.float64] = np.exp(-squared / (2 * sigma**2)) * 2**16
    return np.rint(energy).astype(np.int64).reshape(BLOCK_PIXELS, BLOCK_PIXELS)


def row_indices(seed: tuple[int, int], blocks: int) -> NDArray[np.int64]:
    """Return the codebook row of each block, in raster order: the low and then the high half of each Philox word."""
    return _halves(philox(seed, -(-blocks // 8)).reshape(1, -1))[0, :blocks]


class CodebookCache:
    """A process's cache of codebooks. One takes 32 KiB and .3 ms to make; a small frame's rows alone take .15 ms.

    If more cameras take turns than the cache holds, each entry would be evicted before its next use. If the cache is
    full, a codebook for small frames is therefore not cached; one for large frames evicts the oldest.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._books: dict[tuple[tuple[int, int], int], Words] = {}
        self._changing = Lock()

    def __len__(self) -> int:
        return len(self._books)

    def rows(self, seed: tuple[int, int], rows: NDArray[np.int64], dropped_per_block: int) -> Words:
        """Return the given `rows` (K,) of the codebook under `seed`."""
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


_AT_HAND: Final = CodebookCache(256)


def block_patterns(
    seeds: NDArray[np.uint64], book_seeds: NDArray[np.uint64], blocks: int, dropped_per_block: int
) -> Words:
    """Return the patterns (N, blocks) of the blocks of N frames at once, in raster order.

    `seeds` (N, 2) belong to the frames, `book_seeds` (N, 2) to their cameras' codebooks.
    """
    _check_drop(dropped_per_block)
    words = philox_each(seeds, np.arange(-(-blocks // 8), dtype=np.uint64)[None].repeat(len(seeds), axis=0))
    return codebook_rows(book_seeds, _halves(words.reshape(len(seeds), -1))[:, :blocks], dropped_per_block)


def _halves(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the codebook rows (N, 2 · W) for words (N, W): the low and then the high half of each."""
    halves = words.astype("<u4", copy=False).view("<u2")
    return (halves & (ROWS - 1)).astype(np.int64)


def kept_mask(key: CameraKey, boot_id: int, seq: int, height: int, width: int, dropped_per_block: int) -> Mask:
    """Return the mask (height, width) of a frame: True at kept pixels."""
    if dropped_per_block == 0:
        return np.ones((height, width), dtype=np.bool_)
    rows, columns = blocks_of(height, width)
    indices = row_indices(key.frame_seed(boot_id, seq), rows * columns)
    words = _AT_HAND.rows(key.codebook_seed(dropped_per_block), indices, dropped_per_block)
    # A byte of a word is one row of its block. The bytes are put into raster order before they are unpacked: there are
    # eight times as many bits.
    raster = words.view(np.uint8).reshape(rows, columns, BLOCK).transpose(0, 2, 1).reshape(rows * BLOCK, columns)
    return np.unpackbits(raster[:height], axis=1, count=width, bitorder="little").view(np.bool_)
