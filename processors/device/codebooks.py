"""The cameras' codebooks on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.arrivals.job import FrameJob
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.limits import BLOCK, MAX_CAMERAS
from schemas.pixels.masks import FEW_ROWS, ROWS, block_patterns, blocks_of, codebook

_FIRST = 16


class DeviceCodebooks:
    """A cache of codebooks (slots, ROWS, 8) uint8 on `device`: at most `capacity` of 32 KiB each, least used evicted
    first.

    Small frames on a CPU do without: making their few rows by the batch takes less time than a lookup, and no camera
    costs memory. A GPU has room for the codebooks of all cameras, and no time to wait for the host.
    """

    def __init__(self, device: torch.device, capacity: int | None = None) -> None:
        on_gpu = device.type == "cuda"
        self._capacity: int = capacity or (MAX_CAMERAS if on_gpu else 1024)
        self._makes_rows = not on_gpu
        self._slots: OrderedDict[tuple[CameraId, int, int], int] = OrderedDict()
        self.table = torch.zeros(min(_FIRST, self._capacity), ROWS, BLOCK, dtype=torch.uint8, device=device)

    def __len__(self) -> int:
        """Return the number of cached codebooks."""
        return len(self._slots)

    def slot(self, key: CameraKey, dropped_per_block: int) -> int:
        """Return the position in `table` of the codebook of this key and drop; insert it if it is missing.

        A batch may use at most `capacity` codebooks: a slot is valid for one batch only.
        """
        name = (key.camera_id, key.generation, dropped_per_block)
        slot = self._slots.get(name)
        if slot is not None:
            self._slots.move_to_end(name)
            return slot
        slot = self._free_slot()
        rows = codebook(key.codebook_seed(dropped_per_block), dropped_per_block)
        self.table[slot] = torch.from_numpy(_bytes_of(rows)).to(self.table.device)
        self._slots[name] = slot
        return slot

    def of(self, batch: Sequence[FrameJob], seeds: Sequence[tuple[int, int]]) -> Tensor:
        """Return the argument `books` of `CompiledPipeline` for frames of one shape with these `seeds`."""
        rows, columns = blocks_of(batch[0].shape.height, batch[0].shape.width)
        wanted = [(job.key, job.frame.dropped_per_block) for job in batch]
        if self._makes_rows and rows * columns <= FEW_ROWS:
            return _patterns(wanted, seeds, rows * columns)
        slots = self.slots(wanted)  # before access to the table, which may have to grow
        return self.table[slots]

    def _free_slot(self) -> int:
        used = len(self._slots)
        if used == self._capacity:
            return self._slots.popitem(last=False)[1]
        if used == len(self.table):
            more = min(used, self._capacity - used)
            self.table = torch.cat((self.table, self.table.new_zeros(more, ROWS, BLOCK)))
        return used

    def slots(self, wanted: list[tuple[CameraKey, int]]) -> Tensor:
        """Return the slots (B,) int64, on the device, of one batch."""
        return torch.tensor([self.slot(key, dropped) for key, dropped in wanted], device=self.table.device)


def _patterns(wanted: Sequence[tuple[CameraKey, int]], seeds: Sequence[tuple[int, int]], blocks: int) -> Tensor:
    """Return the patterns (B, blocks, 8) of the blocks of a batch, in the format of `stages.unpack.laid_out`."""
    found = np.empty((len(wanted), blocks), dtype=np.uint64)
    for dropped in {dropped for _, dropped in wanted}:
        alike = [place for place, (_, each) in enumerate(wanted) if each == dropped]
        own = np.array([seeds[place] for place in alike], dtype=np.uint64)
        books = np.array([wanted[place][0].codebook_seed(dropped) for place in alike], dtype=np.uint64)
        found[alike] = block_patterns(own, books, blocks, dropped)
    return torch.from_numpy(_bytes_of(found))


def _bytes_of(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Convert patterns (..., K) from words to their eight rows, the uppermost first: (..., K, 8)."""
    return words.astype("<u8", copy=False).view(np.uint8).reshape(*words.shape, BLOCK)
