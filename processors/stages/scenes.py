"""Recognition of scenes: probes of one camera whose frames look alike.

Evidence of a trigger adds up over probes, and probes of one scene are not independent. A scene is recognised by the
mean colours of blocks of the whole frame. Noise, slight changes of the light, stickers, small objects and slow changes
leave the scene the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from schemas.limits import MAX_CAMERAS

SIDE: Final = 8
"""Blocks along each side of a frame."""
LEAST_CONTRAST: Final = 8 / 255
"""Lower bound of the contrast by which differences are divided: below it, noise outweighs the scene."""
IGNORED: Final = 12
"""Blocks that may differ by any amount: a sticker covers or touches some."""
SAME: Final = 0.35
"""Largest root mean square difference of the other blocks within one scene, as a share of its contrast."""
SCENES: Final = 12
"""Scenes that are remembered for each camera: as many as the recorder keeps frames of, by its usual settings."""
PROTECTED: Final = 6
"""Number of scenes, those shown last, that are never replaced."""
COUNTED: Final = 8
"""Probes of a scene that count when one is replaced: as many as the recorder needs to know a scene, by its usual
settings."""

Boot = tuple[str, int]
"""A camera and its boot."""
Coarse = NDArray[np.float32]
"""The blocks of a frame, (C, `SIDE`²)."""


class _Scene(NamedTuple):
    coarse: NDArray[np.float16]
    """The newest probe's."""
    probes: int
    """Its probes, at most `COUNTED`."""


class SceneMemory:
    """The scenes of each boot of a camera: about 5 kB of blocks for each of the `remembered` boots whose probes came
    last.

    A new scene replaces the one with the fewest probes, but none of those shown last. So a hand that waves at a camera
    makes it forget moments, and none of up to six views of `COUNTED` probes. Models share the memory, each on its own
    thread.
    """

    def __init__(self, remembered: int = MAX_CAMERAS) -> None:
        self._remembered = remembered
        self._known: OrderedDict[Boot, OrderedDict[int, _Scene]] = OrderedDict()
        self._lock = threading.Lock()

    def number(self, boot: Boot, seq: int, coarse: Coarse) -> int:
        """Return the sequence number of the probe with which the scene of this one began: `seq` for a new scene.

        `coarse` is a row of `coarse_pictures`. The newest probe stands for its scene, which may change slowly.
        """
        with self._lock:
            known = self._known.setdefault(boot, OrderedDict())
            scene = _nearest(known, coarse)
            if scene is None:
                scene = seq
            # In memory of its own: a row would keep its whole batch alive.
            probes = known[scene].probes if scene in known else 0
            known[scene] = _Scene(coarse.astype(np.float16), min(probes + 1, COUNTED))
            known.move_to_end(scene)
            if len(known) > SCENES:
                # Of scenes with equally many probes, the one that was shown least recently.
                del known[min(list(known)[:-PROTECTED], key=lambda scene: known[scene].probes)]
            self._known.move_to_end(boot)
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
            return scene


def _nearest(known: Mapping[int, _Scene], coarse: Coarse) -> int | None:
    """Return the scene that differs least from `coarse`; None if all differ by more than `SAME`."""
    alike = [scene for scene, each in known.items() if each.coarse.shape == coarse.shape]
    if not alike:
        return None
    found = differences(np.stack([known[scene].coarse for scene in alike]).astype(np.float32), coarse)
    found[np.isnan(found)] = np.inf
    place = int(found.argmin())
    return alike[place] if found[place] <= SAME else None


def differences(known: NDArray[np.float32], coarse: Coarse) -> NDArray[np.float32]:
    """Return how much a frame differs from `known` ones (n, C, `SIDE`²), as shares of their contrasts (n,).

    A change that is the same in all blocks of a channel does not count, nor do the `IGNORED` largest differences.
    """
    apart = coarse - known
    apart -= np.partition(apart, SIDE**2 // 2, axis=2)[..., SIDE**2 // 2, None]
    counted = SIDE**2 - IGNORED
    of_blocks = np.partition((apart**2).mean(1), counted - 1, axis=1)[:, :counted]
    contrast = known.var(2).mean(1) ** 0.5
    found: NDArray[np.float32] = np.sqrt(of_blocks.mean(1)) / np.maximum(contrast, LEAST_CONTRAST)
    return found


def coarse_pictures(frames: Tensor) -> NDArray[np.float32]:
    """Return the mean colours of the blocks of `frames` (B, C, H, W) in [0, 1], (B, C, `SIDE`²)."""
    found: NDArray[np.float32] = adaptive_avg_pool2d(frames.float(), SIDE).flatten(2).cpu().numpy()
    return found
