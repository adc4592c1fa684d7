"""The settings of the profile `video`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from schemas.messages.access_unit import Codec
from schemas.settings import SettingsTable

USUAL_CRF: Final = {Codec.H264: 23, Codec.AV1: 28}
"""Rate factors with a loss of at most about one decibel under the mask."""


class VideoSettings(SettingsTable):
    """The codec of a camera under the profile `video`."""

    codec: Literal["h264", "av1"] = "h264"
    """H.264 by libx264, or AV1 by SVT-AV1: a third of the bytes for twice the CPU time."""
    crf: int | None = Field(default=None, ge=0, le=51)
    """Constant rate factor: a lower value gives a better picture and more bytes. Default: 23 for H.264, 28 for AV1.
    Software encoding of H.264 subtracts .25, because dropped pixels are reconstructed from decoded ones."""
    max_bytes_per_second: int | None = Field(default=None, ge=4096, le=2**27)
    """H.264: maximum mean bytes a second of all frames except probes. Above it, the quality is reduced. Any T seconds
    have at most the bytes of T + 2 seconds: one second up to three times the mean, a minute 3 % more. Default: no
    limit; only the rate factor determines the size."""
    group_frames: int = Field(default=100, ge=1, le=1000)
    """Maximum frames of a group. A group has one mask, and a lost frame costs the rest of its group."""
    group_s: float = Field(default=5.0, gt=0, le=60, allow_inf_nan=False)
    """Maximum seconds of a group."""
    hardware: Literal["none", "auto", "nvenc", "qsv", "v4l2m2m"] = "none"
    """A hardware encoder for H.264. If it does not open, or `max_bytes_per_second` is set, software encodes instead,
    and the log has the reason."""

    @property
    def rate_factor(self) -> int:
        """The constant rate factor."""
        return USUAL_CRF[self.codec_number] if self.crf is None else self.crf

    @property
    def codec_number(self) -> Codec:
        """The codec as on the wire."""
        return Codec.AV1 if self.codec == "av1" else Codec.H264
