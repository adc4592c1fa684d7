"""Hardware encoders of H.264, where PyAV's FFmpeg and this machine have one; else the reason for software."""

from __future__ import annotations

from typing import Final

import numpy as np

from producers.video.encoder import Encoder, FFmpegEncoder
from schemas.errors import SourceError
from schemas.messages.access_unit import Codec
from schemas.pixels.planes import Planes, chroma_shape

_OPTIONS: Final = {
    "nvenc": {"preset": "p1", "tune": "ull", "rc": "constqp", "zerolatency": "1", "delay": "0", "bf": "0"},
    "qsv": {"preset": "veryfast", "async_depth": "1", "low_delay_brc": "1", "bf": "0"},
    "v4l2m2m": {"bf": "0"},
}
_QUALITY: Final = {"nvenc": "qp", "qsv": "global_quality"}
"""Option that takes the rate factor."""
_LAYOUT: Final = {"qsv": "nv12"}
"""FFmpeg's pixel format of an encoder that takes no planes of its own for each colour."""
KINDS: Final = tuple(_OPTIONS)
_PROVEN: Final[set[tuple[str, int, int]]] = set()
"""The kinds and sizes (height, width) that have passed their trial in this process."""


def hardware_encoder(
    kind: str, height: int, width: int, rate: float, crf: int, max_bytes_per_second: int | None = None
) -> tuple[Encoder | None, str]:
    """Return a hardware encoder, or None and the reason. `kind` is one of `KINDS`, or `auto` for the first that opens.

    The first encoder of a size is tried with two grey pictures: it must return each picture's access unit at once.
    Their group is then over, and a fresh encoder is returned. With a limit of the bytes a second, none is: only
    software keeps it.
    """
    if max_bytes_per_second is not None:
        return None, "max_bytes_per_second: expected none with a hardware encoder. Only software keeps the limit."
    reasons = []
    for each in KINDS if kind == "auto" else (kind,):
        try:
            if (each, height, width) not in _PROVEN:
                _try(_opened(each, height, width, rate, crf), height, width)
                _PROVEN.add((each, height, width))
            return _opened(each, height, width, rate, crf), ""
        except SourceError as error:
            reasons.append(str(error))
    return None, "; ".join(reasons)


def _opened(kind: str, height: int, width: int, rate: float, crf: int) -> Encoder:
    options = dict(_OPTIONS[kind])
    if kind in _QUALITY:
        options[_QUALITY[kind]] = str(crf)
    return FFmpegEncoder(f"h264_{kind}", Codec.H264, height, width, rate, options, _LAYOUT.get(kind, "yuv420p"))


def _try(encoder: Encoder, height: int, width: int) -> None:
    try:
        grey = np.full((height, width), 128, dtype=np.uint8)
        chroma = np.full(chroma_shape(height, width), 128, dtype=np.uint8)
        for _ in range(2):
            encoder.encode(Planes(grey, chroma, chroma))
    finally:
        encoder.close()
