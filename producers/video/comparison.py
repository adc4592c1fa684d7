"""Bytes of sampled frames under other codings: raw pixels, JPEG, and the camera's codec without a mask."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from PIL import Image
from prometheus_client import Counter

from producers.video.encoder import software_encoder
from producers.video.group import encoder_rate, unmasked
from producers.video.video_settings import VideoSettings
from schemas.messages.frame import is_key_frame, parse_frame
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Planes, to_picture

EVERY: Final = 100
"""One frame in this many is compared."""
WAYS: Final = ("sent", "raw", "jpeg", "codec")
_JPEG_QUALITY: Final = 90


class Comparison:
    """The comparison of one camera's frames. Probes are left out, because other codings have none."""

    def __init__(self, settings: VideoSettings, compared: Counter) -> None:
        """`compared` counts bytes by one of `WAYS`."""
        self._settings = settings
        self._compared = compared
        self._before: Picture | Planes | None = None

    def add(self, picture: Picture | Planes, seq: int, payload: bytes, rate: float) -> None:
        """Compare a frame if it is due: its picture (H, W, C) uint8 or planes, and the message that was sent.

        `rate` is the camera's in frames a second, 0 if it is not set. The codec predicts the frame from the one before,
        unless it was sent as a key frame. Raises `SourceError` if the encoder fails.
        """
        if seq % EVERY:
            self._before = picture if (seq + 1) % EVERY == 0 else None
            return
        before, self._before = self._before, None
        frame = parse_frame(payload)
        alone = is_key_frame(frame)
        if frame.whole or (not alone and (before is None or before.shape != picture.shape)):
            return
        height, width, channels = picture.shape
        settings = self._settings
        rate = encoder_rate(settings.codec_number, rate)
        encoder = software_encoder(
            settings.codec_number, height, width, rate, settings.rate_factor, settings.max_bytes_per_second
        )
        try:
            if not alone and before is not None:
                encoder.encode(unmasked(before))
            coded = len(encoder.encode(unmasked(picture)))
        finally:
            encoder.close()
        for way, size in zip(WAYS, (len(payload), height * width * channels, _jpeg(picture), coded), strict=True):
            self._compared.labels(way).inc(size)


def _jpeg(picture: Picture | Planes) -> int:
    """Return the length of a picture as JPEG."""
    shown = to_picture(picture) if isinstance(picture, Planes) else picture
    data = BytesIO()
    Image.fromarray(shown.squeeze()).save(data, "JPEG", quality=_JPEG_QUALITY)
    return data.tell()
