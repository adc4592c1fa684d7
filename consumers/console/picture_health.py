"""Whether a camera's picture shows anything: black, frozen and blurred pictures come with frames in good order.

Only the last pictures are looked at, as people see them. A rebuilt picture differs a little from the one before even
when the scene does not move, since other pixels were kept: a frozen source is told by means of blocks, which that moves
less than a sensor's noise and a clock in the corner do.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.console.states import State

SIDE: Final = 64
"""Pictures are looked at with at most so many pixels on their longer side."""
_BLOCK: Final = 8
BLACK_LEVEL: Final = 20.0
"""Of 255: a picture whose 99th percentile is below it is black."""
FLAT: Final = 2.0
"""A picture whose grey values deviate less shows nothing, whatever its brightness."""
FROZEN_LEVELS: Final = 0.05
"""Mean change of the blocks' means, of 255, below which a picture counts as the one before."""
FROZEN_MS: Final = 20_000
"""It is frozen when it has been the one before for so long."""
BLURRED_PART: Final = 0.25
"""A picture is blurred when its sharpness falls below this part of what the camera had."""
_LEARNED: Final = 30
"""Pictures until the camera's own sharpness is known."""
_SLOWLY: Final = 0.02


@dataclass(slots=True)
class PictureHealth:
    """What the last pictures of one camera say."""

    state: State | None = None
    """BLACK, FROZEN or BLURRED; None while the picture is well."""
    pictures: int = 0
    sharpness: float = 0.0
    """Of the camera as it was."""
    blocks: NDArray[np.float32] | None = field(default=None, repr=False)
    same_since_ms: int = 0

    def see(self, jpeg: bytes, now_ms: int) -> None:
        """Look at the newest picture; one that cannot be read says nothing. `now_ms` is on a monotonic clock."""
        grey = grey_of(jpeg)
        if grey is None:
            return
        self.pictures += 1
        dark = float(np.percentile(grey, 99)) < BLACK_LEVEL or float(grey.std()) < FLAT
        self.state = State.BLACK if dark else (self._frozen(grey, now_ms) or self._blurred(grey))

    def _frozen(self, grey: NDArray[np.float32], now_ms: int) -> State | None:
        blocks = block_means(grey)
        before, self.blocks = self.blocks, blocks
        if before is None or before.shape != blocks.shape or float(np.abs(before - blocks).mean()) > FROZEN_LEVELS:
            self.same_since_ms = now_ms
        elif now_ms - self.same_since_ms >= FROZEN_MS:
            return State.FROZEN
        return None

    def _blurred(self, grey: NDArray[np.float32]) -> State | None:
        found = sharpness(grey)
        if self.pictures > _LEARNED and found < BLURRED_PART * self.sharpness:
            return State.BLURRED
        share = max(_SLOWLY, 1 / self.pictures)
        self.sharpness += share * (found - self.sharpness)
        return None


def grey_of(jpeg: bytes) -> NDArray[np.float32] | None:
    """The picture as grey values (H, W) from 0 to 255, at most SIDE on its longer side; None for what is no picture."""
    try:
        with Image.open(io.BytesIO(jpeg)) as opened:
            opened.draft("L", (SIDE, SIDE))
            image = opened.convert("L")
            image.thumbnail((SIDE, SIDE))
            return np.asarray(image, np.float32)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def block_means(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The means of blocks of 8 x 8 pixels, (H // 8, W // 8); of a smaller picture its own mean."""
    height, width = (max(1, side // _BLOCK) for side in grey.shape)
    rows, columns = grey.shape[0] // height, grey.shape[1] // width
    cut = grey[: height * rows, : width * columns].reshape(height, rows, width, columns)
    means: NDArray[np.float32] = cut.mean(axis=(1, 3), dtype=np.float32)
    return means


def sharpness(grey: NDArray[np.float32]) -> float:
    """Variance of the Laplacian with four neighbours (Pech-Pacheco et al. 2000), divided by that of the picture."""
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = 4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.var() / max(1.0, float(grey.var())))
