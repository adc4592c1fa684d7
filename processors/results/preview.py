"""Pictures for people: JPEGs of the rebuilt picture and of the picture as sent, and a PNG as evidence."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from schemas.pixels.packing import Picture

MAX_PREVIEW_BYTES: Final = 2 * 2**20
MAX_EVIDENCE_BYTES: Final = 2**20
_QUALITIES: Final = (85, 60, 30)
HOLES_QUALITY: Final = 60
"""Quality of a picture with holes: JPEG treats holes as detail, and at 85 it has twice the bytes of the rebuilt one."""


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def preview_jpeg(picture: Picture, most: int = _QUALITIES[0]) -> bytes:
    """Encode `picture` (H, W, C) uint8 with 1 or 3 channels as JPEG in its own size; empty if it remains too large.

    The quality falls from `most` until the result fits into `MAX_PREVIEW_BYTES`.
    """
    image = _image(picture)
    for quality in (each for each in _QUALITIES if each <= most):
        data = _encoded(image, "JPEG", quality=quality)
        if len(data) <= MAX_PREVIEW_BYTES:
            return data
    return b""


def evidence_png(picture: Picture) -> bytes:
    """Encode `picture` (H, W, C) uint8 as lossless PNG; a result above `MAX_EVIDENCE_BYTES` is made smaller."""
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
