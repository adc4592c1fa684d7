"""The view of an attack on the profile `video`: the defence with the codec between the drop and the classifier.

A camera fills what it dropped and encodes the picture. The processor decodes it and reads the kept pixels. Every
picture is the key frame of a group of its own, with the default settings. libx264 codes key frames at least as finely
as the frames that follow, so they preserve an attack best.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab.attacks.contract import Defended
from lab.codec import through_key_frame
from lab.data import to_frames, to_images
from lab.masks import check_drop_ratio, random_masks
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from processors.stages.planar import PlanarFrames, PlaneMask
from schemas.pixels.planes import to_picture


def coded(pipeline: Pipeline, share: float) -> Defended:
    """Return the classifier behind fresh masks and the codec, as the processor computes it on a CPU; no gradients.

    Frames (B, 3, H, W) must shrink to the network's size by two or more along both sides, as under `PlanarFrames`. The
    generator must be on the CPU. Raises ConfigError for a share outside [0, 0.875].
    """
    check_drop_ratio(share)

    @torch.no_grad()
    def as_processed(frames: Tensor, generator: torch.Generator) -> Tensor:
        logits = []
        for picture, mask in zip(to_images(frames), _masks(frames, share, generator), strict=True):
            kept = [PlaneMask(mask)]
            planar = PlanarFrames([through_key_frame(picture, mask)], 3, kept, kept)
            seen, _ = pipeline.network_input(planar, planar.kept)
            logits.append(pipeline.bundle.logits(seen, pipeline.bundle.seeds(1, generator)))
        return torch.cat(logits)

    return as_processed


def coded_bpda(pipeline: Pipeline, share: float) -> Defended:
    """Return the same defence for an adaptive attacker, by BPDA (Athalye et al. 2018, section 4.1).

    Forward, a frame has the values of its decoded picture. Backward, rounding, fill and codec count as the identity.
    Drop, resampling, restoration and network have their own gradients, at the decoded picture. The resampling is that
    of RGB frames, which differs from the one of planes by .3 grey levels in the mean.
    """
    check_drop_ratio(share)

    def straight_through(frames: Tensor, generator: torch.Generator) -> Tensor:
        kept = _masks(frames, share, generator)
        with torch.no_grad():
            pictures = [
                to_picture(through_key_frame(picture, mask))
                for picture, mask in zip(to_images(frames), kept, strict=True)
            ]
            change = to_frames(np.stack(pictures), frames.device) - frames
        masks = torch.from_numpy(kept)[:, None].to(frames.device)
        seeds = pipeline.bundle.seeds(len(frames), generator)
        return pipeline.logits(drop(frames + change, masks), masks, seeds)

    return straight_through


def _masks(
    frames: Tensor, share: float, generator: torch.Generator
) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    height, width = frames.shape[2:]
    return random_masks(len(frames), height, width, share, generator)[:, 0].numpy()
