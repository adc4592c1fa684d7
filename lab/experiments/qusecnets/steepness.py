"""The same network with a steeper layer: FGSM fails where the sigmoid's derivative vanishes in float32.

The paper sets z = 50 for constant levels and gives a range of 5 to 50. In float32 the derivative of the sigmoid is zero
from about 17 / z above a threshold and 103 / z below it. If every value of a picture is in that range, sign(0) = 0 and
FGSM returns the picture unchanged. This is no defence: the network's answers hardly change with z, only the attacker's
gradient does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.attacks import eot_pgd, make_attack
from lab.attacks.contract import Defended
from lab.attacks.transfer import transfer
from lab.cache import Arrays, Cache, digest
from lab.data import to_frames
from lab.experiments.cells import right
from lab.experiments.qusecnets.judges import Judge
from lab.provenance import made_by
from lab.statistics import wilson
from processors.bundle import Bundle
from processors.stages.preprocess.quantisation import Quantisation, constant_thresholds, quantise

BASE: Final = "mnist-cq2"
STEEP: Final = f"{BASE}-steep"
"""The name of `BASE` with the steepness found by `chosen`. The weights are the same."""
STEEPNESSES: Final = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
EPS: Final = 0.3
STEPS: Final = 40
PICTURES: Final = 200
"""Pictures for every attack of the curve."""
ALLOWED: Final = 0.002
"""Largest cost of a steeper layer in clean accuracy on held-out pictures."""
HELD_OUT, TEST = "held out", "test"
UNMOVED: Final = "unmoved"


@dataclass(frozen=True)
class Point:
    """Accuracies at one steepness. Figures that are not measured on a split are None."""

    network: str
    split: str
    steepness: float
    n: int
    clean: float
    fgsm: float
    unmoved: float
    """Share of the pictures' values that FGSM does not change, because their gradient is zero."""
    near_unmoved: float
    """The same share among the values within ε of a threshold: no others can cross one."""
    pgd: float | None
    """Accuracy under 40 steps with exact gradients."""
    bpda: float | None
    """Accuracy under these steps with the identity's gradient in place of the layer's."""
    transfer: float | None
    """Accuracy under attacks made on the network without the layer."""
    worst: float | None
    """Accuracy under all of them."""
    worst_low: float | None
    worst_high: float | None


def at_steepness(bundle: Bundle, steepness: float, name: str) -> Bundle:
    """Return `bundle`, whose only stage is a constant quantisation, with another steepness z and the name `name`."""
    (layer,) = bundle.settings.preprocess
    assert isinstance(layer, Quantisation)
    assert layer.levels is not None
    steeper = layer.model_copy(update={"steepness": steepness})
    thresholds = constant_thresholds(layer.levels).to(bundle.device)
    slopes = torch.full_like(thresholds, steepness)
    (stage,) = bundle.stages
    stage = replace(stage, run=lambda pictures, seeds: quantise(pictures, thresholds, slopes))
    settings = bundle.settings.model_copy(update={"name": name, "preprocess": [steeper]})
    model_id = f"{name}@{settings.version}+{digest(bundle.model_id, steepness)[:12]}"
    return replace(bundle, model_id=model_id, settings=settings, stages=(stage,))


def curve(judge: Judge, plain: Judge, split: str, count: int, cache: Cache) -> list[Point]:
    """Return a point for each of `STEEPNESSES` on the first `count` pictures; held-out ones skip costly attacks."""
    points = []
    for steepness in STEEPNESSES:
        steeper = replace(judge, bundle=at_steepness(judge.bundle, steepness, judge.name))
        state = digest(steeper.made_from(), plain.made_from(), split, count, steepness, made_by(__name__))
        make = partial(_answers, steeper, plain, split, count)
        found = cache.get(f"{judge.name}/steepness/{split.replace(' ', '-')}-{steepness:g}", state, make)
        points.append(_point(judge.name, split, steepness, found))
    return points


def _answers(judge: Judge, plain: Judge, split: str, count: int) -> Arrays:
    """Return the correct pictures under each attack, and the share of the values that FGSM does not change."""
    pictures = (judge.pictures if split == TEST else judge.known).first(count)
    clean, labels = to_frames(pictures.images, torch.device("cpu")), torch.from_numpy(pictures.labels)
    chance = torch.Generator().manual_seed(judge.seed + 1)

    def whole(frames: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return judge.logits(frames)

    def pgd(through: Defended) -> torch.Tensor:
        return eot_pgd(through, clean, labels, None, eps=EPS, steps=STEPS, samples=1, generator=chance)

    stepped = make_attack("fgsm", EPS)(judge.logits, clean, labels, None, chance).detach()
    shown = {"clean": clean, "fgsm": stepped}
    if split == TEST:
        shown |= {
            "pgd": pgd(whole),
            "bpda": pgd(judge.by_identity),
            "transfer": transfer([plain.logits], clean, labels, None, eps=EPS, generator=chance),
        }
    correct: Arrays = {name: right(whole, frames, labels, chance) for name, frames in shown.items()}
    return correct | {UNMOVED: np.array(_unmoved(judge, clean, labels))}


def _unmoved(judge: Judge, clean: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return the shares of the values, and of those near a threshold, with a gradient of exactly zero.

    FGSM uses the sign of this gradient.
    """
    point = clean.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(judge.logits(point), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, point)
    zero = (gradient == 0).double()
    (layer,) = judge.bundle.settings.preprocess
    assert isinstance(layer, Quantisation)
    assert layer.levels is not None
    near = (clean - constant_thresholds(layer.levels)[:, None]).abs().amin(0) < EPS
    return float(zero.mean()), float(zero[near].mean()) if near.any() else 0.0


def _point(network: str, split: str, steepness: float, found: Arrays) -> Point:
    def share(name: str) -> float | None:
        return float(found[name].mean()) if name in found else None

    attacks: list[NDArray[np.bool_]] = [
        value.astype(np.bool_) for name, value in found.items() if name != UNMOVED and split == TEST
    ]
    unmoved, near = (float(value) for value in found[UNMOVED].astype(np.float64))
    worst = wilson(int(np.all(attacks, 0).sum()), len(attacks[0])) if attacks else None
    return Point(
        network, split, steepness, len(found["clean"]), float(found["clean"].mean()), float(found["fgsm"].mean()),
        unmoved, near, share("pgd"), share("bpda"), share("transfer"),
        worst and worst.value, worst and worst.low, worst and worst.high,
    )  # fmt: skip


def chosen(points: Sequence[Point]) -> float:
    """Return the z at which FGSM has the least effect among held-out points that keep the clean accuracy.

    Among equal points, the smallest z is returned.
    """
    held_out = [point for point in points if point.split == HELD_OUT]
    best = max(point.clean for point in held_out)
    kept = [point for point in held_out if point.clean >= best - ALLOWED]
    return max(kept, key=lambda point: (point.fgsm, -point.steepness)).steepness
