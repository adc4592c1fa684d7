"""All attacks by name, with the settings that the experiments print."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.attacks.contract import Attack, Logits
from schemas.errors import ConfigError

NAMES: tuple[str, ...] = (
    "fgsm", "ifgsm", "pgd", "l2pgd", "deepfool", "lbfgs", "cw", "cw10", "lbfgs10", "rotation",
    "jsma", "autoattack", "square", "hopskipjump",
)  # fmt: skip
"""The attacks' names. `cw10` and `lbfgs10` require a confidence of 10 between the logits, within L2 .5."""

CONFIDENT = 10.0


def make_attack(name: str, eps: float | None = None) -> Attack:
    """Return the attack `name` with the bound `eps`, or with its usual one.

    The usual bounds are L∞ .005 for fgsm and ifgsm (10 steps), L∞ .01 for pgd (10 steps), and L2 .5 for l2pgd (20
    steps), cw10 and lbfgs10. There is none for deepfool, lbfgs and cw. It is 15 degrees for rotation, .145 of the
    values for jsma, and L∞ 8/255 for autoattack (standard), square (5,000 queries) and hopskipjump (20 steps). Raises
    ConfigError for an unknown name or a bound that is not positive.
    """
    if name not in NAMES:
        raise ConfigError(f"attack: expected one of {', '.join(NAMES)}, got {name!r}")
    if eps is not None and not 0 < eps < math.inf:
        raise ConfigError(f"eps: expected a positive number, got {eps}")
    if name == "rotation":
        from lab.attacks.rotation import Rotation

        return Rotation(15.0 if eps is None else eps)
    if name == "jsma":
        from lab.attacks.jsma import PAPER_SHARE, Jsma

        return Jsma(PAPER_SHARE if eps is None else eps)
    if name in ("autoattack", "square", "hopskipjump"):
        return OnTheBareNetwork(name, 8 / 255 if eps is None else eps)
    if name in ("lbfgs", "lbfgs10"):
        from lab.attacks.lbfgs import Lbfgs

        return Lbfgs("lbfgs", eps) if name == "lbfgs" else Lbfgs("lbfgs10", eps or 0.5, CONFIDENT)
    return _foolbox_attack(name, eps)


def _foolbox_attack(name: str, eps: float | None) -> Attack:
    # Foolbox takes seconds to import: load it only for an attack.
    from lab.attacks.carlini_wagner import AGAIN, FAR, CarliniWagner
    from lab.attacks.deepfool import DeepFool
    from lab.attacks.gradient_sign import GradientDescent

    if name == "fgsm":
        return GradientDescent(name, eps or 0.005, "linf", steps=1, step=1.0, random_start=False)
    if name == "ifgsm":
        return GradientDescent(name, eps or 0.005, "linf", steps=10, step=0.2, random_start=False)
    if name == "pgd":
        return GradientDescent(name, eps or 0.01, "linf", steps=10, step=0.25, random_start=True)
    if name == "l2pgd":
        return GradientDescent(name, eps or 0.5, "l2", steps=20, step=0.125, random_start=True)
    if name == "deepfool":
        return DeepFool(eps)
    if name == "cw":
        return CarliniWagner(name, eps)
    return CarliniWagner(name, eps or 0.5, CONFIDENT, (FAR, AGAIN))


@dataclass(frozen=True)
class OnTheBareNetwork:
    """An attack that expects a whole defence, applied to a network without one, L∞ `eps`."""

    name: str
    eps: float

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames. See `Attack`. Raises ConfigError if AutoAttack is given targets."""

        def bare(pictures: Tensor, _: torch.Generator) -> Tensor:
            return logits(pictures)

        if self.name == "square":
            from lab.attacks.square import square

            return square(bare, frames, labels, targets, eps=self.eps, queries=5000, generator=generator)
        if self.name == "hopskipjump":
            from lab.attacks.hop_skip_jump import hop_skip_jump

            return hop_skip_jump(bare, frames, labels, targets, eps=self.eps, generator=generator)
        from lab.attacks.auto_attack import auto_attack

        if targets is not None:
            raise ConfigError("attack autoattack: expected an untargeted run (it chooses its own targets), got targets")
        return auto_attack(bare, frames, labels, eps=self.eps, generator=generator)
