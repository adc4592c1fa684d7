"""All measurements of a GPU in one file: `make gpu-report`.

Each step runs in a process of its own within a time limit. A step that fails or takes too long is named, and the next
one starts. The whole takes 25 minutes at most. Without CUDA, the command ends with status 2 and writes no report. With
`--device cpu --short` the same steps run on a CPU in about half a minute: the command works, the figures mean nothing.
Names of steps measure those alone, and write no report unless `--json` names its file.

    tests    the tests of the device
    device   packed 32×32 frames from the host's memory to verdicts; 1920×1080 frames rebuilt whole
    video    640×480 and 1920×1080 frames in H.264 through decoding, resampling by kept pixels, rebuilding and network
    strip    STRIP with all overlays
    harden   one epoch of adversarial training, its two evaluations by the guard included
    up       the whole system: latency, lost frames, memory of the processor

`video` decodes by NVDEC if PyAV offers it, else by one thread for each stream, then classifies. The two take turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import torch
from prometheus_client import CollectorRegistry

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.system import RunningSystem, summary
from benchmarks.pages.figure import RESULTS
from benchmarks.speed import device as on_device
from benchmarks.speed.own_networks import random_bundle
from benchmarks.speed.pipeline import SECRET, pictures
from benchmarks.speed.strip import all_overlays
from lab.data import LabelledPictures, to_frames
from lab.hardening.processes import Processes
from lab.hardening.run import GUARDED, split
from lab.hardening.settings import HardenSettings
from lab.hardening.train import Training
from lab.hardening.training_batches import PictureBatches
from lab.repair.checkpoints import Checkpoint
from lab.repair.inputs import trainable_copy
from processors.arrivals.job import FrameJob, Shape
from processors.arrivals.progress import PartitionProgress
from processors.bundle import load_bundle, shipped_bundle
from processors.device.batch_executor import BatchExecutor, choose_device
from processors.device.compiled_pipeline import CompiledPipeline
from processors.device.precision import choose_precision
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from producers.scene import SceneSimulator
from producers.sources.decoder import decode_video, to_planes
from producers.sources.hardware import accelerator
from producers.video.encoder import software_encoder
from schemas.errors import typed_text
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import dropped_per_block
from schemas.messages.access_unit import Codec
from schemas.pixels.planes import Planes
from schemas.pointillist_pb2 import VIDEO, Frame
from schemas.runtime.json_files import write_json

Found = dict[str, Any]

REPORT: Final = RESULTS / "gpu" / "report.json"

TESTS: Final = ("compiled_pipeline", "precision", "reconstruct", "strip_entropy", "unpack")
"""Tests of the device in `tests/processors`."""
SHORT_TESTS: Final = ("strip_entropy",)
CLIP_FRAMES: Final = 25
SHORT_CLIP_FRAMES: Final = 3
DROP: Final = 0.25
SIZES: Final = {"640x480": (480, 640), "1920x1080": (1080, 1920)}
START_S: Final = 60.0
STOP_S: Final = 15.0
"""Seconds after its time limit in which a step may end what it has started."""


def tests(short: bool) -> Found:
    """Run the tests of the device and return their summary. Raises RuntimeError if one fails."""
    files = [f"tests/processors/test_{name}.py" for name in (SHORT_TESTS if short else TESTS)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", *files]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    line = done.stdout.strip().rpartition("\n")[2].strip("= ")
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {line}")
    return {"summary": line}


def device(short: bool) -> Found:
    """Measure `benchmarks.speed.device`, with few batch sizes."""
    small, large = ((8,), ()) if short else ((256, 4096), (1, 4))
    batches = {on_device.SMALL: small, on_device.LARGE: large}
    return on_device.measured(shipped_bundle("cifar10"), DROP, 0.2 if short else 5.0, batches)


def clip(file: Path, height: int, width: int, frames: int) -> Path:
    """Write this many drawn scenes in H.264."""
    simulator = SceneSimulator(0, 0, (height, width))
    encoder = software_encoder(Codec.H264, height, width, 25.0, 23)
    with file.open("wb") as out:
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(simulator.render(index)[0], format="rgb24")
            planes = to_planes(frame.reformat(format="yuv420p"))
            assert planes is not None
            out.write(encoder.encode(planes))
    encoder.close()
    return file


def stream(file: Path, hardware: str) -> Iterator[Planes]:
    """Yield the planes of a clip's frames, again and again."""
    for each in repeat(file):
        with av.open(str(each), mode="r", hwaccel=accelerator(hardware, each.name)) as container:
            yield from (planes for planes in map(to_planes, decode_video(container, each.name)) if planes is not None)


