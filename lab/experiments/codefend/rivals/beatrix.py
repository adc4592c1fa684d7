"""Beatrix (Ma et al. 2023, "The Beatrix resurrections"): Gram matrices that clean pictures of the label do not have.

A trigger makes channels active together that are not in clean pictures of its label. The products of channels, in
several powers, are compared with their usual range there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lab.data import LabelledPictures
from lab.experiments.codefend.rivals.fine_pruning import last_convolution
from lab.strip.calibrate import whole_input
from processors.pipeline import Pipeline

POWERS: Final = range(1, 9)
HALF_RANGE: Final = 10.0
"""Half the usual range, in median absolute deviations."""
_LEAST: Final = 1e-6


class Seen(NamedTuple):
    """Gram matrices (n, elements) of pictures, and the labels (n,) that the network gives them."""

    grams: Tensor
    labels: Tensor


def grams(maps: Tensor) -> Tensor:
    """Return the Gram matrices of maps (B, C, H, W) in all `POWERS`, upper halves: (B, powers · C (C + 1) / 2)."""
    flat = maps.flatten(2).double()
    rows, columns = torch.triu_indices(flat.shape[1], flat.shape[1])
    found = []
    for power in POWERS:
        raised = flat**power
        products = (raised @ raised.transpose(1, 2))[:, rows, columns]
        found.append(products.sign() * products.abs() ** (1 / power))
    return torch.cat(found, 1).float()


def deviations(found: Tensor, usual: Tensor) -> Tensor:
    """Return how far Gram matrices (B, n) lie outside the range of the `usual` ones (m, n): (B,), 0 inside.

    Each element counts relative to the end of its range that it exceeds.
    """
    middle = usual.median(0).values
    half = HALF_RANGE * (usual - middle).abs().median(0).values
    low, high = middle - half, middle + half
    below = (low - found).clamp_min(0) / (low.abs() + _LEAST)
    above = (found - high).clamp_min(0) / (high.abs() + _LEAST)
    return (below + above).mean(1)


@torch.inference_mode()
def seen(pipeline: Pipeline, pictures: LabelledPictures) -> Seen:
    """Return the Gram matrices of the last convolution's output for whole pictures, and their labels."""
    bundle, outputs, found, labels = pipeline.bundle, list[Tensor](), [], []
    assert isinstance(bundle.network, nn.Module)
    place = last_convolution(bundle.network)[0]
    hook = place.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    for frames, _ in pictures.batches(bundle.device):
        labels.append(bundle.logits(whole_input(pipeline, frames)).argmax(1))
        found.append(grams(outputs.pop()))
    hook.remove()
    return Seen(torch.cat(found), torch.cat(labels))


def normality(found: Seen, clean: Seen, *, same: bool = False) -> NDArray[np.float64]:
    """Return the normality (n,) of pictures, low for a trigger: 1 / (1 + the deviation from `clean` ones of the label).

    It is 1 for a label that no clean picture has. With `same`, `found` are the clean pictures themselves, and each half
    of them judges the other.
    """
    values = torch.ones(len(found.labels), dtype=torch.float64)
    half = torch.arange(len(clean.labels)) % 2
    for label in set(clean.labels.tolist()):
        if not same:
            own = found.labels == label
            values[own] = 1 / (1 + deviations(found.grams[own], clean.grams[clean.labels == label]).double())
            continue
        for which in (0, 1):
            own, others = ((clean.labels == label) & (half == each) for each in (which, 1 - which))
            if others.any():
                values[own] = 1 / (1 + deviations(found.grams[own], clean.grams[others]).double())
    return values.numpy()
