"""The attacked and the judging side: the chosen defence, and its variants that the checklist needs.

Every variant is a pair: the function that the attacker differentiates and queries, and the function that gives the
verdict. For most variants they are the same. BPDA attacks a stand-in that is easier to differentiate, a transfer attack
the undefended network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lab.attacks.bpda import bpda
from lab.attacks.contract import Defended
from lab.attacks.defences import behind
from lab.attacks.surrogate import learn_surrogate
from lab.baselines import Baseline, BitDepth, FeatureDistillation, Jpeg, PixelDeflection, Rand, Shield
from lab.masks import check_drop_ratio
from lab.red_team.chain import Drawing, chain, few, known_masks, one_draw, shown, unknown
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.modes import Mode
from schemas.errors import ConfigError

BASELINES: Final[dict[str, Baseline]] = {
    "bit-depth": BitDepth(),
    "jpeg": Jpeg(75),
    "shield": Shield(),
    "pixel-deflection": PixelDeflection(),
    "rand": Rand(),
    "feature-distillation": FeatureDistillation(),
}
"""Baseline defences with the settings of their papers. 75 is the codec's usual quality."""
RANDOM_BASELINES: Final = ("shield", "pixel-deflection", "rand")
BROKEN: Final = ("bit-depth", "jpeg", "shield", "pixel-deflection", "rand")
"""Defences that fail against an attacker who knows them. They validate the attacks."""
SAMPLE: Final = 256
"""Most pictures that the attacker has, for training an imitation of the chain and as starts of walks."""
SAMPLE_PIXELS: Final = 2**21
"""Most pixels of all these pictures, except for a minimum of four frames."""
POOL: Final = 4
"""Number of draws in the variant with limited randomness."""
LEARNING_STEPS: Final = 300
"""Training steps of the imitation that BPDA differentiates."""
KNOWLEDGE: Final[dict[str, str]] = {
    "fleet": "The attacker knows the network, the restorer, every stage and setting, and how masks are drawn; not the "
    "key, so not which pixels a frame will lose nor what a random stage will draw.",
    "key-known": "The attacker knows everything, the key included: which pixels each frame loses, and all other draws.",
    "blind": "The attacker knows the network and believes it undefended; the whole chain judges.",
    "stages": "No pixels are dropped; the attacker knows the network and the bundle's stages, not what they will draw.",
    "bare": "There is no defence: the network alone. The attacker knows it.",
    **dict.fromkeys(BASELINES, "The attacker knows the baseline and the network; not what the baseline will draw."),
}
NAMES: Final = tuple(KNOWLEDGE)


