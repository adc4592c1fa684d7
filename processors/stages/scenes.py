"""The scene of a probe: which earlier probes of its camera show much the same.

Evidence of a trigger adds up over probes, and probes of one scene are not independent. A scene is recognised by a
coarse picture. Noise, a change of the light, a sticker and most moving things leave it much the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from schemas.limits import MAX_CAMERAS

SIDE: Final = 6
"""Blocks along each side of the coarse picture."""
LEAST_CONTRAST: Final = 8 / 255
"""Lower bound of the spread by which a coarse picture is divided: below it, noise outweighs the scene."""
SAME: Final = 0.5
"""Largest root mean square difference of coarse pictures of one scene. They have a spread of 1."""
SCENES: Final = 4
"""Scenes that are remembered for each camera, those shown last."""

Boot = tuple[str, int]
"""A camera and its boot."""


class Scenes:
    """The scenes of each boot of a camera, 1.7 kB each for the `remembered` boots whose probes came last."""

    def __init__(self, remembered: int = MAX_CAMERAS) -> None:
        self._remembered = remembered
        self._known: OrderedDict[Boot, OrderedDict[int, NDArray[np.float32]]] = OrderedDict()

    def number(self, boot: Boot, seq: int, coarse: NDArray[np.float32]) -> int:
        """Return the sequence number of the probe with which the scene of this one began: `seq` for a new scene.

        `coarse` is a row of `coarse_pictures`. The newest probe stands for its scene, which may change slowly.
        """
        known = self._known.pop(boot, None) or OrderedDict()
        scene = _nearest(known, coarse)
        if scene is None:
            scene = seq
        else:
            del known[scene]
        known[scene] = coarse
        if len(known) > SCENES:
            known.popitem(last=False)
        self._known[boot] = known
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return scene

    def numbers(self, boots: Sequence[Boot], seqs: Sequence[int], pictures: Tensor) -> list[int]:
        """Return `number` of each of `pictures` (B, C, H, W) in [0, 1]."""
        return [
            self.number(boot, seq, coarse)
            for boot, seq, coarse in zip(boots, seqs, coarse_pictures(pictures), strict=True)
        ]


def _nearest(known: OrderedDict[int, NDArray[np.float32]], coarse: NDArray[np.float32]) -> int | None:
    """Return the scene that differs least from `coarse`; None if all differ by more than `SAME`."""
    if not known:
        return None
    differences = np.sqrt(((np.stack(list(known.values())) - coarse) ** 2).mean(1))
    place = int(differences.argmin())
    return list(known)[place] if differences[place] <= SAME else None


def coarse_pictures(pictures: Tensor) -> NDArray[np.float32]:
    """Return `pictures` (B, C, H, W) in [0, 1] as coarse ones, (B, C · `SIDE`²).

    Each has a mean of 0 and a spread of 1, less if its contrast is below `LEAST_CONTRAST`.
    """
    blocks = adaptive_avg_pool2d(pictures.float(), SIDE).flatten(1)
    centred = blocks - blocks.mean(1, keepdim=True)
    spread = centred.std(1, correction=0, keepdim=True).clamp_min(LEAST_CONTRAST)
    found: NDArray[np.float32] = (centred / spread).to(torch.float32).cpu().numpy()
    return found
