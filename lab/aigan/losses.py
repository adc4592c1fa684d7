"""The losses of AI-GAN, Bai et al. (2023), equations 4 and 6 to 11, each as a quantity to minimise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.5
"""τ of the contrastive loss, section IV-C."""
SOFTENED = 4.0
"""Temperature of the distillation. It lets logits count that would otherwise have negligible shares."""


def margin_loss(logits: Tensor, targets: Tensor, confidence: float) -> Tensor:
    """Return the C&W loss, equation 4 with a target: the mean of max(max_{i≠t} z_i − z_t, −κ) over (B, classes).

    It takes logits z, which Carlini and Wagner found better than probabilities. The paper's κ is 0.
    """
    return _margins(logits, targets).clamp_min(-confidence).mean()


def miss_loss(logits: Tensor, targets: Tensor, softness: float) -> Tensor:
    """Return a smooth share of misses: the mean of σ(margin / `softness`), times 4 `softness`, over (B, classes).

    The margin is that of equation 4. The gradient is largest for pictures at the border of their target. It is next to
    zero for pictures that already succeed by far, and for those that are far from it. The factor gives the loss the
    slope of `margin_loss` at the border.
    """
    return torch.sigmoid(_margins(logits, targets) / softness).mean() * 4 * softness


def _margins(logits: Tensor, targets: Tensor) -> Tensor:
    chosen = targets[:, None]
    other = logits.scatter(1, chosen, -torch.inf).amax(1)
    return other - logits.gather(1, chosen)[:, 0]


def clean_loss(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Return −L_S, equation 6, of the clean-logits (B,) of clean and perturbed pictures."""
    return F.softplus(-clean).mean() + F.softplus(perturbed).mean()


def class_loss(attacked: Tensor, perturbed: Tensor, labels: Tensor) -> Tensor:
    """Return −(L_C(adv) + L_C(pert)), equations 7 and 8, from logits (B, classes) of both kinds of pictures.

    `attacked` belongs to PGD's pictures, `perturbed` to the generator's.
    """
    return F.cross_entropy(attacked, labels) + F.cross_entropy(perturbed, labels)


def deceit_loss(clean: Tensor, classes: Tensor, targets: Tensor, clean_weight: float, class_weight: float) -> Tensor:
    """Return the generator's loss from the discriminator: to be classified as clean and as the target (equation 10).

    The first term is −log P(clean | x_pert) instead of log P(pert | x_pert). The gradient of the latter, from equation
    6, vanishes while the generator loses (Goodfellow et al. 2014, section 3).
    """
    return clean_weight * F.softplus(-clean).mean() + class_weight * F.cross_entropy(classes, targets)


def contrastive_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return equation 11, the mean over the 2 N ordered pairs.

    `first` (N, d) and `second` (N, d) are two views of the same pictures.
    """
    both = F.normalize(torch.cat((first, second)), dim=1)
    count = len(first)
    similarity = (both @ both.T) / TEMPERATURE
    own = torch.eye(2 * count, dtype=torch.bool, device=both.device)
    partner = torch.arange(2 * count, device=both.device).roll(count)
    return F.cross_entropy(similarity.masked_fill(own, -torch.inf), partner)


def distillation_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the Kullback–Leibler divergence of the softened shares of `logits` from the target's log `answers`.

    `logits` (B, classes) are the local network's; `answers` has the same shape. Softened log-shares follow from the
    shares that a target returns; nothing else of the target is known. The loss is multiplied by the squared
    temperature, so that gradients keep their size (Hinton et al. 2015).
    """
    wanted = F.log_softmax(answers / SOFTENED, 1)
    given = F.log_softmax(logits / SOFTENED, 1)
    return F.kl_div(given, wanted, reduction="batchmean", log_target=True) * SOFTENED**2
