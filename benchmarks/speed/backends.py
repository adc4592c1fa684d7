"""The fastest inference runtime on this CPU: `python -m benchmarks.speed.backends [--out build/backends]`.

The candidates are torch eager, torch.compile, OpenVINO and ONNX Runtime in each of their precisions. The candidates run
the restorer, shipped networks and networks with random weights, with one and two threads and batches of 1, 8 and 64.
All candidates of one network, batch and number of threads take turns in one process. A ratio divides torch eager's
least CPU seconds by the candidate's; the same ratio is computed from wall time.

No setting is derived from this page: a processor measures again when it starts. Finished measurements are kept, so an
interrupted run continues. Each number of threads has its own process, because runtimes keep their threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from lab.networks import imagenet
from processors.bundle import load_bundle, shipped_bundle
from processors.bundle.formats import Network
from processors.device.backends.choose import BackendRequest
from processors.device.backends.engines import Change, engines, restorer_inputs
from processors.device.backends.openvino_cpu import OpenVino
from processors.device.cpu_flags import cpu_flags
from processors.stages.learned import shipped_restorer
from schemas.errors import typed_text
from schemas.runtime.json_files import read_json

CPU: Final = torch.device("cpu")
BATCHES: Final = (1, 8, 64)
THREADS: Final = (1, 2)
TURNS: Final = 9
LARGE_TURNS: Final = 4
"""Turns for batches that take about a second."""
SIDE: Final = 224
TORCH: Final = ("torch float32", "torch bf16 (autocast)", "torch.compile float32")
"""Names of torch's own candidates, which come first in the table."""

Case = tuple[Network, Tensor]
"""A network and 64 or more of its inputs."""


