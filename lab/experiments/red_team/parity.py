"""The lab's attacks beside foolbox's own, on the same network, pictures and targets: success and L2.

    python -m lab.experiments.red_team.parity --images 200

The network is the bare one of a shipped bundle, the pictures are the first of CIFAR-10's test split that it gets right,
the targets are drawn by a seed. Foolbox's attacks are called as its users call them, with the same steps; where foolbox
lacks an attack its nearest relative stands beside it, or nothing. L2 is the mean over the pictures on which both
succeed. Nothing is rounded. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import Logits, eot_pgd, make_attack, transfer
from lab.attacks.contract import margins
from lab.attacks.hop_skip_jump import hop_skip_jump
from lab.attacks.norms import l2
from lab.chance import seeded
from lab.data import read_cifar10_test, to_frames
from lab.experiments.cache import Arrays, Cache, digest
from lab.experiments.provenance import made_by
from lab.experiments.red_team import relatives
from lab.experiments.red_team.relatives import WALK
from lab.experiments.super_iot.judges import Judge, judge_of
from lab.results.csv_rows import read_rows, write_rows
from lab.results.markdown import markdown
from processors.bundle import load_bundle, shipped_bundle
from schemas.runtime.atomic_file import replacing

SEED: Final = 0
EPS: Final = 8 / 255
L2: Final = 0.5
CHUNK: Final = 50
Run = Callable[[Logits, Tensor, Tensor, Tensor | None], Tensor]
"""The network, frames (B, C, H, W), labels (B,) and targets to adversarial frames."""


@dataclass(frozen=True)
class Pair:
    """The lab's attack, and foolbox's by its name in `relatives` with its bound; `beside` says what is not the same."""

    name: str
    targeted: bool
    ours: Run
    theirs: str | None
    eps: float | None = None
    beside: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    attack: str
    targeted: bool
    beside: str
    images: int
    success: float
    success_foolbox: float | None
    l2: float | None
    l2_foolbox: float | None
    seconds: float
    seconds_foolbox: float | None


def _named(name: str, eps: float | None = None) -> Run:
    def run(logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        return make_attack(name, eps)(logits, frames, labels, targets, torch.Generator().manual_seed(SEED))

    return run


def _whole(attack: Callable[..., Tensor], **options: object) -> Run:
    """An attack that takes a whole defence, on one that does nothing."""

    def run(logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        chance = torch.Generator().manual_seed(SEED)
        return attack(lambda each, _: logits(each), frames, labels, targets, generator=chance, **options)

    return run


def _transfer(logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    chance = torch.Generator().manual_seed(SEED)
    return transfer([logits], frames, labels, targets, eps=EPS, generator=chance, steps=10)


PAIRS: Final = (
    Pair("fgsm", False, _named("fgsm", EPS), "fgsm", EPS),
    Pair("ifgsm", True, _named("ifgsm", EPS), "ifgsm", EPS),
    Pair("pgd", True, _named("pgd", EPS), "pgd", EPS),
    Pair("l2pgd", True, _named("l2pgd", L2), "l2pgd", L2),
    Pair("eot-pgd", True, _whole(eot_pgd, eps=EPS, steps=10, samples=1), "pgd", EPS),
    Pair("eot-pgd L2", True, _whole(eot_pgd, eps=L2, steps=20, samples=1, norm="l2"), "l2pgd", L2),
    Pair("transfer", False, _transfer, "mi-fgsm", EPS, "made on the network itself; foolbox's MI-FGSM"),
    Pair("rotation", False, _named("rotation"), "rotation", None, "foolbox fills the corners with black"),
    Pair("deepfool", False, _named("deepfool"), "deepfool"),
    Pair("cw", True, _named("cw"), "cw"),
    Pair("lbfgs", True, _named("lbfgs"), "cw", None, "foolbox has no L-BFGS; its C&W"),
    Pair("jsma", True, _named("jsma"), None, None, "foolbox has none"),
    Pair(
        "hopskipjump L2", False, _whole(hop_skip_jump, norm="l2", steps=WALK[0], evaluations=WALK[1]), "hopskipjump",
        None, "foolbox starts from any other picture, the lab from the nearest",
    ),
)  # fmt: skip


def measure(pair: Pair, judge: Judge, cache: Cache) -> Row:
    """Both of a pair on all the judge's pictures, chunk by chunk."""
    ours = _outcomes(f"lab/{pair.name}", pair.ours, pair.targeted, judge, cache)
    theirs = None
    if pair.theirs is not None:
        run = partial(_foolbox, pair.theirs, pair.eps)
        theirs = _outcomes(f"foolbox/{pair.theirs}", run, pair.targeted, judge, cache)
    both = np.logical_and(ours["success"], True if theirs is None else theirs["success"])
    return Row(
        pair.name,
        pair.targeted,
        pair.beside,
        len(judge.pictures),
        float(ours["success"].mean()),
        None if theirs is None else float(theirs["success"].mean()),
        _mean(ours["l2"][both]),
        None if theirs is None else _mean(theirs["l2"][both]),
        float(ours["seconds"].sum()),
        None if theirs is None else float(theirs["seconds"].sum()),
    )


