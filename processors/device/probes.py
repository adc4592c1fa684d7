"""Probes, the frames that a camera sent whole, as STRIP's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from processors.arrivals.job import FrameJob
from processors.pipeline import Pipeline
from processors.stages.planar import Unplaced
from processors.stages.resample import resize
from processors.stages.scenes import Coarse, coarse_pictures
from processors.stages.squares import Squares, cut_frame
from schemas.messages.moving import Box


class ProbeInput(NamedTuple):
    """STRIP's input (channels, height, width), and the blocks of the whole frame, which show the probe's scene.

    The scene counts for p-values only: without the table `strip.combined` there are no blocks.
    """

    picture: Tensor
    coarse: Coarse | None


def probes_of(
    pipeline: Pipeline,
    jobs: Sequence[FrameJob],
    frames: Tensor | Unplaced,
    seeds: Tensor | None = None,
    squares: Squares | None = None,
) -> dict[int, ProbeInput]:
    """Return STRIP's input, of the network's size, for each probe among `jobs` by its position.

    There are none if the bundle has no overlays. `frames` (B, C, H, W) are the jobs' pixels in [0, 1]. `seeds` (B,) are
    those that the frames are classified with, and `squares` those of `Pipeline.squares`: STRIP sees the same square.
    """
    whole = [i for i, job in enumerate(jobs) if job.frame.whole]
    strip = pipeline.bundle.settings.strip
    if strip is None or not whole:
        return {}
    wanted = pipeline.bundle.settings.input
    size = wanted.height, wanted.width
    if squares is None:
        shown = _whole_frames(frames, whole, size)
    else:
        shown = torch.cat([_square_of(frames, i, squares[i], size) for i in whole])
    coarse: Sequence[Coarse | None] = [None] * len(whole)
    if strip.combined is not None:
        # Not of the square: the camera's view stays while things move in it.
        coarse = list(coarse_pictures(shown if squares is None else _whole_frames(frames, whole, size)))
    inputs = pipeline.probe_input(shown, None if seeds is None else seeds[whole])
    # In memory of its own: a view would keep the others alive while it waits.
    return {i: ProbeInput(each.clone(), blocks) for i, each, blocks in zip(whole, inputs, coarse, strict=True)}


def _whole_frames(frames: Tensor | Unplaced, places: Sequence[int], size: tuple[int, int]) -> Tensor:
    # Only the policies `resize` and `motion` have frames that are not placed.
    return frames[places].as_sent(*size) if isinstance(frames, Unplaced) else frames[places]


def _square_of(frames: Tensor | Unplaced, place: int, part: Box | None, size: tuple[int, int]) -> Tensor:
    """Return the square of a whole frame, or the frame, at the network's `size`: (1, C, height, width)."""
    shown = cut_frame(frames, place, part)
    return shown.as_sent(*size) if isinstance(shown, Unplaced) else resize(shown, *size)
