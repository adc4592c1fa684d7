"""Transfer: examples made on other networks and shown to the defence (Papernot et al. 2016; MI-FGSM, Dong 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lab.attacks.contract import Logits
from lab.attacks.eot import eot_pgd
from schemas.errors import ConfigError

_MOMENTUM = 1.0


def transfer(
    sources: Sequence[Logits],
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    eps: float,
    generator: torch.Generator,
    steps: int = 20,
) -> Tensor:
    """Return adversarial frames (B, C, H, W) in [0, 1], not rounded, within L∞ `eps`, made on `sources`.

    The sources are the undefended network, other networks, or both. The method is MI-FGSM on their ensemble in logits
    (Dong et al. 2018): momentum 1, steps of 2.5·ε/steps from the frame itself. Raises ConfigError without a source.
    """
    if not sources:
        raise ConfigError("transfer: expected at least one network to make examples on, got none")

    def together(pictures: Tensor, _: torch.Generator) -> Tensor:
        return torch.stack([logits(pictures) for logits in sources]).mean(0)

    return eot_pgd(
        together,
        frames,
        labels,
        targets,
        eps=eps,
        steps=steps,
        samples=1,
        generator=generator,
        momentum=_MOMENTUM,
        random_start=False,
    )
