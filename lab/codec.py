"""The way of a picture under the profile `video`: fill and encoder of a camera, decoder of the processor.

Each step is the product's own function. Sealing is left out, because it changes no byte of a picture.
"""

from __future__ import annotations

import av
import numpy as np

from processors.decoding.worker import decode, open_decoder
from producers.video.encoder import encode_alone, software_encoder
from producers.video.group import USUAL_RATE
from producers.video.video_settings import VideoSettings
from schemas.messages.access_unit import Codec
from schemas.pixels.fill import Fill
from schemas.pixels.masks import Mask
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Colour, Planes, chroma_shape, to_picture


class Decoder:
    """The decoder of access units of one picture size."""

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._context: av.VideoCodecContext | None = None
        self._place = np.empty(2 * height * width + height + width, dtype=np.uint8)

    def planes(self, codec: Codec, unit: bytes, colour: Colour, *, first: bool) -> Planes:
        """Return the decoded planes of a unit, in memory that the next call overwrites.

        `first` begins a new chain.
        """
        height, width = self._size
        if first or self._context is None:
            self._context = open_decoder(codec, height, width)
        decode(self._context, unit, height, width, self._place)
        rows, columns = chroma_shape(height, width)
        luma, blue, red, _ = np.split(self._place, np.cumsum([height * width, rows * columns, rows * columns]).tolist())
        return Planes(luma.reshape(height, width), blue.reshape(rows, columns), red.reshape(rows, columns), colour)

    def picture(self, codec: Codec, unit: bytes, like: Planes, *, first: bool) -> Picture:
        """Return the picture (H, W, 3) of a unit, in the colour of `like`."""
        return to_picture(self.planes(codec, unit, like.colour, first=first))


def through_key_frame(picture: Picture, kept: Mask, settings: VideoSettings | None = None) -> Planes:
    """Return the decoded planes of an RGB `picture` (H, W, 3) uint8, sent as the key frame of a group.

    `kept` (H, W) is the mask of the group. Values at dropped positions come from the fill: the classifier ignores them.
    """
    height, width = kept.shape
    settings = settings or VideoSettings()
    planes = Fill(kept).picture(picture)
    encoder = software_encoder(settings.codec_number, height, width, USUAL_RATE, settings.rate_factor)
    try:
        unit = encoder.encode(planes)
    finally:
        encoder.close()
    return Decoder(height, width).planes(encoder.codec, unit, planes.colour, first=True)


def through_probe(picture: Picture) -> Picture:
    """Return the decoded picture (H, W, 3) of an RGB `picture`, sent whole as a probe."""
    height, width, _ = picture.shape
    planes = Fill(np.ones((height, width), dtype=np.bool_)).picture(picture)
    return Decoder(height, width).picture(Codec.H264, encode_alone(planes), planes, first=True)
