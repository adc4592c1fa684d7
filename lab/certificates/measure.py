"""Certified accuracy of a bundle: pictures whose label no sticker changes, and the passes that this takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import BATCH_FRAMES, BATCH_PIXELS, LabelledPictures, to_frames
from lab.statistics import wilson
from processors.pipeline import Pipeline
from processors.stages.certify import ACROSS, Certificate, Logits, Pairs, certify, kept_outside, windows
from processors.stages.plate import reconstruct_plate
from schemas.errors import ConfigError

Fill = Literal["restorer", "plate", "grey"]
FILLS: Final[tuple[Fill, ...]] = get_args(Fill)
GREY: Final = 0.5

_Advance = Callable[[int], object]


@dataclass(frozen=True)
class Certified:
    """The outcome for n pictures.

    `labels` (n,) are by double masking, `truth` (n,) those of the data; `certified` (n,) whether all pairs agree.
    `passes` (n,) count all passes, `label_passes` (n,) those that the label alone needs.
    """

    truth: NDArray[np.int64]
    labels: NDArray[np.int64]
    certified: NDArray[np.bool_]
    passes: NDArray[np.int64]
    label_passes: NDArray[np.int64]

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Return for each picture whether double masking gives its label."""
        return np.asarray(self.labels == self.truth)

    @property
    def robust(self) -> NDArray[np.bool_]:
        """Return for each picture whether its label is certified, and true."""
        return self.clean & self.certified

    def figures(self) -> dict[str, float | list[float]]:
        """Return the figures of `pointillist lab certify --json`: shares with intervals of 95 %, passes as means."""
        found: dict[str, float | list[float]] = {}
        for name, right in (("certified", self.robust), ("clean", self.clean)):
            share = wilson(int(right.sum()), len(right))
            found |= {name: share.value, f"{name}_interval": [share.low, share.high]}
        return found | {"passes": float(self.passes.mean()), "label_passes": float(self.label_passes.mean())}


def patch_of(text: str) -> tuple[int, int]:
    """Return the rows and columns of a patch given as SIDE or HEIGHTxWIDTH in pixels. Raises ConfigError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--patch: expected SIDE or HEIGHTxWIDTH in pixels, got {text!r}. Give for example 5.")
    return int(parts[0]), int(parts[-1])


@torch.inference_mode()
def certificate(
    pipeline: Pipeline, frame: Tensor, inside: Tensor, fill: Fill = "restorer", at_once: int = BATCH_FRAMES
) -> Certificate:
    """Return the certificate of one frame (1, C, H, W) in [0, 1] for the windows `inside` (W, 1, H, W).

    Bundles with random stages get one draw for all passes.
    """
    bundle = pipeline.bundle
    seeds = bundle.seeds(1, torch.Generator().manual_seed(0))

    def judge(pairs: Pairs) -> Logits:
        kept = kept_outside(inside, torch.from_numpy(pairs))
        frames = frame.expand(len(kept), -1, -1, -1)
        own = None if seeds is None else seeds.expand(len(kept))
        if fill == "restorer":
            found = pipeline.logits(frames, kept, own)
        else:
            filled = reconstruct_plate(frames, kept) if fill == "plate" else torch.where(kept, frames, GREY)
            found = bundle.logits(bundle.prepare(filled), own)
        return np.asarray(found.float().cpu().numpy())

    return certify(judge, len(inside), at_once)


def check_patch(pictures: LabelledPictures, patch: tuple[int, int]) -> None:
    """Raise ConfigError for a patch that is larger than the pictures."""
    height, width = pictures.images.shape[1:3]
    if patch[0] > height or patch[1] > width:
        raise ConfigError(
            f"patch: expected at most {height}x{width} pixels, the pictures' size, got "
            f"{patch[0]}x{patch[1]}. Choose a smaller one."
        )


def measure(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    patch: tuple[int, int],
    *,
    across: int = ACROSS,
    fill: Fill = "restorer",
    advance: _Advance = lambda count: None,
) -> Certified:
    """Certify each of `pictures` against patches of (rows, columns) pixels. Raises ConfigError for a larger patch."""
    check_patch(pictures, patch)
    height, width = pictures.images.shape[1:3]
    device = pipeline.bundle.device
    inside = windows(height, width, patch, across).to(device)
    at_once = max(1, min(BATCH_FRAMES, BATCH_PIXELS // (height * width)))
    found = []
    for number in range(len(pictures)):
        frame = to_frames(pictures.images[number : number + 1], device)
        found.append(certificate(pipeline, frame, inside, fill, at_once))
        advance(1)
    return Certified(
        pictures.labels,
        np.array([each.label for each in found], np.int64),
        np.array([each.certified for each in found], np.bool_),
        np.array([each.passes for each in found], np.int64),
        np.array([each.label_passes for each in found], np.int64),
    )
