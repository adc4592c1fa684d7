"""A model at work: its network, what verdicts say of it, and the thread on which it runs."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import torch

from processors.bundle import Bundle, load_bundle
from processors.device.backends.choose import RunsOn, Wish, check_wish
from processors.device.backends.engines import engines
from processors.device.precision import choose_precision
from processors.device.program import Program
from processors.device.work import DeviceWork, choose_device, most_pixels
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from processors.settings import ProcessorSettings
from schemas.errors import ConfigError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Model:
    """What every verdict says of the model."""

    model_id: str
    policy: str
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Serving:
    """A loaded bundle, warmed on `device`, a thread of its own: compiled programs stay on the thread that made them.

    When nothing refers to it any more, its thread ends and its memory is free.
    """

    work: DeviceWork
    model: Model
    device: ThreadPoolExecutor
    probe_s: float | None
    """Seconds that STRIP takes for one frame; None when the bundle has nothing for it."""
    digest: str = ""
    """Of all files of a published bundle; empty for the processor's own."""
    runs: tuple[RunsOn, ...] = ()
    """What runs its networks."""

    def close(self) -> None:
        """End the thread; what waits for it is cancelled."""
        self.device.shutdown(wait=False, cancel_futures=True)


async def load_serving(
    settings: ProcessorSettings, metrics: ProcessorMetrics, folder: Path, digest: str = ""
) -> Serving:
    """Load the bundle in `folder` and run it before its first frame comes, on the thread that will serve it.

    `digest` is that of a published bundle, for which a trusted signer vouches: code that it brings runs.
    Raises BundleError, ConfigError when the device is not there, and whatever code in the bundle raises.
    """
    initializer = partial(_set_threads, settings.threads)
    device = ThreadPoolExecutor(1, thread_name_prefix="device", initializer=initializer)
    try:
        prepared = asyncio.get_running_loop().run_in_executor(device, _prepare, settings, metrics, folder, bool(digest))
        work, probe_s, runs = await prepared
    except BaseException:
        device.shutdown(wait=False, cancel_futures=True)
        raise
    bundle = work.pipeline.bundle
    model = Model(bundle.model_id, bundle.settings.input.policy, tuple(bundle.settings.classes))
    return Serving(work, model, device, probe_s, digest, runs)


def _set_threads(threads: int) -> None:
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // 2))


def _prepare(
    settings: ProcessorSettings, metrics: ProcessorMetrics, folder: Path, published: bool
) -> tuple[DeviceWork, float | None, tuple[RunsOn, ...]]:
    wish = _cpu_wish(settings) if choose_device(settings.device).type == "cpu" else None
    bundle = load_bundle(folder, choose_device(settings.device), vouched=published)
    program, runs = _on_gpu(settings, bundle) if wish is None else _on_cpu(settings, bundle, wish)
    pipeline = program.pipeline
    work = DeviceWork(pipeline, metrics, program, settings.preview_side)
    probe_s = work.warm(settings.batch_frames, most_pixels(settings))
    if bundle.settings.strip is None:
        log.warning("no frame is checked for triggers: the bundle has no [strip] table", model=bundle.model_id)
    log.info(
        "device is ready",
        model=bundle.model_id,
        device=str(bundle.device),
        runs=[" ".join(each) for each in runs],
        compiled=program.shapes,
        stages=[stage.name for stage in bundle.stages],
    )
    return work, probe_s, runs


def _on_gpu(settings: ProcessorSettings, bundle: Bundle) -> tuple[Program, tuple[RunsOn, ...]]:
    """The chain as torch runs it, compiled."""
    if settings.backend == "openvino":
        raise ConfigError("backend openvino: expected the device cpu, got cuda")
    pipeline = Pipeline(bundle, settings.mode, settings.denoise)
    precision = choose_precision(pipeline, settings.precision)
    names = ("classifier", "restorer") if settings.mode == "default" else ("classifier",)
    program = Program(pipeline, compiles=settings.compile is not False, precision=precision)
    return program, tuple(RunsOn(name, "torch", precision) for name in names)


def _on_cpu(settings: ProcessorSettings, bundle: Bundle, wish: Wish) -> tuple[Program, tuple[RunsOn, ...]]:
    """The chain with its networks run by what is fastest here; nothing is compiled by torch."""
    pipeline, chosen = engines(bundle, wish, settings.mode, settings.denoise)
    return Program(pipeline), chosen.runs


def _cpu_wish(settings: ProcessorSettings) -> Wish:
    """What the settings ask of a CPU; raises ConfigError for what it does not have."""
    if settings.compile:
        raise ConfigError("compile: expected the device cuda, got cpu, where --backend says what runs the networks")
    if settings.precision == "tf32":
        raise ConfigError("precision tf32: expected the device cuda, got cpu")
    wish = Wish(settings.backend, settings.precision)
    check_wish(wish)
    return wish
