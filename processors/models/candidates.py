"""The candidate of a rollout: loaded next to the live model, and given up when the rollout ends."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

import psutil
import structlog
from prometheus_client import CollectorRegistry

from processors.device.candidate import Candidate
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.models.store import PassingBundleError
from schemas.errors import BundleError, ConfigError
from schemas.messages.rollout import slots
from schemas.pointillist_pb2 import Model, Models
from schemas.runtime.memory import release_freed
from schemas.waiting import wait_at_most

_AGAIN_S: Final = 15.0
"""Seconds before a retry of a store that did not return a bundle."""

log = structlog.get_logger()


class CandidateState(NamedTuple):
    """The report on the candidate. All fields are empty without one."""

    digest: str = ""
    """Digest of the candidate, loaded or rejected."""
    error: str = ""
    """Why the candidate does not load."""
    grown_bytes: int = 0
    """Growth of this process's memory by its load."""
    begun_ms: int = 0
    """The beginning of its rollout, Unix time in ms."""
    retries: bool = False
    """Whether it is loaded once more: the error may pass."""


Load = Callable[[Model, ProcessorMetrics], Awaitable[LoadedModel]]
"""A function that loads a published model, which counts in the given metrics; see `ModelLoader.load`."""


async def follow_changes(changed: asyncio.Event, follow: Callable[[], Awaitable[bool]]) -> None:
    """Call `follow` at each change until cancelled. While it returns true, call it again after `_AGAIN_S`, too."""
    while True:
        await changed.wait()
        changed.clear()
        if await follow():
            await wait_at_most(changed, _AGAIN_S)
            changed.set()


class Candidates:
    """Follows the rollout. At most one candidate is loaded, and an earlier one is released before the next loads."""

    def __init__(
        self,
        load: Load,
        count_loss: Callable[[Model], None],
        switch: Callable[[Candidate | None], None],
        report: Callable[[], None],
        timeout_s: float,
    ) -> None:
        """`count_loss` is called with a candidate whose work has cost the device. `switch` sets the processor's
        candidate. `report` is called at each change of `state`. A candidate has `timeout_s` for each batch.
        """
        self._timeout_s = timeout_s
        self._load = load
        self._count_loss = count_loss
        self._switch = switch
        self._report = report
        self._wanted = Models()
        self._changed = asyncio.Event()
        self._refused = ("", 0)
        self._model: LoadedModel | None = None
        self.state = CandidateState()

    def withdraw(self, models: Models) -> None:
        """Let a candidate that is not in the list any more judge no further frame."""
        # Also one that loads at this time.
        self._wanted = models
        rollout = slots(models).rollout
        if self._model is not None and (rollout is None or rollout.candidate.digest != self._model.digest):
            self._switch(None)

    def follow(self, models: Models) -> None:
        """Accept the list in force."""
        self._wanted = models
        self._changed.set()

    def _give_up(self, given: weakref.ref[LoadedModel], error: str) -> None:
        """Give up a candidate that exceeds its time limit: it judges no further frame in this rollout."""
        state, model = self.state, given()
        if model is None or model is not self._model:  # another candidate has taken its place
            return
        log.error("candidate_gave_no_result", model=model.model_id, error=error)
        self._switch(None)
        self._model = None
        model.close()
        self._refused = (state.digest, state.begun_ms)
        self._set(state._replace(error=error))

    def release(self, digest: str, metrics: ProcessorMetrics) -> LoadedModel | None:
        """Return the candidate if it has this digest, to become the live model; it counts in `metrics` from now on."""
        model = self._model
        if model is None or model.digest != digest:
            return None
        self._switch(None)
        self._model = None
        model.executor.count_in(metrics)
        model.limit.seconds = None
        self._set(CandidateState())
        return model

    async def run(self) -> None:
        """Follow until cancelled."""
        await follow_changes(self._changed, self._follow)

    async def _follow(self) -> bool:
        """Load or release; return whether a retry may help."""
        rollout = slots(self._wanted).rollout
        digest = rollout.candidate.digest if rollout is not None else ""
        if self._model is not None and self._model.digest != digest:
            self._switch(None)
            self._model = None
        if rollout is None:
            self._refused = ("", 0)
            self._set(CandidateState())
            return False
        if self._model is None:
            if (digest, rollout.begun_ms) == self._refused:
                return False
            # What earlier models have left must not hide the candidate's own memory.
            await asyncio.to_thread(release_freed)
            before = psutil.Process().memory_info().rss
            try:
                # Its frames are no verdicts: it counts in no metric of the processor.
                model = await self._load(rollout.candidate, ProcessorMetrics(CollectorRegistry()))
            except (BundleError, ConfigError) as error:
                log.error("candidate_rejected", model=rollout.candidate.model_id, error=str(error))
                passing = isinstance(error, PassingBundleError)
                self._set(CandidateState(digest, str(error)[:500], 0, rollout.begun_ms, passing))
                self._refused = ("", 0) if passing else (digest, rollout.begun_ms)
                return passing
            now = slots(self._wanted).rollout
            if now is None or now.candidate.digest != digest:
                # Superseded during the load.
                self._changed.set()
                return False
            self._model = model
            # A reference of a model to itself would keep its memory and its thread until a collection of garbage.
            model.limit.seconds, model.limit.report = self._timeout_s, partial(self._give_up, weakref.ref(model))
            model.limit.count_loss = partial(self._count_loss, rollout.candidate)
            grown = max(0, psutil.Process().memory_info().rss - before)
            self._set(CandidateState(digest, "", grown, now.begun_ms))
            log.info("candidate_loaded", model=model.model_id, grown_bytes=grown)
            rollout = now
        self._set(self.state._replace(begun_ms=rollout.begun_ms))
        self._switch(Candidate(self._model, rollout))
        return False

    def _set(self, state: CandidateState) -> None:
        if state != self.state:
            self.state = state
            self._report()
