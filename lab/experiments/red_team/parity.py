"""A comparison of the lab's attacks with foolbox's, on the same network, pictures and targets: success and L2.

The network is the bare one of a shipped bundle. The pictures are the first of CIFAR-10's test split that it classifies
correctly, and a seed draws the targets. Foolbox's attacks are called through its public interface, with the same steps.
If foolbox lacks an attack, its nearest relative is used, or none. L2 is the mean over the pictures on which both
succeed. Nothing is rounded. An interrupted measurement resumes after its last chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import Logits, eot_pgd, make_attack, transfer
from lab.attacks.contract import margins
from lab.attacks.hop_skip_jump import hop_skip_jump
from lab.attacks.norms import l2
from lab.cache import Arrays, Cache, digest
from lab.chance import seeded
from lab.data import to_frames
from lab.experiments.harness.page import Column, table
from lab.experiments.red_team import relatives
from lab.experiments.red_team.relatives import WALK
from lab.experiments.super_iot.judges import Judge
from lab.provenance import made_by

SEED: Final = 0
EPS: Final = 8 / 255
L2: Final = 0.5
CHUNK: Final = 50
Run = Callable[[Logits, Tensor, Tensor, Tensor | None], Tensor]
"""A function from the network, frames (B, C, H, W), labels (B,) and targets to adversarial frames."""


@dataclass(frozen=True)
class Pair:
    """An attack of the lab and its counterpart in foolbox, with their bound and a list of their differences."""

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
    """Return a run of an attack on a whole defence, with a defence that does nothing."""

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
    """Run both attacks of a pair on all the judge's pictures, chunk by chunk, and return their row."""
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
        made_from = digest(
            name, targeted, start, judge.made_from(), SEED, made_by(f"{__name__}:measure", f"{__name__}:PAIRS")
        )

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


def _number(value: float | None, places: int = 3) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def _ratio(row: Row) -> str:
    return "–" if row.l2 is None or row.l2_foolbox is None else f"{row.l2 / row.l2_foolbox:.3f}"


COLUMNS: tuple[Column[Row], ...] = (
    Column("attack", lambda row: row.attack),
    Column("goal", lambda row: "targeted" if row.targeted else "untargeted"),
    Column("success", lambda row: _number(row.success)),
    Column("foolbox", lambda row: _number(row.success_foolbox)),
    Column("L2", lambda row: _number(row.l2)),
    Column("foolbox", lambda row: _number(row.l2_foolbox)),
    Column("ratio", _ratio),
    Column("s", lambda row: _number(row.seconds, 0)),
    Column("foolbox", lambda row: _number(row.seconds_foolbox, 0)),
    Column("", lambda row: row.beside),
)


def page(rows: list[Row], model_id: str, command: str) -> list[str]:
    """Return the table with the command that makes it."""
    return [
        "# The lab's attacks next to foolbox's",
        f"Network: `{model_id}`, bare; the first {rows[0].images} pictures of CIFAR-10's test "
        f"split that it gets right; seed {SEED}. L∞ 8/255, L2 .5, 15 degrees; the same steps "
        "on both sides. L2 is the mean over the pictures on which both succeed.",
        table(COLUMNS, rows),
        f"`{command}`",
    ]