def _bundled(name: str) -> Case:
    bundle = load_bundle(shipped_bundle(name), CPU)
    assert bundle.overlays is not None
    inputs = bundle.normalised(bundle.overlays)
    return bundle.network, inputs.repeat(-(-max(BATCHES) // len(inputs)), 1, 1, 1)


def _random(network: nn.Module) -> Case:
    """Return a network of 224×224 inputs, typical of users' models, with random weights, and smooth pictures."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Activations neither vanish nor explode.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs
    coarse = torch.randn(max(BATCHES), 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return network, nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False)


CASES: Final[dict[str, Callable[[], Case]]] = {
    "restorer 32×32": lambda: (Change(shipped_restorer(CPU)).eval(), restorer_inputs(False)),
    "ResNet-20 32×32": lambda: _bundled("cifar10"),
    "scene's ResNet 32×32": lambda: _bundled("scene"),
    "MobileNetV3-small 224×224": lambda: _random(imagenet.mobilenet_v3_small()),
    "ResNet-18 224×224": lambda: _random(imagenet.resnet18()),
}


def _autocast(network: Network) -> Network:
    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(x)

    return run


def _compiled(network: Network) -> Network:
    compiled: Network = torch.compile(network, dynamic=False)
    return compiled


def _onnx(network: Network, inputs: Tensor, precision: str, folder: Path) -> Network:
    import onnxruntime

    path = folder / "float32.onnx"
    assert isinstance(network, nn.Module)
    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    with torch.inference_mode():
        torch.onnx.export(
            network, (inputs[:2],), path, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes
        )
    if precision == "int8":
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
            def __init__(self) -> None:
                self._left = iter([{"x": some.numpy()} for some in inputs[:64].split(8)])  # type: ignore[no-untyped-call]

            def get_next(self) -> Any:
                return next(self._left, None)

        exact, path = path, folder / "int8.onnx"
        # The runtime's advice for processors with VNNI: unsigned activations, weights quantized by channel.
        quantize_static(
            exact, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

    return run


def candidates(case: Case, compiles: bool, folder: Path) -> Iterator[tuple[str, Callable[[], Network]]]:
    """Yield the name of each runtime and the function that builds the network for it."""
    network, inputs = case
    yield "torch float32", lambda: network
    yield "torch bf16 (autocast)", lambda: _autocast(network)
    if compiles:
        yield "torch.compile float32", lambda: _compiled(network)
    openvino = OpenVino()
    for precision in () if openvino.lacks() else openvino.precisions():
        wanted = f"openvino {precision}"
        yield wanted, lambda p=precision: openvino.convert(network, inputs[:8], False).at(p, inputs[:64])  # type: ignore[misc]
    for each in ("float32", "int8"):
        yield f"onnxruntime {each}", lambda p=each: _onnx(network, inputs, p, folder)  # type: ignore[misc]


@torch.inference_mode()
def measured(case: Case, batch: int, compiles: bool) -> dict[str, dict[str, float | str]]:
    """Return ratios and errors of all candidates on one batch."""
    network, inputs = case
    x = inputs[:batch].contiguous()
    exact = network(x)
    span = float(exact.amax() - exact.amin())
    found: dict[str, dict[str, float | str]] = {}
    ready: dict[str, Network] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in candidates(case, compiles, Path(folder)):
            try:
                start = time.process_time()
                ready[name] = make()
                got = ready[name](x).float()
            except Exception as error:  # a runtime may raise anything
                ready.pop(name, None)
                found[name] = {"failed": typed_text(error)}
                continue
            found[name] = {
                "ready_cpu_s": time.process_time() - start,
                "moved": float((got - exact).abs().amax()) / span,
            }
        least = {name: [float("inf")] * 2 for name in ready}
        turns = LARGE_TURNS if x.numel() > 2**21 else TURNS
        for _ in range(turns):
            for name, run in ready.items():
                cpu, clock = time.process_time(), time.perf_counter()
                run(x)
                taken = time.process_time() - cpu, time.perf_counter() - clock
                least[name] = [min(pair) for pair in zip(least[name], taken, strict=True)]
    for name, (cpu_s, clock_s) in least.items():
        found[name] |= {
            "ratio_cpu": least["torch float32"][0] / cpu_s,
            "ratio_clock": least["torch float32"][1] / clock_s,
        }
    return found


def _keep(out: Path, kind: str, key: str, found: dict[str, Any]) -> None:
    document = _read(out)
    document[kind][key] = found
    report(document, out, shown=False)


def _measure(out: Path, threads: int, compile_batch: int) -> None:
    torch.set_num_threads(threads)
    for name in ("cifar10", "scene"):
        key = f"{name}, {threads} thread{'s' * (threads > 1)}"
        if key not in _read(out)["chains"]:
            found = whole_chain(name)
            _keep(out, "chains", key, found)
            print(key, found, flush=True)
    for name, make in CASES.items():
        case = None
        for batch in BATCHES:
            key = f"{name}, {threads} thread{'s' * (threads > 1)}, batch {batch}"
            if key in _read(out)["rows"]:
                continue
            case = case or make()
            found = measured(case, batch, batch == compile_batch)
            _keep(out, "rows", key, found)
            print(key, {k: round(float(v.get("ratio_cpu", 0)), 2) for k, v in found.items()}, flush=True)


@torch.inference_mode()
def whole_chain(name: str) -> dict[str, Any]:
    """Compare the chosen runtimes with torch: rebuild and classify 64 frames of a shipped bundle, check 16 by STRIP."""
    bundle = load_bundle(shipped_bundle(name), CPU)
    assert bundle.overlays is not None
    ways = {"torch": engines(bundle, BackendRequest("torch")), "auto": engines(bundle, BackendRequest())}
    frames = bundle.overlays.repeat(-(-max(BATCHES) // len(bundle.overlays)), 1, 1, 1)[: max(BATCHES)]
    kept = torch.rand(len(frames), 1, *frames.shape[2:], generator=torch.Generator().manual_seed(0)) >= 0.25
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    for way, (pipeline, _) in ways.items():
        runs["chain", way] = partial(pipeline, frames, kept)
        runs["strip", way] = partial(pipeline.strip, frames[:16])
    least = dict.fromkeys(runs, float("inf"))
    for turn in range(TURNS + 1):
        for key, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                least[key] = min(least[key], time.process_time() - start)
    return {
        "runs": [" ".join(each) for each in ways["auto"][1].runs],
        "chain_ratio_cpu": least["chain", "torch"] / least["chain", "auto"],
        "strip_ratio_cpu": least["strip", "torch"] / least["strip", "auto"],
    }


def _read(out: Path) -> dict[str, Any]:
    return {"machine": _machine(), "chains": {}, "rows": {}} | read_json(out)


def _machine() -> dict[str, Any]:
    flags = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    have = cpu_flags()
    return {
        "processor": platform.machine(), "flags": [flag for flag in flags if flag in have], "cores": os.cpu_count(),
        "torch": torch.__version__,
    }  # fmt: skip


def _table(document: dict[str, Any], loss: dict[str, Any]) -> str:
    known = {name for row in document["rows"].values() for name in row}
    names = [*(name for name in TORCH if name in known), *sorted(known.difference(TORCH))]
    lines = [
        "# What runs a network fastest",
        "",
        f"Made by `python -m benchmarks.speed.backends` on {document['machine']['cores']} cores with "
        f"{', '.join(document['machine']['flags'])}, torch {document['machine']['torch']}.",
        "How many times as fast as torch eager in float32, by the least CPU seconds of each in turns within one",
        "process (in brackets by a clock, which others on the machine disturb); what moves is the largest change of an",
        "output as a share of the range of all, over all rows. – is not measured, or the runtime has no such thing.",
        "",
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for key, row in document["rows"].items():
        cells = [
            f"{row[n]['ratio_cpu']:.2f} ({row[n]['ratio_clock']:.2f})" if "ratio_cpu" in row.get(n, {}) else "–"
            for n in names
        ]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    moved = [
        max((row[n]["moved"] for row in document["rows"].values() if "moved" in row.get(n, {})), default=float("nan"))
        for n in names
    ]
    lines.append("| *moves at most* | " + " | ".join(f"{each:.1g}" for each in moved) + " |")
    lines += [
        "",
        "The whole chain on 64 frames, and STRIP on 16, with what a processor chooses ÷ with torch, in the same way:",
        "",
        "| bundle | chosen | chain | STRIP |",
        "| --- | --- | --- | --- |",
    ]
    for key, found in document["chains"].items():
        ratios = f"{found['chain_ratio_cpu']:.2f} | {found['strip_ratio_cpu']:.2f}"
        lines.append(f"| {key} | {'; '.join(found['runs'])} | {ratios} |")
    if loss:
        lines += ["", *_losses(loss)]
    return "\n".join(lines) + "\n"


def _losses(document: dict[str, Any]) -> list[str]:
    """Return the table of `python -m benchmarks.speed.precision`."""
    names = [key for key in document["rows"][0] if key not in ("drop", "way") and not key.endswith("_lost")]
    lines = [
        f"What the restorer loses, by `{document['command']}`: torch's figure, less the other's.",
        "",
        "| drop | restorer | " + " | ".join(names) + " |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for row in document["rows"]:
        cells = [f"{row[n]:.4g} ({row[n + '_lost']:+.4f})" for n in names]
        lines.append(f"| {row['drop']} | {row['way']} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure the missing cases, then write the table."""
    arguments = command_line(
        __doc__,
        out=Path("build/backends"),
        compile_batch=Option(8, "batch size for which torch.compile is a candidate"),
        table=Option(False, "write the table of the existing results; measure nothing"),
        threads=Option(int, "measure only this number of threads, in this process"),
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = arguments.out / "figures.json"
    if arguments.threads is not None:
        logging.getLogger().setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stderr(sys.stderr):
            warnings.simplefilter("ignore")
            _measure(figures, arguments.threads, arguments.compile_batch)
        return
    for threads in () if arguments.table else THREADS:
        command = [sys.executable, "-m", "benchmarks.speed.backends", "--threads", str(threads)]
        command += ["--out", str(arguments.out), "--compile-batch", str(arguments.compile_batch)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    table = _table(_read(figures), read_json(arguments.out / "loss.json"))
    (arguments.out / "README.md").write_text(table)


if __name__ == "__main__":
    main()
