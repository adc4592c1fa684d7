"""Pictures for people: a JPEG of what the server sees, and a PNG as evidence."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

MAX_PREVIEW_BYTES: Final = 2 * 2**20
MAX_EVIDENCE_BYTES: Final = 2**20
_QUALITIES: Final = (85, 60, 30)


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def preview_jpeg(picture: Picture) -> bytes:
    """`picture` (H, W, C) uint8 with 1 or 3 channels as JPEG in its own size; empty when it cannot be made small.

    The quality falls until it fits into `MAX_PREVIEW_BYTES`.
    """
    image = _image(picture)
    for quality in _QUALITIES:
        data = _encoded(image, "JPEG", quality=quality)
        if len(data) <= MAX_PREVIEW_BYTES:
            return data
    return b""


def evidence_png(picture: Picture) -> bytes:
    """`picture` (H, W, C) uint8 as PNG, without loss unless that would exceed `MAX_EVIDENCE_BYTES`: then smaller."""
    image = _image(picture)
    # Noise does not compress: a frame far above the bound is halved before it costs seconds to encode.
    while picture.size > 16 * MAX_EVIDENCE_BYTES or len(data := _encoded(image, "PNG")) > MAX_EVIDENCE_BYTES:
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BOX)
        picture = np.asarray(image)
    return data


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


class PreviewClock:
    """Whose preview is due: at most one for each camera in an interval. Remembers a bounded number of cameras."""

    def __init__(self, interval_s: float, capacity: int = 4096) -> None:
        self._interval_s = interval_s
        self._capacity = capacity
        self._last_s: OrderedDict[str, float] = OrderedDict()

    def due(self, camera_id: str, now_s: float) -> bool:
        """Whether `camera_id` is due now, by a monotonic clock; if so, its next one is an interval away."""
        last_s = self._last_s.get(camera_id)
        if last_s is not None and now_s - last_s < self._interval_s:
            return False
        self._last_s[camera_id] = now_s
        self._last_s.move_to_end(camera_id)
        if len(self._last_s) > self._capacity:
            self._last_s.popitem(last=False)
        return True
