"""Probes, the frames that a camera sent whole, as STRIP's input."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from processors.arrivals.job import FrameJob
from processors.pipeline import Pipeline
from processors.stages.packed import Packed


def probes_of(
    pipeline: Pipeline, jobs: Sequence[FrameJob], frames: Tensor | Packed, seeds: Tensor | None = None
) -> dict[int, Tensor]:
    """Return STRIP's input, (channels, height, width) of the network, for each probe among `jobs` by its position.

    There are none if the bundle has no overlays. `frames` (B, C, H, W) are the jobs' pixels in [0, 1]. `seeds` (B,) are
    those that the frames are classified with.
    """
    whole = [i for i, job in enumerate(jobs) if job.frame.whole]
    if pipeline.bundle.settings.strip is None or not whole:
        return {}
    placed = frames.placed if isinstance(frames, Packed) else frames
    inputs = pipeline.probe_input(placed[whole], None if seeds is None else seeds[whole])
    # In memory of its own: a view would keep the others alive while it waits.
    return {i: each.clone() for i, each in zip(whole, inputs, strict=True)}
