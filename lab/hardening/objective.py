"""The training losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def adversarial_loss(attacked: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the logits (B, classes) of attacked frames (Madry et al. 2018, equation 2.1)."""
    return F.cross_entropy(attacked, labels)


def trades_loss(clean: Tensor, attacked: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Return the cross-entropy of clean logits plus `beta` · KL(clean ‖ attacked) (Zhang et al. 2019, equation 5).

    A larger `beta` gives more robustness at the price of clean accuracy.
    """
    divergence = F.kl_div(F.log_softmax(attacked, 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True)
    return F.cross_entropy(clean, labels) + beta * divergence
