"""Accuracies of a bundle's network on labelled pictures: bare, attacked, and with the stages of the defence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import Attack, random_targets, to_8_bits
from lab.data import LabelledPictures
from lab.masks import check_drop_ratio, random_masks
from lab.restoration.psnr import psnr_db
from lab.statistics import Interval, mean_interval, wilson
from processors.pipeline import Pipeline
from processors.stages.drop import drop

Advance = Callable[[int], None]
"""A callback that receives the number of pictures done since the last call."""

Outcomes = NDArray[np.bool_]


@dataclass(frozen=True)
class Evaluation:
    """Outcomes per picture (N,): whether each stage's picture is classified correctly.

    `undefended` is the bare network on the clean whole frame, `plain` on the attacked whole frame. `reconstructed` is
    the chain without its denoising, `denoised` the whole chain. `psnr` and `psnr_denoised` in dB compare the frame
    rebuilt whole with the clean one; the chain itself need not rebuild whole frames. Without an attack, `plain` is
    `undefended`.
    """

    attacked: bool
    undefended: Outcomes
    plain: Outcomes
    reconstructed: Outcomes
    denoised: Outcomes
    psnr: NDArray[np.float64]
    psnr_denoised: NDArray[np.float64]
    linf: NDArray[np.float64]
    l2: NDArray[np.float64]
    seconds: float
    """Seconds of drop, reconstruction, denoising and classification of all pictures."""

    def as_dict(self) -> dict[str, object]:
        """Return the JSON of `pointillist lab evaluate`. Every share has its 95 % interval under `intervals`."""
        correct = self.undefended
        shares = {
            "accuracy.plain": _share(self.plain),
            "accuracy.reconstructed": _share(self.reconstructed),
            "accuracy.denoised": _share(self.denoised),
            "attacked_undefended": _share(self.plain[correct]),
            "relative_accuracy": _share(self.denoised[correct]),
            "restored": _share(self.denoised[correct & ~self.plain]) if self.attacked else None,
        }
        values = {name: None if found is None else found.value for name, found in shares.items()}
        intervals = {name: None if found is None else [found.low, found.high] for name, found in shares.items()}
        psnr = mean_interval(self.psnr)
        return {
            "images": len(correct),
            "correct_undefended": int(correct.sum()),
            "attacked_undefended": values["attacked_undefended"],
            "accuracy": {stage: values[f"accuracy.{stage}"] for stage in ("plain", "reconstructed", "denoised")},
            "relative_accuracy": values["relative_accuracy"],
            "restored": values["restored"],
            "psnr_db": psnr.value,
            "psnr_denoised_db": float(self.psnr_denoised.mean()),
            "frames_per_second": len(correct) / self.seconds,
            "broken_by_the_attack": int((correct & ~self.plain).sum()),
            "linf": float(self.linf.mean()),
            "l2": float(self.l2.mean()),
            "intervals": intervals | {"psnr_db": [psnr.low, psnr.high]},
        }


def _share(outcomes: Outcomes) -> Interval | None:
    """Return the share and its interval; None without pictures."""
    return wilson(int(outcomes.sum()), len(outcomes)) if len(outcomes) else None


@dataclass
class _Collected:
    columns: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value.cpu())

    def column(self, name: str) -> Tensor:
        return torch.cat(self.columns[name])


def evaluate(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    *,
    drop_ratio: float,
    attack: Attack | None = None,
    targeted: bool = True,
    seed: int = 0,
    spread: bool = True,
    advance: Advance = lambda count: None,
) -> Evaluation:
    """Attack the bare network if requested, round to 8 bits, then drop, rebuild and classify every picture.

    The bare network is `Bundle.bare`. The rest includes the bundle's stages, whose draws also follow from the seed. The
    attacker knows the network and its resampling, not the defence. A targeted attack aims at a random other class. The
    same seed gives the same masks and the same attack. Memory is bounded by the batch for any N. Raises ConfigError for
    a drop ratio out of range, and the attack's own errors.
    """
    check_drop_ratio(drop_ratio)
    bundle, device = pipeline.bundle, pipeline.bundle.device
    masks = torch.Generator().manual_seed(seed)
    chance = torch.Generator().manual_seed(seed + 1)
    draws = torch.Generator().manual_seed(seed + 2)
    bare = bundle.bare
    collected = _Collected()
    seconds = 0.0

    def network(frames: Tensor) -> Tensor:
        return bare.logits(bare.prepare(frames))

    for number, (clean, labels) in enumerate(pictures.batches(device)):
        frames = clean
        if attack is not None:
            targets = random_targets(labels, len(bundle.settings.classes), chance) if targeted else None
            frames = to_8_bits(attack(network, clean, labels, targets, chance).detach())
        height, width = clean.shape[2:]
        kept = random_masks(len(clean), height, width, drop_ratio, masks, spread).to(device)
        seeds = bundle.seeds(len(clean), draws)
        with torch.inference_mode():
            if number == 0:
                pipeline(
                    drop(frames, kept), kept, seeds=seeds
                )  # the set-up of the first call is not part of a frame's cost
            start = _now(device)
            found = pipeline(drop(frames, kept), kept, seeds=seeds)
            seconds += _now(device) - start
            filled = pipeline.rebuild(drop(frames, kept), kept, denoised=False)
            rebuilt = found.rebuilt if found.rebuilt is not None else pipeline.rebuild(drop(frames, kept), kept)
            seen, _ = pipeline.network_input(drop(frames, kept), kept, denoised=False)
            change = (frames - clean).flatten(1)
            collected.add(
                undefended=network(clean).argmax(1) == labels,
                plain=network(frames).argmax(1) == labels,
                reconstructed=bundle.logits(seen, seeds).argmax(1) == labels,
                denoised=found.class_id == labels,
                psnr=psnr_db(filled, clean),
                psnr_denoised=psnr_db(rebuilt, clean),
                linf=change.abs().amax(1),
                l2=change.norm(dim=1),
            )
        advance(len(clean))
    flags = {name: collected.column(name).numpy() for name in ("undefended", "plain", "reconstructed", "denoised")}
    numbers = {name: collected.column(name).double().numpy() for name in ("psnr", "psnr_denoised", "linf", "l2")}
    return Evaluation(attack is not None, **flags, **numbers, seconds=seconds)


def _now(device: torch.device) -> float:
    """Return seconds of a monotonic clock, after the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
