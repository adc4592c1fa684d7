"""Small pictures for alerts."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

THUMBNAIL_SIDE: Final = 128
_LARGEST: Final = 4 * 2**20


def thumbnail(picture: bytes, kind: str = "PNG") -> bytes:
    """Return a small PNG of a picture of this kind; empty for any other, and for one that is too large or damaged."""
    if not picture or len(picture) > _LARGEST:
        return b""
    try:
        with Image.open(io.BytesIO(picture), formats=[kind]) as image:
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            small = io.BytesIO()
            image.save(small, "PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return b""
    return small.getvalue()
