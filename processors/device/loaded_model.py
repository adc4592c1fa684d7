"""A loaded model: its network, its description in verdicts, and its thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
import torch

from processors.arrivals.job import FrameJob
from processors.bundle import Bundle, load_bundle
from processors.bundle.folder import check_folder
from processors.bundle.model_toml import Answer, Scores
from processors.device.backends.choice_cache import open_cache
from processors.device.backends.choose import BackendRequest, RunsOn, check_request
from processors.device.backends.engines import engines
from processors.device.batch_executor import BatchExecutor, choose_device, most_pixels
from processors.device.certification import Sticker
from processors.device.compiled_pipeline import CompiledPipeline
from processors.device.lost_device import DeviceLostError, lost_device_raised
from processors.device.precision import choose_precision
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from processors.settings import ProcessorSettings
from schemas.errors import ConfigError, StageError
from schemas.runtime.abandoned import abandon

log = structlog.get_logger()


@dataclass(eq=False)
class TimeLimit:
    """The time limit of a candidate's work, and the reports on its faults; a live model has none.

    A network that hangs cannot be interrupted. Its thread is abandoned, and the device is free for the live model.
    """

    seconds: float | None = None
    """Maximum seconds of one batch; None without a limit."""
    exceeded: str = ""
    """The error, once the limit was exceeded: all further work fails at once."""
    report: Callable[[str], None] = lambda error: None
    """Called with the error at the first excess."""
    count_loss: Callable[[], None] = lambda: None
    """Called when the candidate's work has cost the device."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A loaded bundle, warmed on its device, with its own thread: compiled functions stay on the thread that made them.

    When nothing refers to it any more, its thread ends and its memory is free. It is the `ServingModel` of its jobs.
    """

    executor: BatchExecutor
    model_id: str
    policy: str
    answer: Callable[[Scores], Answer]
    thread: ThreadPoolExecutor
    probe_s: float | None
    """Seconds that STRIP takes for one frame; None if the bundle has no STRIP."""
    digest: str = ""
    """Digest of all files of a published bundle; empty for the processor's own."""
    runs: tuple[RunsOn, ...] = ()
    """The runtimes of its networks."""
    limit: TimeLimit = field(default_factory=TimeLimit)

    @property
    def strip_threshold_bits(self) -> float:
        """The entropy in bits below which a probe is suspect; 0 without STRIP."""
        return self.executor.strip_threshold_bits

    def batch_pixels(self, job: FrameJob) -> int:
        """Return the pixels for which a frame counts in a batch."""
        return self.executor.batch_pixels(job)

    async def classify(self, jobs: Sequence[FrameJob]) -> float:
        """Classify jobs of one shape on the thread; return the seconds that this took. Beyond the limit, all fail."""
        return await self._run("classify", self.executor.classify, jobs)

    async def strip(self, jobs: Sequence[FrameJob]) -> float:
        """Check the probes of jobs on the thread; return the seconds that this took. Beyond the limit, all fail."""
        return await self._run("strip", self.executor.strip, jobs)

    @property
    def certifies(self) -> bool:
        """Whether it certifies labels: a candidate does not."""
        return self.limit.seconds is None

    async def certify(self, job: FrameJob) -> float:
        """Go on with the certificate of a job on the thread; return the seconds that this took."""
        return await self._run("certify", lambda jobs: self.executor.certify(jobs[0]), [job])

    async def _run(self, stage: str, work: Callable[[Sequence[FrameJob]], None], jobs: Sequence[FrameJob]) -> float:
        limit, longest_s = self.limit, self.limit.seconds
        # Work that ends too late must not change jobs that the live model has by then.
        own = jobs if longest_s is None else [copy(job) for job in jobs]

        def timed() -> float:
            start = time.perf_counter()
            work(own)
            return time.perf_counter() - start

        if limit.exceeded:
            _fail(jobs, stage, limit.exceeded)
            return 0.0
        work_of_thread = self.thread.submit(timed)
        running = asyncio.wrap_future(work_of_thread)
        try:
            if longest_s is None:
                return await running
            # A candidate that is promoted meanwhile has no limit any more.
            if (await asyncio.wait({running}, timeout=longest_s))[0] or limit.seconds is None:
                seconds = await running
                for job, found in zip(jobs, own, strict=True):
                    job.take_results(found)
                return seconds
        except DeviceLostError:
            if limit.seconds is not None:
                limit.count_loss()
            raise
        finally:
            if not work_of_thread.done():
                abandon(work_of_thread)
        running.add_done_callback(_ignore)
        limit.exceeded = f"expected {stage} within {longest_s:g} s, got no result"
        limit.report(limit.exceeded)
        _fail(jobs, stage, limit.exceeded)
        return longest_s

    def close(self) -> None:
        """End the thread and cancel its waiting work."""
        self.thread.shutdown(wait=False, cancel_futures=True)


