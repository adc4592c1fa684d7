"""The replacement of the live model: the new one loads next to it, and takes over between two batches."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from processors.device.candidate import Candidate
from processors.device.drift import DriftState
from processors.device.loaded_model import LoadedModel, load_model
from processors.device.memory import lacks_memory
from processors.metrics import ProcessorMetrics
from processors.models.candidates import Candidates, follow_changes
from processors.models.fatal_loads import count_loss, fatal_loads_counted
from processors.models.feed import ModelFeed, Refusal
from processors.models.store import PassingBundleError, StoreUnavailableError, fetch_bundle, has_bundle
from processors.results.delivery import Emitter
from processors.results.records import OutgoingRecord, served_record
from processors.settings import ProcessorSettings
from processors.stages.scenes import SceneMemory
from schemas.clock import unix_ms
from schemas.errors import BundleError, ConfigError, first_line, typed_text
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import DRIFT_WINDOWS, PROCESSOR_PREFIX, live, standing
from schemas.pointillist_pb2 import Drift, Model, ServedModel
from schemas.runtime.daemon_thread import run_in_daemon_thread
from schemas.runtime.health import Health
from schemas.runtime.memory import release_freed
from schemas.waiting import cancel, wait_at_most

_FIRST_S: Final = 5.0
_KNOWN_S: Final = 20.0
"""Seconds to wait for Kafka before the processor's own bundle is loaded, if a published one has served before."""

log = structlog.get_logger()


