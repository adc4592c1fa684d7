"""Faults that a camera's pictures show although its frames arrive in good order: black, frozen and blurred pictures.

Black and blurred are found in the last preview. Frozen is not: two rebuilt pictures of one still scene differ by what
other masks kept, more than a quiet live scene changes. It follows from the pixels that were sent twice, which the
processor compares (`processors.stages.stillness`): of a frozen source they are the same to the bit, of a live one the
sensor's noise changes them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.cameras.state import State
from schemas.limits import LEAST_FRAMES_PER_SECOND

SIDE: Final = 64
"""Pictures are looked at with at most this many pixels on their longer side."""
BLACK_LEVEL: Final = 20.0
"""Grey level, of 255: a picture whose 99th percentile is below it is black."""
FLAT: Final = 2.0
"""A picture whose grey values deviate less shows nothing, whatever its brightness."""
FROZEN_LEVELS: Final = 0.02
"""Mean change of the pixels sent twice, in grey levels of 255, up to which nothing has changed. `python -m
benchmarks.reliability.frozen` prints 0 for every frozen source, and several times this as the least of every live
one."""
FROZEN_MS: Final = 20_000
"""A camera is frozen when nothing has changed for this long."""
_FROZEN_LOOKS: Final = 3
"""And when this many checks in succession have found nothing."""
BLURRED_PART: Final = 0.25
"""A picture is blurred when its sharpness falls below this part of what the camera had."""
_LEARNED: Final = 30
"""Pictures until the camera's own sharpness is known."""
_SLOWLY: Final = 0.02
_FOLLOWED_MS: Final = 2 * 86_400_000
"""Time constant with which the camera's own sharpness follows blurred pictures: a camera that is aimed at something
plainer is blurred for half a day to a week."""
_LONGEST_GAP_MS: Final = round(1000 / LEAST_FRAMES_PER_SECOND)
"""Maximum time between two pictures that counts for this."""


@dataclass(slots=True)
class PictureHealth:
    """The faults of one camera's pictures. Times are milliseconds on a monotonic clock."""

    black: bool = False
    frozen: bool = False
    blurred: bool = False
    pictures: int = 0
    sharpness: float = 0.0
    """The camera's usual one."""
    updated_ms: int | None = None
    """Time of the last picture; None before the first."""
    same_since_ms: int | None = None
    """Since when nothing has changed; None before the first look and after a change."""
    same_looks: int = 0

    @property
    def state(self) -> State | None:
        """`BLACK`, `FROZEN` or `BLURRED`; None while the pictures are well."""
        if self.black:
            return State.BLACK
        if self.frozen:
            return State.FROZEN
        return State.BLURRED if self.blurred else None

    def restore(self, state: State, now_ms: int) -> None:
        """Go on from the fault that was found before a restart, until a picture shows that it is over."""
        self.black, self.frozen, self.blurred = (state is each for each in (State.BLACK, State.FROZEN, State.BLURRED))
        if self.frozen:
            self.same_since_ms, self.same_looks = now_ms - FROZEN_MS, _FROZEN_LOOKS

    def update(self, jpeg: bytes, now_ms: int) -> None:
        """Look at the newest preview; one that cannot be read changes nothing."""
        grey = grey_of(jpeg)
        if grey is None:
            return
        self.pictures += 1
        since_ms = 0 if self.updated_ms is None else min(now_ms - self.updated_ms, _LONGEST_GAP_MS)
        self.updated_ms = now_ms
        self.black = float(np.percentile(grey, 99)) < BLACK_LEVEL or float(grey.std()) < FLAT
        self.blurred = not self.black and self._is_blurred(grey, since_ms)

    def compare(self, changed: float, now_ms: int) -> None:
        """Take the mean change of the pixels that were sent twice, in grey levels of 255."""
        if not changed <= FROZEN_LEVELS:
            self.same_since_ms, self.same_looks, self.frozen = None, 0, False
            return
        if self.same_since_ms is None:
            self.same_since_ms = now_ms
        self.same_looks += 1
        self.frozen = now_ms - self.same_since_ms >= FROZEN_MS and self.same_looks >= _FROZEN_LOOKS

    def _is_blurred(self, grey: NDArray[np.float32], since_ms: int) -> bool:
        found = sharpness(grey)
        if self.blurred and self.pictures <= _LEARNED:
            # Restored without the usual sharpness. A picture that is twice as sharp as this one ends the state.
            self.pictures, self.sharpness = _LEARNED + 1, 2 * found / BLURRED_PART
        is_blurred = self.pictures > _LEARNED and found < BLURRED_PART * self.sharpness
        share = since_ms / _FOLLOWED_MS if is_blurred else max(_SLOWLY, 1 / self.pictures)
        self.sharpness += share * (found - self.sharpness)
        return is_blurred


def grey_of(jpeg: bytes) -> NDArray[np.float32] | None:
    """Return the picture as grey values (H, W) from 0 to 255, at most SIDE on its longer side; None for bytes
    that are not a picture."""
    try:
        with Image.open(io.BytesIO(jpeg)) as opened:
            opened.draft("L", (SIDE, SIDE))
            image = opened.convert("L")
            image.thumbnail((SIDE, SIDE))
            return np.asarray(image, np.float32)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def sharpness(grey: NDArray[np.float32]) -> float:
    """Variance of the Laplacian with four neighbours (Pech-Pacheco et al. 2000), divided by that of the picture."""
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = 4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.var() / max(1.0, float(grey.var())))
