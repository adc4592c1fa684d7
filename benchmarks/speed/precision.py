"""Accuracy loss of the restorer in reduced precision: `python -m benchmarks.speed.precision [--out FILE]`.

CIFAR-10's test pictures pass through camera masks and are rebuilt by the restorer. OpenVINO runs it in float32, bf16
and 8-bit integers (calibrated on the shipped pictures, as in a processor), and torch runs it as the reference. The
result holds the mean PSNR and the accuracy of the shipped networks, clean and under PGD through the bare network.
Losses are torch's figure minus the other's, on the same pictures under the same masks. No setting is derived from them.
`large` is the mean PSNR of the restorer of large frames, on the crops held out of its training. An interrupted command
continues when it is run again.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import data_file, data_folder
from benchmarks.harness.document import report
from lab.attacks import make_attack, to_8_bits
from lab.masks import random_masks
from lab.restoration.psnr import psnr_db
from lab.training.filler import held_out_crops
from processors.bundle import Bundle, load_bundle, shipped_bundle
from processors.device.backends.choose import BackendRequest
from processors.device.backends.engines import restorers
from processors.stages.learned import Restorers, reconstruct_learned
from schemas.runtime.json_files import read_json

CPU: Final = torch.device("cpu")
RATIOS: Final = (0.25, 0.5)
PRECISIONS: Final = ("float32", "bf16", "int8")
LARGE_WAYS: Final[tuple[Literal["torch", "float32", "int8"], ...]] = ("torch", "float32", "int8")
BUNDLES: Final = ("cifar10", "cifar10-hardened")
EPSILON: Final = 0.01
AT_ONCE: Final = 256
LARGE_WEIGHTS: Final = Path(str(files("bundles"))) / "restorer" / "large.safetensors"
"""Rows measured with other weights than these are measured again."""


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` test pictures (N, 3, 32, 32) in [0, 1] and their classes (N,)."""
    with np.load(data_file("cifar10.npz")) as data:
        images, labels = data["test_x"][:count], data["test_y"][:count]
    frames = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
    return frames, torch.from_numpy(labels.astype(np.int64))


def attacked(bundle: Bundle, frames: Tensor, labels: Tensor) -> Tensor:
    """Return the frames under untargeted PGD of `EPSILON`, rounded to 8 bits."""
    generator = torch.Generator().manual_seed(0)
    attack = make_attack("pgd", EPSILON)
    parts = zip(frames.split(AT_ONCE), labels.split(AT_ONCE), strict=True)  # type: ignore[no-untyped-call]  # no annotations
    return torch.cat([to_8_bits(attack(bundle.logits, *part, None, generator).detach()) for part in parts])


@torch.inference_mode()
def rebuilt(frames: Tensor, kept: Tensor, networks: Restorers) -> Tensor:
    """Return the frames after the drop and the restorer."""
    parts = zip(frames.split(AT_ONCE), kept.split(AT_ONCE), strict=True)  # type: ignore[no-untyped-call]  # no annotations
    return torch.cat([reconstruct_learned(*part, networks.small) for part in parts])


@torch.inference_mode()
def right(bundle: Bundle, frames: Tensor, labels: Tensor) -> float:
    """Return the accuracy."""
    logits = torch.cat([bundle.logits(some) for some in frames.split(AT_ONCE)])  # type: ignore[no-untyped-call]  # no annotations
    return float((logits.argmax(1) == labels).float().mean())


@torch.inference_mode()
def large_rows() -> list[dict[str, Any]]:
    """Return PSNR and loss of the restorer of large frames on held-out crops, for each runtime and drop ratio."""
    crops = held_out_crops(data_folder()).float() / 255
    rows: list[dict[str, Any]] = []
    for ratio in RATIOS:
        kept = random_masks(len(crops), crops.shape[2], crops.shape[3], ratio, torch.Generator().manual_seed(1))
        exact = None
        for way in LARGE_WAYS:
            request = BackendRequest("torch") if way == "torch" else BackendRequest("openvino", way)
            network = restorers(request, 1)[1].large
            parts = zip(crops.split(32), kept.split(32), strict=True)  # type: ignore[no-untyped-call]  # no annotations
            found = torch.cat([reconstruct_learned(frames * mask, mask, network) for frames, mask in parts])
            decibels = float(psnr_db(found, crops).mean())
            exact = decibels if exact is None else exact
            rows.append({"drop": ratio, "way": way, "psnr_db": decibels, "psnr_db_lost": exact - decibels})
            print(f"large, r = {ratio}, {way}: {decibels:.4f} dB, {exact - decibels:.4f} lost", flush=True)
    return rows


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__, images=10000, attacked=1000, out=Path("build/backends/loss.json"))
    torch.set_num_threads(1)
    command = f"python -m benchmarks.speed.precision --images {arguments.images} --attacked {arguments.attacked}"
    document = _read(arguments.out, command)
    weights = hashlib.sha256(LARGE_WEIGHTS.read_bytes()).hexdigest()
    if document.get("large_weights") != weights:
        document |= {"large_weights": weights, "large": large_rows()}
        report(document, arguments.out, shown=False)
    done = {(row["drop"], row["way"]) for row in document["rows"]}
    ways = {
        "torch": BackendRequest("torch"),
        **{precision: BackendRequest("openvino", precision) for precision in PRECISIONS},
    }
    left = [(ratio, way) for ratio in RATIOS for way in ways if (ratio, way) not in done]
    if not left:
        return
    frames, labels = pictures(arguments.images)
    bundles = {name: load_bundle(shipped_bundle(name), CPU) for name in BUNDLES}
    few = slice(0, arguments.attacked)
    sets = {name: attacked(bundle, frames[few], labels[few]) for name, bundle in bundles.items()}
    document |= {"images": len(frames), "attacked_images": len(labels[few])}
    for ratio, way in left:
        kept = random_masks(len(frames), 32, 32, ratio, torch.Generator().manual_seed(1))
        networks = restorers(ways[way], 1)[1]
        found = rebuilt(frames, kept, networks)
        figures: dict[str, float] = {"psnr_db": float(psnr_db(found, frames).mean())}
        for name, bundle in bundles.items():
            figures[f"{name}_clean"] = right(bundle, found, labels)
            figures[f"{name}_pgd"] = right(bundle, rebuilt(sets[name], kept[few], networks), labels[few])
        exact = next((row for row in document["rows"] if row["drop"] == ratio), figures)
        lost = {f"{key}_lost": exact[key] - value for key, value in figures.items()}
        document["rows"].append({"drop": ratio, "way": way, **figures, **lost})
        report(document, arguments.out, shown=False)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in (figures | lost).items())
        print(f"r = {ratio}, {way}: {shown}", flush=True)


def _read(out: Path, command: str) -> dict[str, Any]:
    """Return the earlier results of this command, or an empty document if the file is of another command."""
    empty: dict[str, Any] = {"command": command, "epsilon": EPSILON, "torch": torch.__version__, "rows": []}
    kept = read_json(out)
    same = all(kept.get(name) == empty[name] for name in ("command", "epsilon", "torch"))
    return kept if same else empty


if __name__ == "__main__":
    main()
