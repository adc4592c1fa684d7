"""The compared functions: the paper's two steps, alone and recombined, and the other defences of Table 5.

Each function has the backward pass of an attacker who knows it. If a step has a gradient, the backward pass is exact:
the gradient of a displaced pixel goes to its origin. The identity replaces rounding. The backward pass uses the draws
of the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks.bpda import bpda, identity
from lab.attacks.contract import Defended, Logits
from lab.baselines import Baseline, FeatureDistillation, Jpeg, PixelDeflection, Shield
from lab.cache import digest
from processors.stages.preprocess.bit_depth import reduce_depth
from processors.stages.preprocess.contract import fresh_seeds
from processors.stages.preprocess.dct_quantisation import dct_quantise
from processors.stages.preprocess.grid_distortion import distort

NONE: Final = "none"
OURS: Final = "ours"


@dataclass(frozen=True)
class Function:
    """A preprocessing function `forward`, and a function `backward` with the gradient for an adaptive attacker."""

    name: str
    forward: Baseline
    backward: Baseline
    random: bool
    made_from: str

    def before(self, logits: Logits) -> Defended:
        """Return the network behind the function, as deployed."""
        return lambda frames, generator: logits(self.forward(frames, generator))

    def by_identity(self, logits: Logits) -> Defended:
        """Return the network with the function, and the identity as the function's gradient: the paper's BPDA."""
        straight = bpda(self.forward, identity)
        return lambda frames, generator: logits(straight(frames, generator))

    def known(self, logits: Logits) -> Defended:
        """Return the network with the function as an adaptive attacker differentiates it."""
        if self.backward is self.forward:
            return self.before(logits)
        approximated = bpda(self.forward, self.backward)
        return lambda frames, generator: logits(approximated(frames, generator))

    def by(self, backward: Baseline, logits: Logits) -> Defended:
        """Return the network with the function and a backward pass chosen by the attacker, such as a learned one."""
        approximated = bpda(self.forward, backward)
        return lambda frames, generator: logits(approximated(frames, generator))


@dataclass(frozen=True)
class Settings:
    """The paper's settings: `steps` (8, 8) on the scale 0–255, the distortion limit δ and the grid's cell d."""

    steps: tuple[tuple[float, ...], ...]
    limit: float
    cell: int

    @cached_property
    def table(self) -> Tensor:
        """The `steps` in the form of the stage's argument."""
        return torch.tensor(self.steps)

    def quantise(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the frames after step 1, which draws nothing."""
        return dct_quantise(frames, self.table)

    def distort(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the frames after step 2. The gradient goes to the source pixels of the output."""
        return distort(frames, fresh_seeds(len(frames), generator=generator), self.limit, self.cell)


def rand(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return frames after Rand (Xie et al. 2018) as released: enlarged, padded with .5 at random, and resized back.

    299 becomes 299 to 399 and then 400. Other sizes are in proportion, with one size per picture. Differentiable.
    """
    side = frames.shape[2]
    largest = -(-side * 400 // 299)
    sizes = torch.randint(side, largest, (len(frames),), generator=generator).tolist()
    shown = []
    for number, size in enumerate(sizes):
        top, left = torch.randint(0, largest - size, (2,), generator=generator).tolist()
        enlarged = F.interpolate(frames[number : number + 1], (size, size), mode="bilinear", align_corners=False)
        padded = F.pad(enlarged, (left, largest - size - left, top, largest - size - top), value=0.5)
        shown.append(F.interpolate(padded, (side, side), mode="bilinear", align_corners=False))
    return torch.cat(shown)


def _then(first: Baseline, second: Baseline) -> Baseline:
    return lambda frames, generator: second(first(frames, generator), generator)


def functions(settings: Settings) -> dict[str, Function]:
    """Return every function by its name in the tables."""
    fd = FeatureDistillation()

    def depth(frames: Tensor, generator: torch.Generator) -> Tensor:
        return reduce_depth(frames, 3)

    def made(name: str, forward: Baseline, backward: Baseline, random: bool) -> Function:
        return Function(name, forward, backward, random, digest(name, settings))

    step1, step2 = settings.quantise, settings.distort
    every = (
        made(NONE, identity, identity, random=False),
        made(OURS, _then(step1, step2), step2, random=True),
        made("our quantisation", step1, identity, random=False),
        made("our distortion", step2, step2, random=True),
        made("Rand", rand, rand, random=True),
        made("FD", fd, identity, random=False),
        made("SHIELD", Shield(), identity, random=True),
        made("JPEG", Jpeg(75), identity, random=False),
        made("BdR", depth, identity, random=False),
        made("PD", PixelDeflection(), identity, random=True),
        made("our quantisation + Rand", _then(step1, rand), rand, random=True),
        made("FD + our distortion", _then(fd, step2), step2, random=True),
        made("FD + Rand", _then(fd, rand), rand, random=True),
    )
    return {each.name: each for each in every}
