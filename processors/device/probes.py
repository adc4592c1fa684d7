"""Probes, the frames that a camera sent whole, as STRIP's input."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from processors.arrivals.job import FrameJob
from processors.pipeline import Pipeline
from processors.stages.planar import Unplaced


def probes_of(
    pipeline: Pipeline, jobs: Sequence[FrameJob], frames: Tensor | Unplaced, seeds: Tensor | None = None
) -> dict[int, Tensor]:
    """Return STRIP's input, (channels, height, width) of the network, for each probe among `jobs` by its position.

    There are none if the bundle has no overlays. `frames` (B, C, H, W) are the jobs' pixels in [0, 1]. `seeds` (B,) are
    those that the frames are classified with.
    """
    whole = [i for i, job in enumerate(jobs) if job.frame.whole]
    if pipeline.bundle.settings.strip is None or not whole:
        return {}
    wanted = pipeline.bundle.settings.input
    # Only the policy `resize` has frames that are not placed.
    shown = frames[whole].as_sent(wanted.height, wanted.width) if isinstance(frames, Unplaced) else frames[whole]
    inputs = pipeline.probe_input(shown, None if seeds is None else seeds[whole])
    # In memory of its own: a view would keep the others alive while it waits.
    return {i: each.clone() for i, each in zip(whole, inputs, strict=True)}
