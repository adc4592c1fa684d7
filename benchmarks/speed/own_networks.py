"""The overhead of a processor compared with a user's bare network: `python -m benchmarks.speed.own_networks [--json
FILE]`.

Four cameras of 640×480 × 5 frames/s, r = .25, with scenes or, under `video`, with footage, feed networks of
MobileNetV3-small's and of ResNet-18's shape at 224×224 with random weights. `--networks imagenet` is the general
network as real cameras get it, with the policy `motion`; `--size 768 432` is the size of the sample videos.

`ratio` divides two CPU times. The first is the processor's whole CPU time per frame: Kafka, tags, masks, unpacking or
its decoding processes, resampling, network, verdict, previews. The second is that of the bare network on one picture in
a separate process, twice. It runs on the runtime and precision that the processor has chosen, with the same number of
threads. All processes run on the same few cores. `ratio_at_rate` divides by the bare network's CPU time with as many
pictures a second as the cameras send: between two of them, its caches go cold.
`gathered` is a second run, in which Kafka gathers frames for `--gather` seconds (`gather_s` of the processor).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

import torch
import yaml
from safetensors.torch import save_file

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.general import general_bundle
from benchmarks.harness.system import RunningSystem, undisturbed
from benchmarks.scale.large_camera import write_footage
from benchmarks.speed.pipeline import WARM_S, measure_window
from bundles import GENERAL
from infra.state_folder import Layout
from lab.chance import seeded
from lab.networks import imagenet
from processors.bundle import load_bundle
from processors.device.backends.choose import BackendRequest
from processors.device.backends.contract import BackendName, CpuPrecision
from processors.device.backends.engines import engines
from producers.camera.camera_settings import Profile

NETWORKS: Final = ("mobilenet_v3_small", "resnet18")
CLASSES: Final = 1000
SIZE: Final = (640, 480)
"""Width and height of a camera."""


def random_bundle(folder: Path, network: str) -> Path:
    """Write a bundle of a network of `lab.networks.imagenet` with random weights."""
    folder.mkdir(parents=True)
    with seeded(0):
        module = getattr(imagenet, network)(CLASSES)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "weights.safetensors")
    classes = ", ".join(f'"class-{i}"' for i in range(CLASSES))
    (folder / "model.toml").write_text(
        f'name = "{network.replace("_", "-")}"\nversion = "random"\nformat = "safetensors"\n'
        f'weights = "weights.safetensors"\nfactory = "lab.networks.imagenet:{network}"\nclasses = [{classes}]\n'
        f"[factory_arguments]\nclasses = {CLASSES}\n"
        '[input]\nheight = 224\nwidth = 224\nchannels = 3\npolicy = "resize"\n'
        "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
    )
    return folder


def scenario(file: Path, cameras: int, fps: float, profile: str, size: Sequence[int] = SIZE) -> Path:
    """Write a scenario of cameras with prerendered scenes; under `video`, they decode a sample video."""
    source: dict[str, Any] = {"kind": "scene", "size": list(size), "prerendered": 16}
    if profile == "video":
        footage = write_footage(file.with_suffix(".mp4"), fps, *size)
        source = {"kind": "video", "file": str(footage), "loop": True}
    camera = {
        "name": "cam-{index}",
        "count": cameras,
        "source": source,
        "fps": fps,
        "drop_ratio": 0.25,
        "profile": profile,
    }
    file.write_text(yaml.safe_dump({"site": "local", "cameras": [camera | {"probe_share": 0.0}]}))
    return file


def bare_s(bundle: Path, cores: int, seconds: float, runtime: tuple[str, str], apart_s: float = 0.0) -> float:
    """Return the CPU seconds of the network on one picture, on a backend and precision, in a separate process.

    Pictures come `apart_s` after each other; with zero, the caches hold the network all the time.
    """
    command = [sys.executable, "-m", "benchmarks.speed.own_networks", "--bare", str(bundle)]
    command += ["--cores", str(cores), "--seconds", str(seconds)]
    command += ["--runtime", *runtime, "--apart", str(apart_s)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


@torch.inference_mode()
def _bare(folder: Path, cores: int, seconds: float, runtime: tuple[BackendName, CpuPrecision], apart_s: float) -> float:
    torch.set_num_threads(max(1, cores // 2))
    bundle = engines(load_bundle(folder, torch.device("cpu")), BackendRequest(*runtime), mode="none")[0].bundle
    picture = torch.rand(1, 3, 224, 224)
    for _ in range(5):
        bundle.network_logits(picture)
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.process_time()
        bundle.network_logits(picture)
        taken.append(time.process_time() - begun)
        time.sleep(apart_s)
    return statistics.median(taken)


def chosen_runtime(state: Path) -> tuple[str, str]:
    """Return the backend and the precision that the processor of a running system has chosen for its network."""
    for line in Layout(state).log("processor-1").read_text().splitlines():
        if '"device_ready"' in line:
            _, backend, precision = json.loads(line)["runs"][0].split()
            return backend, precision
    raise RuntimeError(f"{state}: expected the event device_ready in the processor's log, got none")


def processor_s(folder: Path, bundle: Path, arguments: argparse.Namespace, gather_s: float = 0.0) -> dict[str, Any]:
    """Return CPU seconds per frame of each role after the warm-up, the chosen runtime, and the final report."""
    state = folder / f"state-{bundle.name}-{gather_s:g}"
    config = folder / f"gather-{gather_s:g}.toml"
    config.write_text(f"[processor]\ngather_s = {gather_s:g}\n")
    seconds = arguments.seconds
    shown = arguments.fps, arguments.profile, arguments.size
    options = ("--scenario", scenario(folder / "scenario.yaml", arguments.cameras, *shown), "--bundle", bundle)
    timing = ("--seconds", seconds + 2 * WARM_S)
    with RunningSystem(state, *options, *timing, "--config", config, "--no-prometheus") as system:
        window = measure_window(system, seconds)
        runtime = chosen_runtime(state)
        report = undisturbed(system.finish(), system.output())
    return {
        "frames": window.frames,
        "runtime": runtime,
        "cpu_s_per_frame_by_role": {role: used / window.frames for role, used in window.cpu_s.items()},
        "frames_lost": report["frames_lost"],
        "bytes_per_frame": report["bytes_sent"] / report["frames_published"],
        "latency_s": report["latency_s"],
    }


def measured(folder: Path, network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one network: live, then bare twice."""
    bundle = general_bundle(folder) if network == GENERAL else random_bundle(folder / network, network)
    cores, seconds = arguments.cores, arguments.seconds
    live = processor_s(folder, bundle, arguments)
    bare = [bare_s(bundle, cores, seconds / 3, live["runtime"]) for _ in range(2)]
    at_rate = bare_s(bundle, cores, seconds / 3, live["runtime"], 1 / (arguments.cameras * arguments.fps))
    processor = live["cpu_s_per_frame_by_role"]["processor-1"]
    ratio = processor / statistics.mean(bare)
    print(f"{network}: {1000 * processor:.2f} ms per frame, {ratio:.2f} × the bare network", file=sys.stderr)
    gathered: dict[str, Any] = {}
    if arguments.gather:
        found = processor_s(folder, bundle, arguments, arguments.gather)
        spent = found["cpu_s_per_frame_by_role"]["processor-1"]
        gathered = {"gathered": {"gather_s": arguments.gather, "ratio": spent / statistics.mean(bare), "live": found}}
    return gathered | {
        "ratio": ratio,
        "bare_cpu_s": bare,
        "ratio_at_rate": processor / at_rate,
        "bare_at_rate_cpu_s": at_rate,
        "processor_cpu_s": processor,
        "live": live,
    }


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        cameras=4,
        fps=5.0,
        seconds=30.0,
        cores=2,
        profile=Option("video", "profile of the cameras", choices=get_args(Profile)),
        networks=Option(list(NETWORKS), "the networks to measure", several="+"),
        size=Option(list(SIZE), "width and height of a camera", several=2),
        gather=Option(0.2, "seconds for which Kafka gathers frames in a second run; 0 leaves it out"),
        runtime=Option(["torch", "float32"], "backend and precision of --bare", several=2),
        apart=Option(0.0, "seconds between two pictures of --bare"),
        bare=Option(Path, "print the CPU seconds of this bundle's network alone"),
    )
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    if arguments.bare:
        print(_bare(arguments.bare, arguments.cores, arguments.seconds, arguments.runtime, arguments.apart))
        return
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        results = {network: measured(Path(folder), network, arguments) for network in arguments.networks}
    document = {
        "networks": results,
        "machine": machine("torch", cores=arguments.cores),
        "command": arguments.command,
    }
    report(document, arguments.json)


if __name__ == "__main__":
    main()
