"""The cameras' codebooks on the device."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from processors.stages.unpack import pattern_bytes
from schemas.identity import CameraId
from schemas.keys import CameraKey
from schemas.limits import BLOCK
from schemas.pixels.masks import ROWS, codebook

_FIRST = 16


class DeviceCodebooks:
    """Codebooks (slots, ROWS, 8) uint8 on `device`, at most `capacity` of 32 KiB each; the least used one gives way."""

    def __init__(self, device: torch.device, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._slots: OrderedDict[tuple[CameraId, int, int], int] = OrderedDict()
        self.table = torch.zeros(min(_FIRST, capacity), ROWS, BLOCK, dtype=torch.uint8, device=device)

    def slot(self, key: CameraKey, dropped_per_block: int) -> int:
        """Where in `table` the codebook of this key and drop stands; it is put there when it is not.

        A batch may use at most `capacity` codebooks: a slot is sure to stay only that long.
        """
        name = (key.camera_id, key.generation, dropped_per_block)
        slot = self._slots.get(name)
        if slot is not None:
            self._slots.move_to_end(name)
            return slot
        slot = self._free_slot()
        rows = codebook(key.codebook_seed(dropped_per_block), dropped_per_block)
        self.table[slot] = pattern_bytes(torch.from_numpy(rows.view(np.int64).copy())).to(self.table.device)
        self._slots[name] = slot
        return slot

    def _free_slot(self) -> int:
        used = len(self._slots)
        if used == self._capacity:
            return self._slots.popitem(last=False)[1]
        if used == len(self.table):
            more = min(used, self._capacity - used)
            self.table = torch.cat((self.table, self.table.new_zeros(more, ROWS, BLOCK)))
        return used

    def slots(self, wanted: list[tuple[CameraKey, int]]) -> Tensor:
        """The slots (B,) int64, on the device, of one batch."""
        return torch.tensor([self.slot(key, dropped) for key, dropped in wanted], device=self.table.device)
