"""The contract of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from processors.arrivals.job import FrameJob


class Step(ABC):
    """One step of the chain. All methods run on the event loop's thread, and none blocks.

    A step does its part and submits the job to `next`, at once or later. No step rejects a job: the tracker bounds the
    jobs in flight. A job with a result, such as an error, passes the remaining steps unchanged.
    """

    next: Step
    """The next step; `processors.steps.chain.build_chain` sets it."""

    @abstractmethod
    def submit(self, job: FrameJob) -> None:
        """Accept a job from the previous step."""

    def poll(self, now_s: float) -> None:  # noqa: B027  # most steps have nothing to do
        """Do the work that is due at this monotonic time; called after each fetch, and twice a second."""

    def discard(self, partition: int) -> Sequence[FrameJob]:
        """Remove and return the jobs of a revoked partition that wait here: Kafka delivers them again.

        A job in progress, for example on the device, may continue. Its result changes no offset of the next assignment.
        """
        return ()

    async def close(self) -> None:  # noqa: B027
        """Cancel the work in progress, and release what the step holds."""