class ModelLoader:
    """A loader of published bundles, and of the processor's own, each on its own thread."""

    def __init__(self, settings: ProcessorSettings, metrics: ProcessorMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._own_cache: tempfile.TemporaryDirectory[str] | None = None
        self._fetches: dict[str, asyncio.Future[Path]] = {}
        """Fetches that have not ended, by digest."""
        self._scenes = SceneMemory()
        """The scenes of the cameras, for all models: the next one, and a candidate, know them from the beginning."""

    async def load(self, model: Model | None, metrics: ProcessorMetrics | None = None) -> LoadedModel:
        """Load the published model, or the processor's own for None. It counts in `metrics`, or in the processor's.

        Raises BundleError for any fault of the bundle, and PassingBundleError if a retry may help: the store does not
        answer or memory is short. Raises UntrustedBundleError, before any fetch, without a trusted signature, and
        ConfigError if the model's device is missing.
        """
        name = model.model_id if model is not None else str(self._settings.bundle)
        metrics = metrics or self._metrics
        folder, digest = self._settings.bundle, ""
        ends_at = asyncio.get_running_loop().time() + self._settings.model_load_s
        try:
            if model is not None:
                folder, digest = await self._fetched(model, ends_at), model.digest
            with self._counted(model):
                async with asyncio.timeout_at(ends_at):
                    loaded = await load_model(self._settings, metrics, folder, digest)
            loaded.executor.scenes = self._scenes
        except TimeoutError:
            raise BundleError(
                f"{name}: expected a loaded bundle within {self._settings.model_load_s:g} s, got none. Raise "
                "model_load_s."
            ) from None
        except (Exception, SystemExit) as error:  # a bundle's own code may raise anything
            if lacks_memory(error):
                raise PassingBundleError(
                    f"{name}: expected enough memory for the bundle, got too little: {first_line(error)}. Give the "
                    "processor more memory, or publish a smaller bundle."
                ) from error
            if isinstance(error, BundleError | ConfigError):
                raise
            raise BundleError(
                f"{name}: expected a bundle that loads, got {typed_text(error)}. Publish another one."
            ) from error
        if model is None:
            return loaded
        if loaded.model_id != name:
            loaded.close()
            raise BundleError(f"{model.location}: expected {name}, got {loaded.model_id}. Publish the bundle again.")
        try:
            # Also what the model before the live one has left.
            await asyncio.to_thread(release_freed)
        except asyncio.CancelledError:
            loaded.close()
            raise
        return loaded

    def _counted(self, model: Model | None) -> AbstractContextManager[None]:
        """Return the count of the model's fatal loads, or nothing where no count outlives the process."""
        folder, processor = self._settings.model_cache, self._settings.instance
        if model is None or folder is None or processor is None:
            return nullcontext()
        return fatal_loads_counted(folder, processor, model)

    def count_loss(self, model: Model) -> None:
        """Count a process that lost its device while `model`, a candidate, judged frames."""
        folder, processor = self._settings.model_cache, self._settings.instance
        if folder is not None and processor is not None:
            count_loss(folder, processor, model)

    async def _fetched(self, model: Model, ends_at: float) -> Path:
        """Return the folder with the model's files. Raises StoreUnavailableError if the store takes too long."""
        fetch = self._fetches.get(model.digest)
        if fetch is None:
            work = partial(fetch_bundle, model, self._cache(), TrustedSigners.read(self._settings.trust))
            # In a daemon thread: a store that hangs must not keep the process from ending.
            fetch = self._fetches[model.digest] = run_in_daemon_thread(work, "fetch-bundle")
            fetch.add_done_callback(lambda _: self._fetches.pop(model.digest))
        try:
            async with asyncio.timeout_at(ends_at):
                return await asyncio.shield(fetch)
        except TimeoutError:
            raise StoreUnavailableError(
                f"{model.model_id}: expected its files from {model.location} within {self._settings.model_load_s:g} s, "
                "got none"
            ) from None

    def has_fetched(self) -> bool:
        """Return whether the permanent cache has a whole published bundle."""
        kept = self._settings.model_cache
        return kept is not None and has_bundle(kept)

    def _cache(self) -> Path:
        if self._settings.model_cache is not None:
            return self._settings.model_cache
        if self._own_cache is None:
            # A fetch may still write into it at the end of the role.
            self._own_cache = tempfile.TemporaryDirectory(prefix="pointillist-models-", ignore_cleanup_errors=True)
        return Path(self._own_cache.name)

    def close(self) -> None:
        """Remove the cache, unless the settings name a permanent one."""
        if self._own_cache is not None:
            self._own_cache.cleanup()


async def first_model(feed: ModelFeed, loader: ModelLoader) -> LoadedModel:
    """Load the live model, or the newest one before it that loads, or the processor's own.

    An unavailable Kafka is waited for only if a published bundle has served before, because that one is probably live.
    Frames are read only after `feed.known` is set, and the swap loads the live model then. Raises BundleError if the
    processor's own bundle is needed and broken.
    """
    served_before = await asyncio.to_thread(loader.has_fetched)
    read, longest_s = (feed.known, _KNOWN_S) if served_before else (feed.tried, _FIRST_S)
    await wait_at_most(read, longest_s)
    for model in standing(feed.models):
        try:
            return await loader.load(model)
        except BundleError as error:
            log.error("model_rejected", model=model.model_id, error=str(error))
    return await loader.load(None)


class _Rejected(NamedTuple):
    """The live model that did not load. A bundle that is published again is another model here, and is loaded again."""

    model: Model
    refusal: Refusal
    retries: bool
    """Whether a retry may help."""


class ModelSwap:
    """Follows the feed. A model that does not load is rejected, and the one before it stays live."""

    def __init__(
        self,
        settings: ProcessorSettings,
        feed: ModelFeed,
        loader: ModelLoader,
        loaded: LoadedModel,
        switch: Callable[[LoadedModel], None],
        switch_candidate: Callable[[Candidate | None], None],
        emitter: Emitter,
        metrics: ProcessorMetrics,
        health: Health,
    ) -> None:
        """`switch` replaces the processor's model from its next batch on, `switch_candidate` its candidate."""
        self._settings = settings
        self._feed = feed
        self._loader = loader
        self._switch = switch
        self._emitter = emitter
        self._metrics = metrics
        self._health = health
        self._key = f"{PROCESSOR_PREFIX}{settings.name}".encode()
        self._since_ms = unix_ms()
        self._rejected: _Rejected | None = None
        self._shown: Refusal | None = None
        self._drift: DriftState | None = None
        self._reported: tuple[int, ServedModel] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._candidates = Candidates(
            loader.load,
            loader.count_loss,
            switch_candidate,
            lambda: self._report_state(self._shown),
            settings.candidate_timeout_s,
        )
        self.loaded = loaded
        self.settled = asyncio.Event()
        """Set when the model that was live at the start serves, or was rejected: frames may be read."""

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        self._report_state()
        # Two tasks: while one model loads, the other slot follows the list.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._candidates.run(), name="candidates")
            tasks.create_task(follow_changes(self._feed.changed, self._follow), name="live model")

    async def _follow(self) -> bool:
        """Follow the list in force; return whether a retry may help."""
        self._candidates.withdraw(self._feed.models)
        retries = await self._serve_live()
        self._candidates.follow(self._feed.models)
        self.settled.set()
        return retries

    async def _serve_live(self) -> bool:
        """Serve the live model; return whether a retry may help."""
        wanted = live(self._feed.models)
        if self.loaded.digest == _digest(wanted):
            self._report_state()
            return False
        if self._rejected is not None and self._rejected.model != wanted:
            self._rejected = None
            self._report_state()
        if self._rejected is not None and not self._rejected.retries:
            self._report_state(self._rejected.refusal)
            return False
        start_s = time.monotonic()
        try:
            ready = await self._ready(wanted)
        except (BundleError, ConfigError) as error:
            if not self._is_live(wanted):
                self._metrics.model_swaps["superseded"].inc()
                return False
            name = wanted.model_id if wanted is not None else "the processor's own bundle"
            log.error("model_rejected", model=name, live=self.loaded.model_id, error=str(error))
            self._metrics.model_swaps["refused"].inc()
            refused = Refusal(_digest(wanted), str(error))
            passing = isinstance(error, PassingBundleError)
            if wanted is not None:
                self._rejected = _Rejected(wanted, refused, passing)
            self._report_state(refused)
            return passing
        if not self._is_live(wanted):
            self._metrics.model_swaps["superseded"].inc()
            ready.close()
            return False
        seconds = time.monotonic() - start_s
        before, self.loaded, self._rejected = self.loaded, ready, None
        self._since_ms = unix_ms()
        self._switch(ready)
        self._metrics.model_swaps["switched"].inc()
        self._metrics.model_load.observe(seconds)
        log.info("model_switched", model=ready.model_id, before=before.model_id, seconds=round(seconds, 3))
        self._report_state()
        return False

    async def _ready(self, wanted: Model | None) -> LoadedModel:
        """Return the loaded model: the candidate if it was promoted."""
        promoted = self._candidates.release(wanted.digest, self._metrics) if wanted is not None else None
        return promoted or await self._loader.load(wanted)

    def _is_live(self, model: Model | None) -> bool:
        return _digest(live(self._feed.models)) == _digest(model)

    # Reports to other roles

    def poll(self) -> None:
        """Report the drift of the live model if it has changed. Let a withdrawn candidate judge no further frame: `run`
        may be loading a live model.
        """
        self._candidates.withdraw(self._feed.models)
        if self.loaded.executor.drift.state != self._drift:
            self._report_state(self._shown)

    def _report_state(self, refused: Refusal | None = None) -> None:
        """Report the served model. `refused` is the live model; a newer list that was rejected takes precedence."""
        self._shown = refused
        self._drift = drift = self.loaded.executor.drift.state
        if drift is None or drift.windows < DRIFT_WINDOWS:
            self._metrics.no_drift_known()
        else:
            self._metrics.drifts(drift.pictures, drift.answers)
        digest, error = self._feed.refused or refused or ("", "")
        model_id = self.loaded.model_id
        self._metrics.serves(model_id, self.loaded.runs)
        self._health.set("warm", True, model_id)
        self._health.set("model", True, f"{model_id}; rejected: {error}" if error else model_id)
        served = ServedModel(
            model_id=model_id,
            digest=self.loaded.digest,
            since_ms=self._since_ms,
            refused_digest=digest,
            error=error[:500],
            runs=", ".join(" ".join(each) for each in self.loaded.runs),
            candidate_digest=self._candidates.state.digest,
            candidate_error=self._candidates.state.error,
            candidate_bytes=self._candidates.state.grown_bytes,
            candidate_begun_ms=self._candidates.state.begun_ms,
            candidate_retries=self._candidates.state.retries,
            drift=None if drift is None else Drift(**drift._asdict()),
        )
        report = (self._feed.found, served)
        if self._feed.exists and report != self._reported:
            self._reported = report
            self._report(served_record(self._key, served))

    def _report(self, record: OutgoingRecord) -> None:
        if self._sending is not None:
            self._sending.cancel()
        send = self._emitter.send(self._settings.models_topic, [record])
        self._sending = asyncio.create_task(send, name="report model")

    async def close(self, deadline_s: float) -> None:
        """Report that this processor serves no model, within the deadline; end the model's thread."""
        self.loaded.close()
        if self._reported is not None:
            self._report(served_record(self._key, None))
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=deadline_s)
            await cancel(self._sending)


def _digest(model: Model | None) -> str:
    """Return the digest of a published model; empty for None, the processor's own bundle."""
    return model.digest if model is not None else ""
