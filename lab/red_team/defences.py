"""What is attacked and what judges: the chosen defence, and the variants of it that the checklist asks for.

Every variant is a pair: what the attacker differentiates and asks, and what then gives the verdict. For most they are
the same; BPDA attacks a stand-in that is easier to differentiate, a transfer attack the undefended network.
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
from lab.attacks.defences import behind, undefended, with_key
from lab.attacks.defences import defended as behind_fresh_masks
from lab.attacks.surrogate import learn_surrogate
from lab.baselines import Baseline, FeatureDistillation, Jpeg, PixelDeflection, Shield
from lab.masks import check_drop_ratio, random_masks
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.errors import ConfigError

BASELINES: Final[dict[str, Baseline]] = {
    "jpeg": Jpeg(75),
    "shield": Shield(),
    "pixel-deflection": PixelDeflection(),
    "feature-distillation": FeatureDistillation(),
}
"""At the settings of their papers; 75 is the codec's usual quality."""
RANDOM_BASELINES: Final = ("shield", "pixel-deflection")
BROKEN: Final = ("jpeg", "shield", "pixel-deflection")
"""Defences of which it is known that an attacker who knows them loses nothing: they validate the attacks."""
SAMPLE: Final = 256
"""Pictures that the attacker has, at most: to learn an imitation of the chain from, and to walk from."""
POOL: Final = 4
"""Masks, where chance is let in step by step."""
LEARNING_STEPS: Final = 300
"""Of the imitation that BPDA differentiates."""
KNOWLEDGE: Final[dict[str, str]] = {
    "fleet": "The attacker knows the network, the restorer, every stage and setting, and how masks are drawn; not the "
    "key, so not which pixels a frame will lose nor what a random stage will draw.",
    "key-known": "The attacker knows everything, the key included: which pixels each frame loses, and all other draws.",
    "blind": "The attacker knows the network and believes it undefended; the whole chain judges.",
    "bare": "There is no defence: the network alone. The attacker knows it.",
    **dict.fromkeys(BASELINES, "The attacker knows the baseline and the network; not what the baseline will draw."),
}
NAMES: Final = tuple(KNOWLEDGE)


class Facing(NamedTuple):
    """What the attacker differentiates and asks, and what then judges."""

    attacked: Defended
    judged: Defended


