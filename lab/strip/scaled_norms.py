"""Scaled batch norms on whole pictures: how many are amplified, and the doubt in the labels behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lab.data import LabelledPictures
from lab.strip.calibrate import whole_input
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.scaled_norms import ScaledNorms, amplified, batch_norms

ERRED: Final = 0.6
"""Share of wrong labels on clean pictures at which a network is amplified enough, as in the paper."""


@torch.inference_mode()
def depth(bundle: Bundle, clean: LabelledPictures) -> int | None:
    """Return the fewest batch norms whose amplification spoils a share `ERRED` of clean labels; None without any.

    If no number does, all batch norms are amplified. A bundle of another format than `safetensors` has none.
    """
    network = bundle.network
    if not isinstance(network, nn.Module) or bundle.settings.format != "safetensors":
        return None
    every = len(batch_norms(network))
    for count in range(1, every + 1):
        form = replace(bundle, network=amplified(network, count))
        wrong = sum(
            int((form.logits(form.prepare(frames)).argmax(1) != labels).sum())
            for frames, labels in clean.batches(bundle.device)
        )
        if wrong >= ERRED * len(clean):
            return count
    return every or None


@torch.inference_mode()
def doubts(
    pipeline: Pipeline,
    scaled: ScaledNorms,
    pictures: LabelledPictures,
    advance: Callable[[int], object] = lambda count: None,
    *,
    seed: int = 7,
) -> NDArray[np.float64]:
    """Return the doubt (n,) in the labels of whole pictures, with draws from `seed`: low for a label that amplification
    keeps."""
    draws, found = torch.Generator().manual_seed(seed), []
    for frames, _ in pictures.batches(pipeline.bundle.device):
        inputs, seeds = whole_input(pipeline, frames), pipeline.bundle.seeds(len(frames), draws)
        found.append(pipeline.doubt_of(scaled, inputs, seeds))
        advance(len(frames))
    return torch.cat(found).cpu().numpy()
