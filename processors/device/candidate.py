"""The candidate of a rollout in one processor: its loaded model, and the frames that it judges."""

from __future__ import annotations

from dataclasses import dataclass

from processors.arrivals.job import FrameJob
from processors.device.loaded_model import LoadedModel
from schemas.messages.rollout import is_canary, is_compared
from schemas.pointillist_pb2 import Rollout


@dataclass(frozen=True, eq=False)
class Candidate:
    """A loaded candidate and its rollout."""

    model: LoadedModel
    rollout: Rollout

    def serves(self, job: FrameJob) -> bool:
        """Return whether the frame's verdict is the candidate's."""
        return is_canary(job.key, self.rollout)

    def compares(self, job: FrameJob) -> bool:
        """Return whether both models judge the frame."""
        return is_compared(job.key, job.frame.boot_id, job.frame.seq, self.rollout)