def video(short: bool) -> Found:
    """Measure batches of one frame of each stream: decoded, then classified as the processor does it."""
    chosen = choose_device("auto")
    streams, rounds = (1, 1) if short else (8, 50)
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        pipeline = Pipeline(load_bundle(random_bundle(Path(folder, "network"), "mobilenet_v3_small"), chosen))
        compiled = CompiledPipeline(pipeline, precision=choose_precision(pipeline))
        executor = BatchExecutor(compiled, ProcessorMetrics(CollectorRegistry()))
        found = {}
        for name, (height, width) in SIZES.items():
            file = clip(Path(folder, f"{name}.h264"), height, width, SHORT_CLIP_FRAMES if short else CLIP_FRAMES)
            hardware = _decoding(file) if chosen.type == "cuda" else "none"
            found[name] = _through(executor, file, Shape(height, width, 3), hardware, streams, rounds)
    return found


def _decoding(file: Path) -> str:
    """Return `cuda` if NVDEC decodes a frame of the file, else `none`."""
    with contextlib.suppress(Exception):  # FFmpeg's errors, and those of its drivers
        next(stream(file, "cuda"))
        return "cuda"
    return "none"


def _through(executor: BatchExecutor, file: Path, shape: Shape, hardware: str, streams: int, rounds: int) -> Found:
    keys = [derive_camera_key(SECRET, CameraId(f"bench/camera-{index}")) for index in range(streams)]
    sources = [stream(file, hardware) for _ in keys]
    decoding_s, whole_s = 0.0, 0.0
    with ThreadPoolExecutor(streams) as threads:
        for turn in range(-1, rounds):
            begun = time.perf_counter()
            planes = list(threads.map(next, sources))
            decoded = time.perf_counter()
            jobs = []
            for key, each in zip(keys, planes, strict=True):
                job = FrameJob(None, 0, 0, 0, 0.0, PartitionProgress(), planes=each)
                # The mask holds for a group of 25 frames.
                seq = turn + 1
                job.key, job.shape = key, shape
                job.frame = Frame(
                    boot_id=1, seq=seq, key_distance=seq % CLIP_FRAMES, profile=VIDEO, height=shape.height,
                    width=shape.width, channels=3, dropped_per_block=dropped_per_block(DROP),
                )  # fmt: skip
                jobs.append(job)
            executor.classify(jobs)
            for job in jobs:
                if job.error is not None:
                    raise job.error
            if turn >= 0:  # the first one warms up
                decoding_s += decoded - begun
                whole_s += time.perf_counter() - begun
    frames = streams * rounds
    return {
        "frames_per_second": frames / whole_s,
        "decoding_frames_per_second": frames / decoding_s,
        "decoding": {"cuda": "NVDEC", "none": f"{streams} threads"}[hardware],
        "streams": streams,
        "precision": executor.compiled.precision,
    }


def strip(short: bool) -> Found:
    """Measure STRIP on the shipped ResNet-20."""
    frames = to_frames(pictures(1 if short else 256), torch.device("cpu"))
    return all_overlays(load_bundle(shipped_bundle("cifar10"), choose_device("auto")), frames, 1 if short else 20)


def harden(short: bool) -> Found:
    """Measure one epoch on drawn pictures with the default settings."""
    bundle = load_bundle(shipped_bundle("scene"), choose_device("auto"))
    settings = HardenSettings(epochs=1, batch=16 if short else 128)
    count = 2 * settings.batch if short else 50_000
    held_out = 8 if short else GUARDED
    drawn = [SceneSimulator(0, 0, (32, 32)).render(index) for index in range(min(count, 4096) + held_out)]
    images, labels = np.stack([each for each, _ in drawn]), np.array([label for _, label in drawn])
    places = np.arange(count + held_out) % len(drawn)
    every = LabelledPictures("drawn", images[places], labels[places])
    trained, kept = split(every, held_out, settings.batch)
    training = Training(
        bundle, trainable_copy(bundle), PictureBatches(trained, settings.batch, 0),
        (to_frames(kept.images, bundle.device), torch.from_numpy(kept.labels)), settings,
        checkpoint=Checkpoint(None, ""), processes=Processes(), report=print, advance=lambda steps: None,
    )  # fmt: skip
    begun = time.perf_counter()
    training.run()
    on_device.wait(bundle.device)
    seconds = time.perf_counter() - begun
    return {"epoch_s": seconds, "pictures": count, "pictures_per_second": count / seconds, "batch": settings.batch}