@dataclass(frozen=True)
class Defence:
    """The defence `name` around the network of `bundle`, at the drop ratio `ratio` where it drops pixels.

    Raises ConfigError for an unknown name or a drop ratio outside [0, 0.875].
    """

    name: str
    bundle: Bundle
    ratio: float
    sample: Tensor
    """Frames (S, C, H, W) that the attacker has, to learn an imitation of the chain from."""
    surrogate: Bundle | None = None
    """Another network to transfer attacks from, beside the undefended one."""

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
        """Whether it draws what the attacker does not know, so that the same picture is worth a second try."""
        return self.name in ("fleet", "blind", *RANDOM_BASELINES)

    @property
    def uncertain(self) -> bool:
        """Whether what the attacker differentiates draws, so that gradients must be averaged."""
        return self.random and self.name != "blind"

    @property
    def layered(self) -> bool:
        """Whether it is the fleet's own chain, which has components to take away."""
        return self.name in ("fleet", "key-known")

    @property
    def drops(self) -> bool:
        """Whether pixels are dropped before the verdict."""
        return self.layered or self.name == "blind"

    @property
    def parts(self) -> tuple[str, ...]:
        """Its components that can be taken away."""
        return ("drop", "learned-reconstruction") if self.layered else ()

    @property
    def differentiable(self) -> bool:
        """Whether its own gradient is used; a baseline's is that of BPDA with the identity."""
        return self.name not in BASELINES

    @cached_property
    def pipeline(self) -> Pipeline:
        """The whole chain behind the drop."""
        return Pipeline(self.bundle)

    def draws(self, variant: str) -> bool:
        """Whether what judges in this variant may answer otherwise when it is shown the same picture again."""
        if variant in ("fixed", "bare", "broken-jpeg") or (variant == "without-drop" and self.name == "key-known"):
            return False
        return self.random or variant.startswith("broken-")

    def facing(self, variant: str, seed: int) -> Facing:
        """The pair called `variant`; what has its randomness fixed draws by `seed`, the same for every picture.

        Raises ConfigError for an unknown one.
        """
        made = self._variants.get(variant)
        if made is None:
            raise ConfigError(f"variant: expected one of {', '.join(self._variants)}, got {variant!r}")
        return made(seed)

    @cached_property
    def _variants(self) -> dict[str, Callable[[int], Facing]]:
        bare = undefended(self.bundle)
        ways: dict[str, Callable[[int], Facing]] = {
            "defence": self._own,
            "fixed": lambda seed: _both(self._fixed(seed)),
            "bare": lambda seed: _both(bare),
            "from-bare": lambda seed: Facing(self._source, self._own(seed).judged),
            **{f"broken-{name}": partial(self._broken, name) for name in BROKEN},
        }
        if self.layered:
            ways |= {
                "pool": lambda seed: _both(_pool(self.pipeline, self.ratio, seed)),
                "bpda-identity": lambda seed: self._bpda(seed, lambda frames, generator: self.bundle.prepare(frames)),
                "bpda-surrogate": lambda seed: self._bpda(seed, self._learned),
                "bpda-stand-in": lambda seed: self._bpda(seed, self._seen(seed, Pipeline(self.bundle, "plate"))),
                "without-drop": lambda seed: _both(behind_fresh_masks(self.pipeline, 0.0)),
                "without-learned-reconstruction": lambda seed: _both(
                    self._chain(seed, Pipeline(self.bundle, "plate"), self.ratio)
                ),
            }
        return ways

    @cached_property
    def _source(self) -> Defended:
        """What transferred attacks are made on: the undefended network, or it and another one together."""
        bare = undefended(self.bundle)
        if self.surrogate is None:
            return bare
        other = undefended(self.surrogate)
        if self.bundle.settings.format == "onnx":
            return other
        return lambda frames, generator: (bare(frames, generator) + other(frames, generator)) / 2

    @cached_property
    def _learned(self) -> Baseline:
        """An imitation of the chain at the network's size, learned from `sample`."""
        pictures = self.bundle.prepare(self.sample)
        pictures = pictures.flatten(0, 1) if pictures.ndim == 5 else pictures
        imitate = learn_surrogate(self._seen(0, self.pipeline), pictures, seed=0, steps=LEARNING_STEPS)

        def imitated(frames: Tensor, generator: torch.Generator) -> Tensor:
            prepared = self.bundle.prepare(frames)
            flat = prepared.flatten(0, 1) if prepared.ndim == 5 else prepared
            return imitate(flat, generator).view_as(prepared)

        return imitated

    def _own(self, seed: int) -> Facing:
        if self.name in BASELINES:
            return self._baseline(self.name)
        bare = undefended(self.bundle)
        if self.name == "bare":
            return _both(bare)
        whole = self._chain(seed, self.pipeline, self.ratio)
        return Facing(bare, whole) if self.name == "blind" else _both(whole)

    def _chain(self, seed: int, pipeline: Pipeline, ratio: float) -> Defended:
        """The chain as this attacker knows it: behind fresh masks, or behind those of `seed`."""
        return _known(pipeline, ratio, seed) if self.name == "key-known" else behind_fresh_masks(pipeline, ratio)

    def _fixed(self, seed: int) -> Defended:
        if self.name in BASELINES:
            facing = self._baseline(self.name)
            return one_draw(facing.attacked, seed)
        return undefended(self.bundle) if self.name == "bare" else _known(self.pipeline, self.ratio, seed)

    def _baseline(self, name: str) -> Facing:
        cleaned = BASELINES[name]

        def logits(frames: Tensor) -> Tensor:
            return self.bundle.logits(self.bundle.prepare(frames))

        return Facing(behind(bpda(cleaned), logits), behind(cleaned, logits))

    def _broken(self, name: str, seed: int) -> Facing:
        return self._baseline(name)

    def _seen(self, seed: int, pipeline: Pipeline) -> Baseline:
        """What the network is shown of frames: the defence as something that cleans pictures."""

        def seen(frames: Tensor, generator: torch.Generator) -> Tensor:
            kept = self._masks(frames, torch.Generator().manual_seed(seed) if self.name == "key-known" else generator)
            return pipeline.see(drop(frames, kept), kept)[0]

        return seen

    def _masks(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        count = 1 if self.name == "key-known" else len(frames)
        height, width = frames.shape[2:]
        kept = random_masks(count, height, width, self.ratio, generator)
        return kept.to(frames.device).expand(len(frames), -1, -1, -1)

    def _bpda(self, seed: int, backward: Baseline) -> Facing:
        approximated = bpda(self._seen(seed, self.pipeline), backward)
        return Facing(behind(approximated, self.bundle.logits), self._own(seed).judged)


def _both(each: Defended) -> Facing:
    return Facing(each, each)


def _known(pipeline: Pipeline, ratio: float, seed: int) -> Defended:
    """Behind one mask that the attacker knows, the same for every picture."""

    def behind_known_mask(frames: Tensor, generator: torch.Generator) -> Tensor:
        height, width = frames.shape[2:]
        kept = random_masks(1, height, width, ratio, torch.Generator().manual_seed(seed))
        return with_key(pipeline, kept)(frames, generator)

    return behind_known_mask


def _pool(pipeline: Pipeline, ratio: float, seed: int) -> Defended:
    """Behind one of `POOL` masks that the attacker knows, he does not know which: chance, let in by a crack."""

    def behind_one_of_few(frames: Tensor, generator: torch.Generator) -> Tensor:
        height, width = frames.shape[2:]
        masks = random_masks(POOL, height, width, ratio, torch.Generator().manual_seed(seed))
        kept = masks[torch.randint(POOL, (len(frames),), generator=generator)].to(frames.device)
        return pipeline.logits(drop(frames, kept), kept)

    return behind_one_of_few


def one_draw(each: Defended, seed: int) -> Defended:
    """`each` with every picture's randomness fixed, whichever pictures come beside it: they are shown one at a time.

    Attacks leave out pictures that are done, so a fixed draw must not go by the place in a batch.
    """

    def without_chance(frames: Tensor, generator: torch.Generator) -> Tensor:
        alone = [each(frame[None], torch.Generator(generator.device).manual_seed(seed)) for frame in frames]
        return torch.cat(alone)

    return without_chance
