"""The losses of AI-GAN, Bai et al. (2023), equations 4 and 6 to 11, each as something to be minimised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.5
"""τ of the contrastive loss, section IV-C."""
SOFTENED = 4.0
"""Temperature of the distillation: logits that only the largest share would show otherwise count as well."""


def margin_loss(logits: Tensor, targets: Tensor, confidence: float) -> Tensor:
    """C&W's loss, equation 4 with a target: mean of max(max_{i≠t} z_i − z_t, −κ) over (B, classes).

    On logits z, as Carlini and Wagner found best, not on probabilities; the paper's κ is 0.
    """
    chosen = targets[:, None]
    other = logits.scatter(1, chosen, -torch.inf).amax(1)
    return (other - logits.gather(1, chosen)[:, 0]).clamp_min(-confidence).mean()


def clean_loss(clean: Tensor, perturbed: Tensor) -> Tensor:
    """−L_S, equation 6, of the logits of being clean (B,) that both kinds of pictures get."""
    return F.softplus(-clean).mean() + F.softplus(perturbed).mean()


def class_loss(attacked: Tensor, perturbed: Tensor, labels: Tensor) -> Tensor:
    """−(L_C(adv) + L_C(pert)), equations 7 and 8: logits (B, classes) of the attacker's and the generator's."""
    return F.cross_entropy(attacked, labels) + F.cross_entropy(perturbed, labels)


def deceit_loss(clean: Tensor, classes: Tensor, targets: Tensor, clean_weight: float, class_weight: float) -> Tensor:
    """What the generator wants of the discriminator: to be taken for clean, and for the target class (equation 10).

    For the first, −log P(clean | x_pert) in the place of log P(pert | x_pert), of which equation 6 has the gradient
    vanish while the generator loses (Goodfellow et al. 2014, section 3).
    """
    return clean_weight * F.softplus(-clean).mean() + class_weight * F.cross_entropy(classes, targets)


def contrastive_loss(first: Tensor, second: Tensor) -> Tensor:
    """Equation 11, mean over the 2 N ordered pairs: `first` (N, d) and `second` (N, d) are two views of the same."""
    both = F.normalize(torch.cat((first, second)), dim=1)
    count = len(first)
    similarity = (both @ both.T) / TEMPERATURE
    own = torch.eye(2 * count, dtype=torch.bool, device=both.device)
    partner = torch.arange(2 * count, device=both.device).roll(count)
    return F.cross_entropy(similarity.masked_fill(own, -torch.inf), partner)


def distillation_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Kullback–Leibler divergence of softened shares: the local network's `logits` from the target's log `answers`.

    Both (B, classes). Softened log-shares can be had from the shares that a target gives out: nothing else of it is
    known. Times the squared temperature, so that gradients do not shrink with it (Hinton et al. 2015).
    """
    wanted = F.log_softmax(answers / SOFTENED, 1)
    given = F.log_softmax(logits / SOFTENED, 1)
    return F.kl_div(given, wanted, reduction="batchmean", log_target=True) * SOFTENED**2
