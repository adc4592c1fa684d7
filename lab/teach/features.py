"""Frozen features of the general network for every view of the labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from lab.teach.labelled import Labelled
from lab.teach.views import seen
from processors.networks.efficientnet_lite import EfficientNetLite0
from processors.networks.taught import LAST, averaged, contrasted, maps
from processors.pipeline import Pipeline

Tap = tuple[int, int]
"""Depth and grid, see `processors.networks.taught`."""
TAPS: Final[tuple[Tap, ...]] = ((LAST, 1), (15, 4), (11, 8), (8, 8))
"""The choices of the cross-validation. Of equals, the first is taken."""


@dataclass
class Features:
    """Features of views by contrast normalisation and tap: (pictures, channels · grid²) each, half precision."""

    taps: tuple[Tap, ...] = TAPS
    views: dict[tuple[bool, Tap], dict[int, Tensor]] = field(default_factory=dict)

    def rows(self, contrast: bool, tap: Tap, views: Sequence[int]) -> Tensor:
        """Return float32 features (views · pictures, channels · grid²), all pictures of the first view first."""
        found = self.views[contrast, tap]
        return torch.cat([found[view] for view in views]).float()

    def keep(self, contrast: bool, tap: Tap) -> None:
        """Forget all features but these, and compute no others from now on."""
        self.taps = (tap,)
        self.views = {(contrast, tap): self.views[contrast, tap]}


@torch.inference_mode()
def add_features(
    features: Features,
    network: EfficientNetLite0,
    pipeline: Pipeline,
    labelled: Labelled,
    views: Iterable[int],
    contrasts: Sequence[bool],
    drop_ratio: float,
    seed: int,
    advance: Callable[[int], object],
) -> None:
    """Compute the features of these views, with and without contrast normalisation as `contrasts` lists."""
    depths = {depth for depth, _ in features.taps}
    for view in views:
        parts: dict[tuple[bool, Tap], list[Tensor]] = {}
        places = []
        for some, inputs in seen(pipeline, labelled, view, drop_ratio, seed):
            places.append(some)
            normalised = pipeline.bundle.normalised(inputs).contiguous(memory_format=torch.channels_last)
            for contrast in contrasts:
                found = maps(network, contrasted(normalised) if contrast else normalised, depths)
                for tap in features.taps:
                    parts.setdefault((contrast, tap), []).append(averaged(found[tap[0]], tap[1]).half())
            advance(len(some))
        order = torch.cat(places).argsort()
        for key, values in parts.items():
            features.views.setdefault(key, {})[view] = torch.cat(values)[order]
