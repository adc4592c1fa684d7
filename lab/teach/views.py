"""Views of labelled pictures: plain and varied copies, each through the chain that runs live."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.data import to_frames
from lab.masks import random_masks
from lab.teach.labelled import Labelled
from processors.pipeline import Pipeline
from processors.stages.drop import drop

PLAIN: Final = 2
"""Views of every picture that differ by their masks alone. The cross-validation tests these."""
VARIED: Final = 12
"""Views that are also shifted, turned, scaled, and changed in brightness and contrast; every second one is mirrored."""
MOST_VIEWS: Final = 3000
"""Most views of all pictures together: with many labels, each needs fewer views."""
_BATCH: Final = 16
_TURN: Final = 0.12
_SCALE: Final = 0.15
_SHIFT: Final = 0.1
_LIGHT: Final = 0.35


def views_of(count: int) -> int:
    """Return the number of views of each of `count` pictures, plain ones included."""
    return PLAIN + max(2, min(VARIED, MOST_VIEWS // count - PLAIN))


def first_views(count: int, *, mirrored: bool) -> list[int]:
    """Return the numbers of the first `count` views, or of the first that are not mirrored."""
    return list(itertools.islice((view for view in itertools.count() if mirrored or not is_mirrored(view)), count))


def is_mirrored(view: int) -> bool:
    """Return whether a view's number is one of a mirrored view."""
    return view >= PLAIN and (view - PLAIN) % 2 == 1


@torch.inference_mode()
def seen(
    pipeline: Pipeline, labelled: Labelled, view: int, drop_ratio: float, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the places (B,) and the network's inputs (B, 3, height, width) in [0, 1] of one view of all pictures.

    A view's draws depend on `seed` and the number of the view alone. Frames lose pixels under random masks and are
    rebuilt, denoised and resampled by `pipeline`.
    """
    chance = torch.Generator().manual_seed(seed * 1009 + view)
    sizes: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, picture in enumerate(labelled.pictures):
        sizes[picture.shape].append(place)
    for places in sizes.values():
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            frames = to_frames(np.stack([labelled.pictures[place] for place in some]), torch.device("cpu"))
            if view >= PLAIN:
                frames = varied(frames, chance, mirrored=is_mirrored(view))
            kept = random_masks(len(frames), frames.shape[2], frames.shape[3], drop_ratio, chance)
            yield torch.tensor(some), pipeline.network_input(drop(frames, kept), kept)[0]


def varied(frames: Tensor, chance: torch.Generator, *, mirrored: bool) -> Tensor:
    """Return frames (B, C, H, W) in [0, 1], each with its own small shift, turn, scale, brightness and contrast."""
    count, _, height, width = frames.shape

    def draw(most: float) -> Tensor:
        return (torch.rand(count, generator=chance) * 2 - 1) * most

    angle, scale = draw(_TURN), torch.exp(draw(_SCALE))
    across, down = draw(_SHIFT), draw(_SHIFT)
    # The grid's units are half a side each: a turn must keep angles in a picture that is not square.
    aspect = height / width
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    sign = -1.0 if mirrored else 1.0
    rows = torch.stack((cosine * sign, -sine * aspect, across)), torch.stack((sine / aspect * sign, cosine, down))
    grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(frames.shape), align_corners=False)
    moved = F.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    gamma, gain = (torch.exp(draw(_LIGHT))[:, None, None, None] for _ in range(2))
    return (moved.clamp(0, 1) ** gamma * gain).clamp(0, 1)
