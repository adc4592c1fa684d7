"""The masks of groups of pictures: all frames of a group have one, which is made once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from processors.arrivals.job import FrameJob
from processors.stages.planar import PlanarFrames, PlaneMask, whole_mask
from schemas.messages.frame import mask_seq
from schemas.pixels.masks import kept_mask

HELD_BYTES: Final = 64 * 2**20
"""Memory of all masks: those of eight groups of 1920×1080."""


class GroupMasks:
    """The masks of the groups that were used last, in at most `held_bytes`. One thread at a time uses it."""

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._most = held_bytes
        self._held = 0
        self._masks: OrderedDict[tuple[object, ...], tuple[PlaneMask, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self._masks)

    def frames(self, jobs: Sequence[FrameJob], height: int, width: int) -> PlanarFrames:
        """Return decoded frames of one shape, to be resampled to `height` × `width`."""
        masks = [self._of(job, height, width) for job in jobs]
        sent = [whole_mask(*job.shape[:2]) if job.frame.whole else mask for job, mask in zip(jobs, masks, strict=True)]
        return PlanarFrames([job.planes for job in jobs if job.planes is not None], jobs[0].shape.channels, masks, sent)

    def _of(self, job: FrameJob, height: int, width: int) -> PlaneMask:
        frame, key, shape = job.frame, job.key, job.shape
        drawn = frame.boot_id, mask_seq(frame), shape.height, shape.width, frame.dropped_per_block
        if frame.whole:  # of this frame alone
            return PlaneMask(kept_mask(key, *drawn))
        name = (key.camera_id, key.generation, *drawn)
        found = self._masks.get(name)
        if found is not None:
            self._masks.move_to_end(name)
            return found[0]
        mask = PlaneMask(kept_mask(key, *drawn))
        mask.shares(height, width)
        self._masks[name] = mask, mask.nbytes
        self._held += mask.nbytes
        while self._held > self._most and len(self._masks) > 1:
            _, (_, freed) = self._masks.popitem(last=False)
            self._held -= freed
        return mask
