"""Training against stickers: pictures with two windows dropped, filled by the reconstruction.

A certificate needs the label behind every pair of windows (`processors.stages.certify`), so the hardest pairs count.
Of several random pairs, each picture gets the one with the largest loss (greedy cut-out: Saha et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.certify import kept_outside, windows


def window_masks(kept: Tensor, sticker: int, across: int, generator: torch.Generator) -> Tensor:
    """Return `kept` (B, 1, H, W) without the pixels of two random windows for each picture, which may be the same.

    The windows are those of a square sticker with sides of `sticker` pixels, at most `across` along a side.
    """
    inside = windows(kept.shape[2], kept.shape[3], (sticker, sticker), across)
    pairs = torch.randint(len(inside), (len(kept), 2), generator=generator)
    return kept_outside(inside, pairs, kept)


@torch.no_grad()
def hardest(
    logits: Callable[[Tensor, Tensor], Tensor], frames: Tensor, labels: Tensor, masks: Sequence[Tensor]
) -> Tensor:
    """Return for each frame (B, C, H, W) the one of `masks`, each (B, 1, H, W), with the largest loss of `labels`."""
    if len(masks) == 1:
        return masks[0]
    losses = [F.cross_entropy(logits(frames, mask).float(), labels, reduction="none") for mask in masks]
    worst = torch.stack(losses).argmax(0)
    return torch.stack(tuple(masks))[worst, torch.arange(len(frames), device=frames.device)]