def _mean(distances: NDArray[np.generic]) -> float | None:
    return float(distances.mean()) if len(distances) else None


def _foolbox(
    name: str, eps: float | None, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None
) -> Tensor:
    with seeded(SEED):
        return relatives.called(name, logits, frames, labels, targets, eps)


def _outcomes(name: str, run: Run, targeted: bool, judge: Judge, cache: Cache) -> Arrays:
    parts = []
    for start in range(0, len(judge.pictures), CHUNK):
        part = slice(start, start + CHUNK)
        made_from = digest(name, targeted, start, judge.made_from(), SEED, made_by("lab.experiments.red_team.parity"))

        def attack(part: slice = part) -> Arrays:
            return _attack(run, targeted, judge, part)

        parts.append(cache.get(f"{name.replace(' ', '-')}/{start:05}", made_from, attack))
        done = np.concatenate([each["success"] for each in parts])
        print(f"{name}: {len(done)} pictures, success {done.mean():.4f}", flush=True)
    return {key: np.concatenate([each[key] for each in parts]) for key in parts[0]}


def _attack(run: Run, targeted: bool, judge: Judge, part: slice) -> Arrays:
    began = time.monotonic()
    frames = to_frames(judge.pictures.images[part], judge.bundle.device)
    labels, targets = torch.from_numpy(judge.pictures.labels[part]), torch.from_numpy(judge.targets[part])
    wanted = targets if targeted else None
    found = run(judge.logits, frames, labels, wanted).detach()
    with torch.no_grad():
        success = margins(judge.logits(found), labels, wanted) > 0
    return {
        "success": success.numpy(),
        "l2": l2(found - frames).numpy(),
        "seconds": np.array([time.monotonic() - began]),
    }


def page(rows: list[Row], judge: Judge, command: str) -> str:
    """The table with what it was made by."""

    def number(value: float | None, places: int = 3) -> str:
        return "–" if value is None else f"{value:.{places}f}"

    def ratio(row: Row) -> str:
        return "–" if row.l2 is None or row.l2_foolbox is None else f"{row.l2 / row.l2_foolbox:.3f}"

    heads = ("attack", "goal", "success", "foolbox", "L2", "foolbox", "ratio", "s", "foolbox", "")
    lines = [
        (
            row.attack, "targeted" if row.targeted else "untargeted", number(row.success),
            number(row.success_foolbox), number(row.l2), number(row.l2_foolbox), ratio(row),
            number(row.seconds, 0), number(row.seconds_foolbox, 0), row.beside,
        )
        for row in rows
    ]  # fmt: skip
    return "\n".join(
        (
            "# The lab's attacks beside foolbox's",
            "",
            f"Network: `{judge.bundle.model_id}`, bare; the first {len(judge.pictures)} pictures of CIFAR-10's test "
            f"split that it gets right; seed {SEED}. L∞ 8/255, L2 .5, 15 degrees; the same steps "
            "on both sides. L2 is the mean over the pictures on which both succeed.",
            "",
            markdown(heads, lines),
            "",
            f"`{command}`",
            "",
        )
    )


def main() -> None:
    """Compare attack after attack, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument(
        "--only", choices=[pair.name for pair in PAIRS], nargs="*", help="compare these attacks, keep the others' rows"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/red-team"))
    parser.add_argument("--cache", type=Path, default=Path("runs/red-team/parity"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    bundle = load_bundle(shipped_bundle("cifar10"), torch.device("cpu"))
    classes = len(bundle.settings.classes)
    pictures = read_cifar10_test(Path(os.environ.get("POINTILLIST_DATA", ".")), classes, 2 * arguments.images)
    judge = judge_of(bundle, pictures, SEED, arguments.images)
    command = f"python -m {__spec__.name} --images {arguments.images}"
    names = [pair.name for pair in PAIRS]
    chosen = names if arguments.only is None else arguments.only
    rows = [
        row for row in read_rows(arguments.out / "parity.csv", Row) if row.attack in names and row.attack not in chosen
    ]
    for pair in PAIRS:
        if pair.name not in chosen:
            continue
        rows.append(measure(pair, judge, Cache(arguments.cache)))
        rows.sort(key=lambda row: names.index(row.attack))
        write_rows(arguments.out / "parity.csv", rows, Row)
        with replacing(arguments.out / "parity.md") as fresh:
            fresh.write_text(page(rows, judge, command), encoding="utf-8")


if __name__ == "__main__":
    main()
