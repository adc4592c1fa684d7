"""Which frames STRIP is to look at, and what of them: probes, sent whole, and a sample of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from processors.intake import TakenFrame
from processors.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Probe:
    """A frame for STRIP: `picture` (channels, height, width) of the network on the device, and what it has lost."""

    picture: Tensor
    dropped_per_block: int
    """0 of a frame that was sent whole."""

    @property
    def nbytes(self) -> int:
        """Memory of the picture."""
        return self.picture.nbytes


def probes_of(
    pipeline: Pipeline, taken: Sequence[TakenFrame], frames: Tensor, sent: Tensor, dropped_share: float
) -> dict[int, Probe]:
    """What STRIP is to look at, by positions in `taken`, whose pixels `sent` (B, 1, H, W) are in `frames` (B, C, H, W).

    All that were sent whole, and `dropped_share` of those without some of their pixels for whose drop ratio the bundle
    has a threshold; nothing without overlays.
    """
    strip = pipeline.bundle.settings.strip
    if strip is None:
        return {}
    whole = [i for i, each in enumerate(taken) if each.frame.whole]
    dropped = [
        i
        for i, each in enumerate(taken)
        if not each.frame.whole
        and strip.threshold(each.frame.dropped_per_block) is not None
        and _sampled(each, dropped_share)
    ]
    inputs: list[Tensor] = []
    if whole:
        inputs += list(pipeline.probe_input(frames[whole]))
    if dropped:
        inputs += list(pipeline.dropped_input(frames[dropped], sent[dropped]))
    # Each in memory of its own: a view would keep the others alive while it waits.
    return {
        i: Probe(picture.clone(), 0 if taken[i].frame.whole else taken[i].frame.dropped_per_block)
        for i, picture in zip(whole + dropped, inputs, strict=True)
    }


def _sampled(taken: TakenFrame, share: float) -> bool:
    """Whether a frame is of the sample, of which its key decides: the same when it comes again, and no one's guess."""
    word = taken.key.frame_seed(taken.frame.boot_id, taken.frame.seq)[0]
    return (word & 0xFFFFFFFF) < share * 2**32