def up(short: bool) -> Found:
    """Run the whole system and return the report with the processor's memory."""
    cameras, fps, seconds, more = (2, 2, 5, ("--plain",)) if short else (32, 8, 60, ())
    before = _gpu_bytes_used()
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        state = Path(folder, "state")
        options = ("--cameras", cameras, "--fps", fps, "--seconds", seconds, "--no-prometheus")
        with RunningSystem(state, *options, *more) as system:
            system.await_role("fleet")
            time.sleep(seconds / 2)
            resident, used = system.resident_bytes("processor-1"), _gpu_bytes_used()
            result = system.finish()
        found = summary(result, state)
    return found | {"cameras": cameras, "fps": fps, "processor_bytes": resident, "processor_gpu_bytes": used - before}


def _gpu_bytes_used() -> int:
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


@dataclass(frozen=True)
class Step:
    """A step: what it runs, and its time limit on a GPU."""

    run: Callable[[bool], Found]
    limit_s: float


STEPS: Final = {
    "tests": Step(tests, 200),
    "device": Step(device, 400),
    "video": Step(video, 180),
    "strip": Step(strip, 90),
    "harden": Step(harden, 180),
    "up": Step(up, 200),
}
"""The steps in their order. Their limits sum up to less than 25 minutes, with `STOP_S` for each."""


def in_process(run: Callable[[], Found], limit_s: float) -> Found:
    """Return the outcome of `run` in a forked process, with its seconds, and its result or its error."""
    begun = time.monotonic()
    found: Found = {"outcome": "failed", "error": "the process ended without a result"}
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        file = Path(folder, "found.json")
        # A new interpreter would import torch again. CUDA works in a fork, because this process does not use it.
        process = get_context("fork").Process(target=_outcome, args=(run, file))
        process.start()
        try:
            process.join(limit_s)
            if process.is_alive():
                found["error"] = f"expected to end within {limit_s:g} s"
            elif file.exists():
                found = json.loads(file.read_text())
        finally:  # also after Ctrl-C, which does not reach the step's own session
            if process.is_alive():
                _stop(process)
    return found | {"seconds": round(time.monotonic() - begun, 1)}


def _stop(process: ForkProcess) -> None:
    """End a process and its children: politely, then by force."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.ident or 0, signum)
        process.join(STOP_S)


def _outcome(run: Callable[[], Found], file: Path) -> None:
    """Write the result of `run` with the peak memory, or its error."""
    os.setsid()
    found: Found = {"outcome": "measured"}
    try:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        found["result"] = run()
        found["result"]["resident_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if torch.cuda.is_available():
            found["result"]["gpu_bytes"] = torch.cuda.max_memory_reserved()
    except Exception as error:  # a step may raise anything: drivers, compilers, missing programs
        found = {"outcome": "failed", "error": typed_text(error)}
    write_json(file, found)


def _name() -> Found:
    return {"name": torch.cuda.get_device_name()}


def main() -> int:
    """Run all steps and write the report; return 1 if a step fails, 2 without a device."""
    arguments = command_line(
        __doc__,
        *STEPS,
        json=Option(
            Path, "file of the report (default: docs/results/gpu/report.json; with --device cpu or --short none)"
        ),
        device=Option("cuda", "device of the measurements", choices=("cuda", "cpu")),
        short=Option(False, "run each step with little work, to try the command"),
    )
    on_gpu = arguments.device == "cuda"
    if on_gpu:
        name = in_process(_name, START_S).get("result", {}).get("name")
        if name is None:
            print("device: expected CUDA, got none that torch finds. Try the command by --device cpu --short.")
            return 2
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        name = platform.machine()
    steps: dict[str, Found] = {}
    asked = {title: step for title, step in STEPS.items() if title in (arguments.names or STEPS)}
    for title, step in asked.items():
        steps[title] = in_process(partial(step.run, arguments.short), step.limit_s)
        print(f"{title}: {steps[title]['outcome']} {steps[title].get('error', '')}".rstrip(), flush=True)
    document = {
        "device": name,
        "short": arguments.short,
        "outcomes": {title: {key: step[key] for key in step if key != "result"} for title, step in steps.items()},
        "results": {title: step["result"] for title, step in steps.items() if "result" in step},
        "machine": machine("torch", "av"),
    }
    report(document, arguments.json or (REPORT if on_gpu and asked == STEPS and not arguments.short else None))
    return int(len(document["results"]) < len(asked))


if __name__ == "__main__":
    sys.exit(main())
