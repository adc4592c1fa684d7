"""The pixels that each camera sent last: what one frame dropped, the frames before it mostly kept.

Masks are fresh in every frame, so a camera that drops a quarter of its pixels has shown 98 % of a still scene in three
frames, and with it nearly all of what stands in it. STRIP sees a trigger in such a picture as in a frame sent whole;
in a single frame with dropped pixels it does not. Where a scene moves, older pixels are another scene's, and a picture
woven of two is like none that a threshold was set on: so only pixels count that came the same twice. A sticker does,
whatever moves behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from processors.stages.shapes import check_kept
from schemas.errors import StageError

REACH: Final = 8
"""Frames from which on a pixel is too old: the scene has moved on."""
STEADY: Final = 0.1
"""Difference, of full range, up to which a pixel came the same: light flickers and sensors are noisy."""
MOST_MISSING: Final = 1 / 4
"""Share of its pixels that a composed picture may lack for STRIP to take it for one that was sent whole."""
_NEVER: Final = 255
_FIRST_SLOTS: Final = 16


@dataclass
class _Held:
    """Of cameras whose frames have one shape: pixels (S, C, H, W) uint8, and of each how many frames ago it was sent,
    (S, H, W) uint8, and whether it came the same as the time before, (S, H, W) bool.
    """

    pixels: Tensor
    age: Tensor
    steady: Tensor
    newest: Tensor
    """Sequence number of each camera's newest frame (S,)."""
    slots: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)
    """The least recently seen camera first."""


class RecentPixels:
    """Fills what frames dropped with what their cameras sent in the `reach` frames before.

    Beyond `limit_bytes`, the cameras of the shape of frames that came least recently are forgotten, then those of the
    same shape that were silent for longest; only the cameras of one batch have room in any case. A camera that was
    forgotten is known again after a few frames.
    """

    def __init__(self, limit_bytes: int, reach: int = REACH) -> None:
        if not 1 <= reach < _NEVER:
            raise StageError(f"reach: expected 1 to {_NEVER - 1} frames, got {reach}")
        self._limit_bytes = limit_bytes
        self._reach = reach
        self._held: OrderedDict[tuple[int, ...], _Held] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Memory of all that is kept."""
        return sum(held.pixels.nbytes + held.age.nbytes + held.steady.nbytes for held in self._held.values())

    def compose(
        self, cameras: Sequence[Hashable], seqs: Sequence[int], frames: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take frames (B, C, H, W) in [0, 1] in, in their order; return them filled, and what is known then.

        `kept` (B, 1, H, W) says which pixels were sent, `seqs` are the frames' numbers and rise with time for each of
        `cameras`. Where the second result (B, 1, H, W) is False, the pixel was neither sent now nor the same twice in
        recent frames; there the first one is zero. A frame that comes late is filled but not remembered. Raises
        StageError when shapes do not fit.
        """
        check_kept(frames, kept)
        if not len(frames) == len(cameras) == len(seqs):
            raise StageError(f"expected a camera and a number for each of {len(frames)} frames")
        filled, known = frames.clone(), kept.clone()
        for places in _waves(cameras):
            held, slots = self._slots([cameras[i] for i in places], frames)
            numbers = torch.tensor([seqs[i] for i in places], device=frames.device)
            since = numbers - held.newest[slots]
            sent, now = kept[places], frames[places]
            pixels = held.pixels[slots]
            # Of a late frame the age is counted from the newest one: near enough, and never too young.
            age = (held.age[slots] + since.clamp(0, _NEVER)[:, None, None]).clamp_max(_NEVER)
            recent, steady = age <= self._reach, held.steady[slots]
            before = pixels.to(frames.dtype) / 255
            filled[places] = torch.where(sent, now, before)
            known[places] = sent | (recent & steady)[:, None]
            later = sent[:, 0] & (since > 0)[:, None, None]
            same = recent & ((now - before).abs().amax(1) <= STEADY)
            held.pixels[slots] = torch.where(later[:, None], (now * 255).round().clamp(0, 255).byte(), pixels)
            held.age[slots] = torch.where(later, 0, age).byte()
            held.steady[slots] = torch.where(later, same, steady)
            held.newest[slots] = torch.maximum(held.newest[slots], numbers)
        return torch.where(known, filled, 0.0), known

    def _slots(self, cameras: Sequence[Hashable], frames: Tensor) -> tuple[_Held, Tensor]:
        """Where each of `cameras`, all different, is kept; room is made for new ones."""
        shape = tuple(frames.shape[1:])
        held = self._held.get(shape)
        if held is None:
            held = self._held[shape] = _empty(shape, frames.device)
        self._held.move_to_end(shape)
        new = []
        for camera in cameras:
            if camera in held.slots:
                held.slots.move_to_end(camera)
            else:
                new.append(camera)
        for camera in new:
            held.slots[camera] = slot = self._free_slot(held, len(cameras))
            held.age[slot] = _NEVER
            held.newest[slot] = -1
        return held, torch.tensor([held.slots[camera] for camera in cameras], device=frames.device)

    def _free_slot(self, held: _Held, batch: int) -> int:
        used = len(held.slots)
        if used < len(held.age):
            return used
        wanted = max(_FIRST_SLOTS, 2 * used)
        channels, height, width = held.pixels.shape[1:]
        more = (wanted - used) * (channels + 2) * height * width
        while self.nbytes + more > self._limit_bytes and len(self._held) > 1:
            self._held.popitem(last=False)
        if used >= batch and self.nbytes + more > self._limit_bytes:
            return held.slots.popitem(last=False)[1]
        for name in ("pixels", "age", "steady", "newest"):
            old: Tensor = getattr(held, name)
            longer = old.new_zeros(wanted, *old.shape[1:])
            longer[:used] = old
            setattr(held, name, longer)
        return used


def enough(known: Tensor, sent: Tensor) -> Tensor:
    """Whether composed pictures, whose pixels are `known` (B, 1, H, W), show more than was `sent`, and enough: (B,)."""
    missing, dropped = ((~mask).float().mean((1, 2, 3)) for mask in (known, sent))
    return (missing < dropped) & (missing <= MOST_MISSING)


def _empty(shape: tuple[int, ...], device: torch.device) -> _Held:
    return _Held(
        torch.zeros(0, *shape, dtype=torch.uint8, device=device),
        torch.zeros(0, *shape[1:], dtype=torch.uint8, device=device),
        torch.zeros(0, *shape[1:], dtype=torch.bool, device=device),
        torch.zeros(0, dtype=torch.int64, device=device),
    )


def _waves(cameras: Sequence[Hashable]) -> list[list[int]]:
    """Positions in `cameras` in groups, in each of which every camera comes at most once: first frames, second ones."""
    waves: list[list[int]] = []
    seen: dict[Hashable, int] = {}
    for place, camera in enumerate(cameras):
        turn = seen[camera] = seen.get(camera, -1) + 1
        if turn == len(waves):
            waves.append([])
        waves[turn].append(place)
    return waves
