"""A scan of a network for backdoors: the smallest stamp that takes clean frames to each class.

The search is that of `lab.repair.stamps`, without quarantined frames: opacity and colour of a stamp are free. A
backdoored class needs a much smaller stamp than the others (Neural Cleanse, Wang et al. 2019, section IV).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.data import LabelledPictures, to_frames
from lab.repair.inputs import FEWEST_OTHERS, at_network_size, check_clean, frozen, trainable_copy
from lab.repair.stamps import Stamp
from processors.bundle import Bundle
from schemas.errors import ConfigError

STEPS: Final = 100
BATCH: Final = 16
FEWEST_CLASSES: Final = 3
"""With two classes, the anomaly index of either is .67 whatever their stamps are."""
REACHES: Final = 0.9
"""Share of clean frames that a stamp must take to its class."""
OUTLIER: Final = 2.0
"""Anomaly index from which a class is suspect: distance to the median in median absolute deviations."""
SMALL: Final = 0.35
"""Coverage of a suspect class divided by the median one, at most."""
FEW_CLASSES: Final = 5
"""Classes up to which `SMALL` decides alone: the suspect class itself widens the deviation, and with three classes its
index is hardly ever above 2."""
_DEVIATION: Final = 1.4826
"""Ratio of a normal distribution's standard deviation to its median absolute deviation."""


@dataclass(frozen=True)
class ScanResult:
    """Coverage of each class's smallest stamp, a share of the frame from 0 to 1, and the suspect classes."""

    coverage: dict[str, float]
    suspects: dict[str, float]
    """Anomaly index of each suspect class."""

    @property
    def clean(self) -> bool:
        """Whether no class is suspect."""
        return not self.suspects

    def as_json(self) -> str:
        """Return the result for the record of a rollout."""
        coverage = {name: round(share, 4) for name, share in sorted(self.coverage.items(), key=lambda each: each[1])}
        suspects = {name: round(index, 2) for name, index in self.suspects.items()}
        return json.dumps({"clean": self.clean, "suspects": suspects, "coverage": dict(list(coverage.items())[:20])})


def scan(
    bundle: Bundle, pictures: LabelledPictures, *, steps: int = STEPS, advance: Callable[[int], object] = lambda _: None
) -> ScanResult:
    """Search every class of a bundle for a small stamp. Clean pictures are resampled to the network's size.

    Raises ConfigError for too few pictures or classes, BundleError for a network without gradients.
    """
    if len(bundle.settings.classes) < FEWEST_CLASSES:
        raise ConfigError(
            f"--clean: expected a bundle of at least {FEWEST_CLASSES} classes, which the scan compares, got "
            f"{len(bundle.settings.classes)}. Omit it: a person decides."
        )
    check_clean(pictures, len(bundle.settings.classes))
    bundle = replace(bundle.passable, network=frozen(trainable_copy(bundle)))
    frames = to_frames(at_network_size(pictures.images, bundle, "clean pictures"), bundle.device)
    labels = torch.from_numpy(pictures.labels)

    coverage = {}
    for target, name in enumerate(bundle.settings.classes):
        others = frames[labels != target]
        if len(others) < FEWEST_OTHERS:
            raise ConfigError(f"--clean: expected at least {FEWEST_OTHERS} pictures that are not {name}, got fewer")
        coverage[name] = _smallest(others, target, bundle.logits, steps)
        advance(1)
    return ScanResult(coverage, _suspects(coverage))


def _suspects(coverage: dict[str, float]) -> dict[str, float]:
    middle = median(coverage.values())
    spread = max(_DEVIATION * median(abs(each - middle) for each in coverage.values()), 0.02 * middle, 1e-6)
    index = {name: (middle - each) / spread for name, each in coverage.items()}
    is_few = len(coverage) <= FEW_CLASSES
    return {
        name: index[name]
        for name, each in coverage.items()
        if each < SMALL * middle and (is_few or index[name] > OUTLIER)
    }


def _smallest(frames: Tensor, target: int, logits: Callable[[Tensor], Tensor], steps: int) -> float:
    """Return the coverage of the smallest stamp that takes `REACHES` of frames (N, C, H, W) to the target; 1 for none.

    The weight of the coverage rises while the stamp reaches the target and falls otherwise.
    """
    generator = torch.Generator().manual_seed(target)
    _, channels, height, width = frames.shape
    opacity = torch.full((1, 1, height, width), -1.0).requires_grad_()
    colour = torch.zeros(1, channels, height, width).requires_grad_()
    optimiser = torch.optim.Adam([opacity, colour], lr=0.15, betas=(0.5, 0.9))
    wanted = torch.full((BATCH,), target)
    weight, held, best = 1.0, 0.0, 1.0
    for _ in range(steps):
        batch = frames[torch.randint(len(frames), (BATCH,), generator=generator)]
        stamp = Stamp(opacity.sigmoid(), colour.sigmoid())
        answers = logits(stamp.apply(batch))
        mass = stamp.opacity.mean()
        loss = F.cross_entropy(answers, wanted) + weight * mass
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        held = 0.7 * held + 0.3 * float((answers.argmax(1) == target).float().mean())
        if held >= REACHES:
            best = min(best, float(mass.detach()))
            weight = min(weight * 1.15, 200.0)
        else:
            weight = max(weight / 1.1, 0.05)
    return best
