"""The overhead of a processor compared with a user's bare network: `python -m benchmarks.speed.own_networks [--json
FILE]`.

Four cameras of 640×480 × 5 frames/s, r = .25, feed networks of MobileNetV3-small's and of ResNet-18's shape at 224×224
with random weights. `ratio` divides two CPU times. The first is the processor's whole CPU time per frame: Kafka, tags,
masks, unpacking, resampling, network, verdict, previews. The second is that of the bare network on one picture in a
separate process. It runs with the same runtime and number of threads as in the processor, and is measured before and
after. All processes run on the same few cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from safetensors.torch import save_file

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.system import RunningSystem
from benchmarks.speed.pipeline import WARM_S, recorded
from infra.state_folder import Layout
from lab.chance import seeded
from lab.networks import imagenet
from processors.bundle import load_bundle

NETWORKS: Final = ("mobilenet_v3_small", "resnet18")
CLASSES: Final = 1000


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


def scenario(file: Path, cameras: int, fps: float) -> Path:
    """Write a scenario of 640×480 cameras with prerendered scenes."""
    source = {"kind": "scene", "size": [640, 480], "prerendered": 16}
    camera = {"name": "cam-{index}", "count": cameras, "source": source, "fps": fps, "drop_ratio": 0.25}
    file.write_text(yaml.safe_dump({"site": "local", "cameras": [camera | {"probe_share": 0.0}]}))
    return file


def bare_s(bundle: Path, cores: int, seconds: float) -> float:
    """Return the CPU seconds of the network on one picture, in a separate process."""
    command = [sys.executable, "-m", "benchmarks.speed.own_networks", "--bare", str(bundle)]
    command += ["--cores", str(cores), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


@torch.inference_mode()
def _bare(folder: Path, cores: int, seconds: float) -> float:
    torch.set_num_threads(max(1, cores // 2))
    bundle = load_bundle(folder, torch.device("cpu"))
    picture = torch.rand(1, 3, 224, 224)
    for _ in range(5):
        bundle.network_logits(picture)
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.process_time()
        bundle.network_logits(picture)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def processor_s(folder: Path, bundle: Path, cameras: int, fps: float, seconds: float) -> dict[str, Any]:
    """Return CPU seconds per frame of each role after the warm-up, and the final report."""
    state = folder / f"state-{bundle.name}"
    options = ("--scenario", scenario(folder / "scenario.yaml", cameras, fps), "--bundle", bundle)
    with RunningSystem(state, *options, "--seconds", seconds + 2 * WARM_S, "--no-prometheus") as system:
        system.await_role("fleet")
        while recorded(Layout(state)) == 0:
            time.sleep(0.2)
        time.sleep(WARM_S)
        before = recorded(Layout(state)), system.cpu_seconds()
        time.sleep(seconds)
        after = recorded(Layout(state)), system.cpu_seconds()
        report = system.finish()
    frames = after[0] - before[0]
    return {
        "frames": frames,
        "cpu_s_per_frame_by_role": {role: (after[1][role] - used) / frames for role, used in before[1].items()},
        "frames_lost": report["frames_lost"],
        "latency_s": report["latency_s"],
    }


def measured(folder: Path, network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one network: bare, live, bare again."""
    bundle = random_bundle(folder / network, network)
    cores, seconds = arguments.cores, arguments.seconds
    bare = [bare_s(bundle, cores, seconds / 3)]
    live = processor_s(folder, bundle, arguments.cameras, arguments.fps, seconds)
    bare.append(bare_s(bundle, cores, seconds / 3))
    processor = live["cpu_s_per_frame_by_role"]["processor-1"]
    ratio = processor / statistics.mean(bare)
    print(f"{network}: {1000 * processor:.2f} ms per frame, {ratio:.2f} × the bare network", file=sys.stderr)
    return {"ratio": ratio, "bare_cpu_s": bare, "processor_cpu_s": processor, "live": live}


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        cameras=4,
        fps=5.0,
        seconds=30.0,
        cores=2,
        bare=Option(Path, "print the CPU seconds of this bundle's network alone"),
    )
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    if arguments.bare:
        print(_bare(arguments.bare, arguments.cores, arguments.seconds))
        return
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        results = {network: measured(Path(folder), network, arguments) for network in NETWORKS}
    document = {
        "networks": results,
        "machine": machine("torch", cores=arguments.cores),
        "command": f"python -m benchmarks.speed.own_networks --seconds {arguments.seconds:g} "
        f"--cameras {arguments.cameras}",
    }
    report(document, arguments.json)


if __name__ == "__main__":
    main()