def sample_size(height: int, width: int) -> int:
    """Return the number of frames of this size that the attacker has."""
    return min(SAMPLE, max(4, SAMPLE_PIXELS // (height * width)))


class Facing(NamedTuple):
    """The function that the attacker differentiates and queries, and the one that judges."""

    attacked: Defended
    judged: Defended


@dataclass(frozen=True)
class Defence:
    """The defence `name` around the network of `bundle`, at the drop ratio `ratio` if it drops pixels.

    Raises ConfigError for an unknown name, a drop ratio outside [0, 0.875] or a surrogate with other classes.
    """

    name: str
    bundle: Bundle
    ratio: float
    sample: Tensor
    """Frames (S, C, H, W) that the attacker has for training an imitation of the chain."""
    surrogate: Bundle | None = None
    """Another source network of transfer attacks, besides the undefended one."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"--defence: expected one of {', '.join(NAMES)}, got {self.name!r}")
        check_drop_ratio(self.ratio)
        if self.surrogate is not None:
            classes, others = len(self.bundle.settings.classes), len(self.surrogate.settings.classes)
            if classes != others:
                raise ConfigError(f"--surrogate: expected a network of {classes} classes, got one of {others}")

    @property
    def random(self) -> bool:
        """True if it makes draws unknown to the attacker, so that resubmitting a picture can help."""
        if self.name == "stages":
            return self.bundle.random
        return self.name in ("fleet", "blind", *RANDOM_BASELINES)

    @property
    def uncertain(self) -> bool:
        """True if the function that the attacker differentiates draws, so that gradients must be averaged."""
        return self.random and self.name != "blind"

    @property
    def layered(self) -> bool:
        """True for the fleet's own chain, which has removable components."""
        return self.name in ("fleet", "key-known")

    @property
    def drops(self) -> bool:
        """True if pixels are dropped before the verdict."""
        return self.layered or self.name == "blind"

    @property
    def undefended(self) -> bool:
        """True if the attacker attacks the bare network. A transfer from it would be the same attack again."""
        return self.name in ("bare", "blind")

    @property
    def parts(self) -> tuple[str, ...]:
        """The removable components."""
        if not self.layered:
            return ()
        return ("drop", "learned-reconstruction", *(["stages"] if self.bundle.stages else []))

    def draws(self, variant: str) -> bool:
        """Return whether the judge of this variant may answer differently when the same picture is shown again."""
        if variant in ("pool", "known-masks"):
            return True
        if variant.startswith("broken-"):
            return variant.removeprefix("broken-") in RANDOM_BASELINES
        if variant == "without-drop":
            return self.random and self.bundle.random
        return self.random and variant not in ("fixed", "bare")

    def facing(self, variant: str, seed: int) -> Facing:
        """Return the pair of `variant`. Fixed randomness draws by `seed`, the same for every picture.

        Raises ConfigError for an unknown variant.
        """
        made = self._variants.get(variant)
        if made is None:
            raise ConfigError(f"variant: expected one of {', '.join(self._variants)}, got {variant!r}")
        return made(seed)

    @cached_property
    def _variants(self) -> dict[str, Callable[[int], Facing]]:
        ways: dict[str, Callable[[int], Facing]] = {
            "defence": self._own,
            "fixed": self._fixed,
            "bare": lambda seed: Facing(self._bare, self._bare),
            "from-bare": lambda seed: Facing(self._source, self._own(seed).judged),
            **{f"broken-{name}": partial(self._broken, name) for name in BROKEN},
        }
        if self.layered:
            bundle, ratio = self.bundle, self.ratio
            ways |= {
                "pool": lambda seed: self._chain(bundle, few(bundle, ratio, seed, POOL)),
                "known-masks": lambda seed: self._chain(bundle, known_masks(bundle, ratio, seed)),
                "bpda-identity": lambda seed: self._bpda(seed, lambda frames, generator: bundle.prepare(frames)),
                "bpda-surrogate": lambda seed: self._bpda(seed, self._learned),
                "bpda-stand-in": lambda seed: self._bpda(
                    seed, shown(Pipeline(bundle.bare, "plate"), self._drawing(seed))
                ),
                "without-drop": lambda seed: self._chain(bundle, self._drawing(seed, 0.0)),
                "without-learned-reconstruction": lambda seed: self._chain(bundle, self._drawing(seed), plate=True),
                "without-stages": lambda seed: self._chain(bundle.bare, self._drawing(seed)),
            }
        return ways

    @cached_property
    def _bare(self) -> Defended:
        """Return the network alone, without its stages."""
        return _direct(self.bundle.bare)

    def _drawing(self, seed: int, ratio: float | None = None) -> Drawing:
        """Return a frame's draws, as far as this attacker knows them."""
        share = self.ratio if ratio is None else ratio
        known = self.name == "key-known"
        return few(self.bundle, share, seed, 1) if known else unknown(self.bundle, share)

    def _chain(self, bundle: Bundle, drawing: Drawing, *, plate: bool = False) -> Facing:
        """Return the chain with the network of `bundle`. Its stages have a gradient for the attacker."""
        mode: Mode = "plate" if plate else "default"
        return Facing(*(chain(Pipeline(each, mode), drawing) for each in (bundle.passable, bundle)))

    def _own(self, seed: int) -> Facing:
        if self.name in BASELINES:
            return self._baseline(self.name)
        if self.name == "bare":
            return Facing(self._bare, self._bare)
        if self.name == "stages":
            return Facing(_direct(self.bundle.passable), _direct(self.bundle))
        whole = self._chain(self.bundle, self._drawing(seed))
        return whole._replace(attacked=self._bare) if self.name == "blind" else whole

    def _fixed(self, seed: int) -> Facing:
        if self.drops:
            return self._chain(self.bundle, few(self.bundle, self.ratio, seed, 1))
        own = self._own(seed)
        return Facing(*(one_draw(each, seed) for each in own)) if self.random else own

    def _baseline(self, name: str) -> Facing:
        cleaned, network = BASELINES[name], self.bundle.bare

        def logits(frames: Tensor) -> Tensor:
            return network.logits(network.prepare(frames))

        # Resizing and padding have a gradient. The others get that of the identity.
        return Facing(behind(cleaned if name == "rand" else bpda(cleaned), logits), behind(cleaned, logits))

    def _broken(self, name: str, seed: int) -> Facing:
        return self._baseline(name)

    @cached_property
    def _source(self) -> Defended:
        """Return the source of transferred attacks: the undefended network, alone or with another one."""
        if self.surrogate is None:
            return self._bare
        bare, other = self._bare, _direct(self.surrogate.bare)
        if self.bundle.settings.format in ("onnx", "tflite"):
            return other
        return lambda frames, generator: (bare(frames, generator) + other(frames, generator)) / 2

    @cached_property
    def _learned(self) -> Baseline:
        """Return an imitation of the chain at the network's size, trained on `sample`."""
        forward = shown(Pipeline(self.bundle), self._drawing(0))
        pictures = _flat(self.bundle.prepare(self.sample))
        imitate = learn_surrogate(forward, pictures, seed=0, steps=LEARNING_STEPS)

        def imitated(frames: Tensor, generator: torch.Generator) -> Tensor:
            prepared = self.bundle.prepare(frames)
            return imitate(_flat(prepared), generator).view_as(prepared)

        return imitated

    def _bpda(self, seed: int, backward: Baseline) -> Facing:
        approximated = bpda(shown(Pipeline(self.bundle), self._drawing(seed)), backward)
        return Facing(behind(approximated, self.bundle.network_logits), self._own(seed).judged)


def _direct(bundle: Bundle) -> Defended:
    """Return the bundle's stages and network on whole frames."""
    return lambda frames, generator: bundle.logits(bundle.prepare(frames), bundle.seeds(len(frames), generator))


def _flat(prepared: Tensor) -> Tensor:
    """Return tiles (B, n, C, H, W) as separate pictures."""
    return prepared.flatten(0, 1) if prepared.ndim == 5 else prepared
