"""Facts about a source that only its opening shows: the rotation of a video file, and the device behind a link."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Final

import av
from pydantic import SecretStr

from producers.sources.decoder import check_video, decode_video
from producers.sources.framing import Framing
from producers.sources.settings import SourceSettings
from schemas.errors import SourceError

_DEVICES: Final = "/dev/"
_MATRIX: Final = struct.Struct("=5i")
"""Begin of FFmpeg's display matrix: the directions, right and down, of a stored row, and of a stored column after a
third number that is not used."""


def resolve_settings(settings: SourceSettings) -> SourceSettings:
    """Return the settings for one opening; may block, raises `SourceError`.

    `rotate` includes the rotation of a video file's display matrix, as players apply it: telephones store upright clips
    sideways. A link such as `/dev/v4l/by-id/…` becomes its device, which FFmpeg knows by its name alone.
    """
    address = "" if settings.address is None else settings.address.get_secret_value()
    if address.startswith(_DEVICES):
        return settings.model_copy(update={"address": SecretStr(str(Path(address).resolve()))})
    file = Path(address.removeprefix("file://")) if settings.file is None else settings.file
    if settings.kind not in ("video", "url") or not file.is_file():
        return settings
    return settings.model_copy(update={"rotate": (settings.rotate + _rotation(file)) % 360})


def _rotation(file: Path) -> int:
    """Return the degrees, clockwise, by which players turn the video; 0 unless a multiple of 90.

    A mirrored picture is turned upright, but stays as it is stored otherwise.
    """
    name = f"video {file}"
    try:
        container = av.open(str(file))
    except (av.FFmpegError, OSError) as error:
        raise SourceError.of(name, error.strerror or type(error).__name__) from None
    with container:
        check_video(container, name, Framing())
        frame = next(decode_video(container, name), None)
    if frame is None:
        raise SourceError.of(name, "no frame of it decodes")
    if "DISPLAYMATRIX" not in frame.side_data:
        return 0
    matrix = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's annotation lacks it
    across, down, _, other_across, other_down = _MATRIX.unpack_from(bytes(matrix))
    if across * other_down < down * other_across:
        across = -across
    degrees = math.degrees(math.atan2(down, across))
    return round(degrees) % 360 if round(degrees) % 90 == 0 else 0
