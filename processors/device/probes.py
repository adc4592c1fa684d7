"""Probes, the frames that a camera sent whole for STRIP, and the findings about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from processors.arrivals.frames import TakenFrame
from processors.pipeline import Pipeline
from processors.stages.packed import Packed


@dataclass(frozen=True, slots=True)
class Probe:
    """A frame for STRIP: `picture` (channels, height, width) of the network on the device."""

    picture: Tensor
    seed: int = 0
    """Seed of the bundle's random stages; 0 if it has none."""

    @property
    def nbytes(self) -> int:
        """Memory of the picture."""
        return self.picture.nbytes


@dataclass(frozen=True, slots=True)
class StripFinding:
    """STRIP's result for one frame after `passes` overlays. `entropy_bits` is None if the frame was shed."""

    entropy_bits: float | None
    threshold_bits: float
    passes: int = 0

    @property
    def flagged(self) -> bool:
        """Whether the frame is suspect."""
        return self.entropy_bits is not None and self.entropy_bits < self.threshold_bits


def probes_of(
    pipeline: Pipeline, taken: Sequence[TakenFrame], frames: Tensor | Packed, seeds: Tensor | None = None
) -> dict[int, Probe]:
    """Return the probes among `taken` by position; none if the bundle has no overlays.

    `frames` (B, C, H, W) are their pixels in [0, 1]. `seeds` (B,) are those that the frames are classified with.
    """
    whole = [i for i, each in enumerate(taken) if each.frame.whole]
    if pipeline.bundle.settings.strip is None or not whole:
        return {}
    placed = frames.placed if isinstance(frames, Packed) else frames
    own = None if seeds is None else seeds[whole]
    drawn = [0] * len(whole) if own is None else own.tolist()
    inputs = pipeline.probe_input(placed[whole], own)
    # In memory of its own: a view would keep the others alive while it waits.
    return {i: Probe(each.clone(), seed) for i, each, seed in zip(whole, inputs, drawn, strict=True)}
