"""The camera's pixel drop, applied on the server to frames that were sent whole."""

from __future__ import annotations

from torch import Tensor

from processors.stages.shapes import check_kept


def drop(frames: Tensor, kept: Tensor) -> Tensor:
    """Set `frames` (B, C, H, W) to zero where `kept` (B, 1, H, W) is False, in all channels (SUPER-IoT, eq. 2).

    A probe frame reaches the classifier like any other frame: through this and then the reconstruction. The frames are
    finite.
    """
    check_kept(frames, kept)
    return frames * kept  # on a CPU several times as fast as `masked_fill`