def _fail(jobs: Sequence[FrameJob], stage: str, error: str) -> None:
    for job in jobs:
        job.fail(stage, StageError(error))


def _ignore(late: asyncio.Future[float]) -> None:
    """Retrieve the result of work that nobody waits for any more."""
    if not late.cancelled():
        late.exception()


async def load_model(
    settings: ProcessorSettings, metrics: ProcessorMetrics, folder: Path, digest: str = ""
) -> LoadedModel:
    """Load the bundle in `folder` and run it once, on its own thread, before its first frame.

    `digest` is that of a published bundle, for which a trusted signer vouches: its own code may run. Raises
    BundleError, ConfigError if the device is missing, and any exception of the bundle's code.
    """
    initializer = partial(_set_threads, settings.threads)
    thread = ThreadPoolExecutor(1, thread_name_prefix="device", initializer=initializer)
    prepared = thread.submit(_prepare, settings, metrics, folder, bool(digest))
    try:
        executor, probe_s, runs = await asyncio.wrap_future(prepared)
    except BaseException:
        if not prepared.done():
            abandon(prepared)
        thread.shutdown(wait=False, cancel_futures=True)
        raise
    bundle = executor.pipeline.bundle
    policy, answer = bundle.settings.input.policy, bundle.settings.answer
    return LoadedModel(executor, bundle.model_id, policy, answer, thread, probe_s, digest, runs)


def _set_threads(threads: int) -> None:
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // 2))


def _prepare(
    settings: ProcessorSettings, metrics: ProcessorMetrics, folder: Path, published: bool
) -> tuple[BatchExecutor, float | None, tuple[RunsOn, ...]]:
    device = choose_device(settings.device)
    request = _cpu_request(settings) if device.type == "cpu" else None
    check_folder(folder)
    with lost_device_raised(device):
        bundle = load_bundle(folder, device, vouched=published)
        compiled, runs = _on_gpu(settings, bundle) if request is None else _on_cpu(settings, bundle, request)
        sticker = Sticker(settings.certify_area, settings.certify_windows)
        executor = BatchExecutor(
            compiled, metrics, settings.preview_side, sticker, drift_interval_s=settings.drift_interval_s
        )
        probe_s = executor.warm(settings.batch_frames, most_pixels(settings))
    if bundle.settings.strip is None:
        log.warning("strip_disabled", model=bundle.model_id, reason="the bundle has no [strip] table")
    log.info(
        "device_ready",
        model=bundle.model_id,
        device=str(bundle.device),
        runs=[" ".join(each) for each in runs],
        compiled=compiled.shapes,
        stages=[stage.name for stage in bundle.stages],
    )
    return executor, probe_s, runs


def _on_gpu(settings: ProcessorSettings, bundle: Bundle) -> tuple[CompiledPipeline, tuple[RunsOn, ...]]:
    """Return the compiled chain on torch, and its runtimes."""
    if settings.backend == "openvino":
        raise ConfigError("backend openvino: expected the device cpu, got cuda. Choose another backend.")
    pipeline = Pipeline(bundle, settings.mode, settings.denoise)
    precision = choose_precision(pipeline, settings.precision)
    names = ("classifier", "restorer") if settings.mode == "default" else ("classifier",)
    compiled = CompiledPipeline(pipeline, compiles=settings.compile is not False, precision=precision)
    return compiled, tuple(RunsOn(name, "torch", precision) for name in names)


def _on_cpu(
    settings: ProcessorSettings, bundle: Bundle, request: BackendRequest
) -> tuple[CompiledPipeline, tuple[RunsOn, ...]]:
    """Return the chain with the fastest backends of its networks on this machine; torch compiles nothing."""
    cache = None if settings.backend_cache is None else open_cache(settings.backend_cache)
    pipeline, chosen = engines(bundle, request, settings.mode, settings.denoise, cache)
    return CompiledPipeline(pipeline), chosen.runs


def _cpu_request(settings: ProcessorSettings) -> BackendRequest:
    """Return the requested CPU backend and precision; ConfigError for settings that a CPU lacks."""
    if settings.compile:
        raise ConfigError(
            "compile: expected the device cuda, got cpu. Remove compile: on a CPU, --backend chooses the runtime."
        )
    if settings.precision == "tf32":
        raise ConfigError("precision tf32: expected the device cuda, got cpu. Choose another device.")
    request = BackendRequest(settings.backend, settings.precision)
    check_request(request)
    return request
