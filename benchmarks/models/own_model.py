"""Time from an ONNX file to a running fleet: `python -m benchmarks.models.own_model [--out FOLDER] [--cores N]`.

Two typical classifiers of users are measured. The first is the shipped network of scenes, exported to ONNX for a batch
of one as exporters do by default, with 240 labelled pictures. The second is a network of MobileNetV3-small's shape at
224×224 with random weights, with 60 unlabelled pictures.

`running_s` is the time from the start of the command, `pointillist bundle create --onnx … --up`, to the first frame in
the database that this network has judged. `created_s` is the time to the bundle, and `created_cpu_s` its CPU time over
all cores. Exports and pictures are made in advance.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from PIL import Image
from torch import nn

from benchmarks.harness.command_line import command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.records import rows_so_far
from infra.local.process import COMMAND, spawn
from infra.state_folder import Layout
from lab.chance import seeded
from lab.networks.imagenet import mobilenet_v3_small
from processors.bundle import Bundle, load_bundle, shipped_bundle
from producers.scene import SceneSimulator
from schemas.runtime.atomic_file import write_text

LIMIT_S: Final = 30.0
_PICTURES: Final = {"scene": 240, "mobilenet": 60}
_RUN_S: Final = 8
_PATIENCE_S: Final = 180.0


def export(network: nn.Module, side: int, file: Path) -> Path:
    """Export the network to ONNX, for one picture at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, side, side),), file, dynamo=True, verbose=False)
    return file


def scene_pictures(folder: Path, names: list[str], count: int, size: int, labelled: bool) -> Path:
    """Write pictures of the simulator, in sub-folders named by class or in one folder."""
    simulator = SceneSimulator(11, 0, (size, size), 3)
    for index in range(count):
        # The simulator shows each place for 12 frames: skip to other places and signs.
        picture, label = simulator.render(12 * index)
        inside = folder / names[label] if labelled else folder
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(inside / f"{index}.png")
    return folder


def prepared(folder: Path, which: str) -> list[str]:
    """Create the files of one of the two models, and return its options of `bundle create`."""
    folder.mkdir(parents=True)
    scene = load_bundle(shipped_bundle("scene"), torch.device("cpu"))
    if which == "scene":
        assert isinstance(scene.network, nn.Module)
        names, file = list(scene.settings.classes), export(scene.network, 32, folder / "network.onnx")
        normalised = ["--mean", _numbers(scene, "mean"), "--std", _numbers(scene, "std")]
    else:
        with seeded(0):
            network = mobilenet_v3_small(1000).eval()
        names, file = [f"class-{number}" for number in range(1000)], export(network, 224, folder / "network.onnx")
        normalised = ["--preset", "imagenet"]
    (folder / "names.txt").write_text("\n".join(names))
    signs = list(scene.settings.classes)
    pictures = scene_pictures(folder / "pictures", signs, _PICTURES[which], 64, labelled=which == "scene")
    return [
        "--onnx", str(file), "--classes", str(folder / "names.txt"), "--calibrate", str(pictures), *normalised,
    ]  # fmt: skip


def _numbers(bundle: Bundle, key: str) -> str:
    return ",".join(str(each) for each in getattr(bundle.settings.input, key))


def measured(folder: Path, which: str) -> dict[str, Any]:
    """Time one command from its start."""
    options, state, out = prepared(folder / which, which), folder / which / "state", folder / which / "bundle"
    command = [*COMMAND, "bundle", "create", *options, "--out", str(out), "--up", "--"]
    command += ["--state", str(state), "--cameras", "8", "--seconds", str(_RUN_S), "--no-prometheus"]
    log = folder / which / "log"
    begun = time.time()
    with log.open("wb") as output:
        process = spawn(command, output)
    created = first = None
    created_cpu_s = 0.0
    while process.poll() is None and time.time() - begun < _PATIENCE_S:
        if created is None and (out / "model.toml").exists():
            created, created_cpu_s = time.time() - begun, cpu_seconds(process.pid)
        first = first or first_record(state)
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
    status = process.wait()
    log_lines = log.read_text().splitlines()
    if status or first is None or created is None:
        raise RuntimeError(f"{which}: expected frames and status 0, got status {status}: {log_lines[-5:]}")
    model, recorded_ms = first
    return {
        "status": status, "created_s": round(created, 2), "created_cpu_s": round(created_cpu_s, 2),
        "running_s": round(recorded_ms / 1000 - begun, 2),
        "model": model, "said": [line for line in log_lines if line.startswith(("right", "STRIP"))],
    }  # fmt: skip


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended, such as the trial of a network."""
    return sum(psutil.Process(pid).cpu_times()[:4])


def first_record(state: Path) -> tuple[str, int] | None:
    """Return the model and the recording time (Unix, ms) of the first frame; None before it exists."""
    query = "select model_id, recorded_ms from frames order by recorded_ms limit 1"
    return next(((str(model), int(at_ms)) for model, at_ms in rows_so_far(Layout(state).database, query)), None)


def page(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = ["| network | bundle made after | of CPU | first verdict after | bound |", "| --- " * 5 + "|"]
    for name, each in document["networks"].items():
        times = " | ".join(f"{each[key]:.1f} s" for key in ("created_s", "created_cpu_s", "running_s"))
        rows.append(f"| {name} | {times} | {LIMIT_S:.0f} s |")
    notes = [f"- {name}: {'; '.join(each['said'])}" for name, each in document["networks"].items()]
    return "\n".join(
        ["# An ONNX classifier becomes a running fleet, by one command", "", f"`{document['command']}`, on "
         f"{document['machine']['cores']} cores.", "", *rows, "", *notes, ""]
    )  # fmt: skip


def main() -> None:
    """Measure, print, and write the page with its JSON."""
    arguments = command_line(__doc__, out=Path, cores=int)
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory(prefix="pointillist-own-model-") as folder:
        networks = {which: measured(Path(folder), which) for which in _PICTURES}
    cores = len(os.sched_getaffinity(0))
    document = {
        "networks": networks,
        "machine": machine("torch", "numpy", cores=cores),
        "command": arguments.command,
    }
    sys.stdout.write(page(document))
    if arguments.out is not None:
        write_text(arguments.out / "README.md", page(document))
        report(document, arguments.out / "own-model.json", shown=False)


if __name__ == "__main__":
    main()
