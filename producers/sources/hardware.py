"""Decoding by hardware, where PyAV's FFmpeg and this machine have it."""

from __future__ import annotations

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from schemas.errors import SourceError


def accelerator(hardware: str, name: str) -> HWAccel | None:
    """Return the options to open a container with for the setting `hardware` (see `SourceSettings`); None is software.

    `auto` tries each kind of device that FFmpeg supports and falls back to software. A device that is requested by name
    and is missing raises a `SourceError` of the source called `name`.
    """
    kind, _, device = hardware.partition(":")
    if kind == "none":
        return None
    known = hwdevices_available()
    if kind == "auto":
        found = next((candidate for candidate in known if _opens(candidate, None)), None)
        return HWAccel(found, allow_software_fallback=True) if found is not None else None
    if kind not in known:
        raise SourceError.of(
            name, f"expected hardware that decodes ({', '.join(known) or 'there is none'}), got {kind}"
        )
    if not _opens(kind, device or None):
        raise SourceError.of(name, f"expected hardware that decodes, got a machine without {hardware}")
    return HWAccel(kind, device or None, allow_software_fallback=False)


def _opens(kind: str, device: str | None) -> bool:
    """Return whether the device works, tested with H.264, the decoder of nearly all cameras."""
    try:
        HWAccel(kind, device).create(av.Codec("h264", "r"))
    except (av.FFmpegError, OSError, NotImplementedError, ValueError):
        return False
    return True
