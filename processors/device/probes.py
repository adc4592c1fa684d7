"""Which frames STRIP is to look at, and what of them: probes, sent whole, and a sample of the others; what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from processors.arrivals.frames import TakenFrame
from processors.pipeline import Pipeline
from processors.stages.packed import Packed
from processors.stages.recent_pixels import RecentPixels, enough


@dataclass(frozen=True, slots=True)
class Probe:
    """A frame for STRIP: `picture` (channels, height, width) of the network on the device, and what it has lost."""

    picture: Tensor
    dropped_per_block: int
    """What the frame has lost of each block; 0 of one that was sent whole, and of a composed one."""
    composed: bool = False
    """Whether what the frame dropped is taken from its camera's frames before it."""
    seed: int = 0
    """Of what the bundle's random stages draw; 0 where it has none."""

    @property
    def nbytes(self) -> int:
        """Memory of the picture."""
        return self.picture.nbytes


@dataclass(frozen=True, slots=True)
class StripFinding:
    """What STRIP said about one frame, after `passes` overlays. `entropy_bits` is None when it was shed."""

    entropy_bits: float | None
    threshold_bits: float
    passes: int = 0

    @property
    def flagged(self) -> bool:
        """Whether the frame is suspect."""
        return self.entropy_bits is not None and self.entropy_bits < self.threshold_bits


def probes_of(
    pipeline: Pipeline,
    taken: Sequence[TakenFrame],
    frames: Tensor | Packed,
    sent: Tensor,
    dropped_share: float,
    recent: RecentPixels,
    seeds: Tensor | None = None,
) -> dict[int, Probe]:
    """What STRIP is to look at, by positions in `taken`, whose pixels `sent` (B, 1, H, W) are in `frames` (B, C, H, W).

    All that were sent whole, and `dropped_share` of those without some of their pixels: composed with `recent` pixels
    of the same camera where these suffice, else alone where the bundle has a threshold for the drop ratio. Nothing
    without overlays. `seeds` (B,) are those that the frames are classified with.
    """
    strip = pipeline.bundle.settings.strip
    if strip is None or not taken:
        return {}
    found: dict[int, Probe] = {}
    drawn = [0] * len(taken) if seeds is None else seeds.tolist()

    def own(places: list[int]) -> Tensor | None:
        return None if seeds is None else seeds[places]

    def add(places: list[int], inputs: Tensor, composed: bool) -> None:
        for i, picture in zip(places, inputs, strict=True):
            lost = 0 if composed or taken[i].frame.whole else taken[i].frame.dropped_per_block
            # In memory of its own: a view would keep the others alive while it waits.
            found[i] = Probe(picture.clone(), lost, composed, drawn[i])

    if isinstance(frames, Packed):
        if not dropped_share and not any(each.frame.whole for each in taken):
            return {}
        frames = frames.placed
    if whole := [i for i, each in enumerate(taken) if each.frame.whole]:
        add(whole, pipeline.probe_input(frames[whole], own(whole)), False)
    if not dropped_share:
        return found
    boots = [(each.camera_id, each.frame.boot_id) for each in taken]
    filled, known = recent.compose(boots, [each.frame.seq for each in taken], frames, sent)
    fit = enough(known, sent).tolist()
    sampled = [i for i, each in enumerate(taken) if not each.frame.whole and _sampled(each, dropped_share)]
    if composed := [i for i in sampled if fit[i]]:
        add(composed, pipeline.composed_input(filled[composed], known[composed], own(composed)), True)
    alone = [i for i in sampled if i not in found and strip.threshold(taken[i].frame.dropped_per_block) is not None]
    if alone:
        add(alone, pipeline.dropped_input(frames[alone], sent[alone], own(alone)), False)
    return found


def _sampled(taken: TakenFrame, share: float) -> bool:
    """Whether a frame is of the sample, of which its key decides: the same when it comes again, and no one's guess."""
    word = taken.key.frame_seed(taken.frame.boot_id, taken.frame.seq)[0]
    return (word & 0xFFFFFFFF) < share * 2**32
