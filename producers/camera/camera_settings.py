"""The settings of cameras, one by one and in groups; real and simulated cameras share them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from pydantic import BaseModel, Field, SecretStr, model_validator

from producers.gate.motion import MotionSettings
from producers.gate.schedule import Schedule
from producers.publisher import WindowSettings
from producers.sources.login import LoginPlace
from producers.sources.settings import SourceSettings
from producers.spool import SpoolLimits
from producers.video.video_settings import VideoSettings
from schemas.errors import ConfigError
from schemas.identity import CameraId, camera_id
from schemas.limits import MAX_DROP_RATIO, MAX_FRAMES_PER_SECOND, dropped_per_block
from schemas.messages.frame import PROFILES, Encoding
from schemas.settings import SettingsTable

Profile = Literal["raw", "lossless", "video"]

_INDEX: Final = re.compile(r"\{index(?::0?(\d))?\}")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class SendingOptions(SettingsTable):
    """The part of a camera's settings that concerns sending."""

    fps: float = Field(default=2.0, ge=0, le=MAX_FRAMES_PER_SECOND, allow_inf_nan=False)
    """Frames per second; 0 sends every frame of a live source, and frames of other sources as fast as the window
    allows."""
    drop_ratio: float = Field(default=0.25, ge=0, le=MAX_DROP_RATIO)
    """Share of the pixels that is not sent, rounded to whole pixels in each block of 64."""
    probe_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the frames that are sent whole, for STRIP: one of every round(1 ÷ share) consecutive frames."""
    profile: Profile = "raw"
    """Coding of the kept pixels: raw (unchanged), lossless (compressed) or video (by a video codec). A picture with a
    side below 128 is sent raw instead of video."""
    video: VideoSettings = VideoSettings()
    """The codec of the profile `video`."""
    measure_codec: bool = False
    """Encode one frame in a hundred as JPEG and by the codec without a mask too, for the metric of bytes saved."""
    schedule: Schedule | None = None
    """Hours in which the camera sends; outside of them its source is closed. Default: always."""
    motion: MotionSettings | None = None
    """Motion gate: only frames with motion and heartbeats are sent. Default: every frame is sent."""
    spool: SpoolLimits = SpoolLimits()
    """Limits of the unconfirmed frames on disk."""
    window: WindowSettings = WindowSettings()
    """Limits of the frames in flight."""

    @model_validator(mode="after")
    def _limit_fits_codec(self) -> Self:
        # SVT-AV1 ignores its own limit under low delay.
        if self.video.codec == "av1" and self.video.max_bytes_per_second is not None:
            raise ValueError(
                "video: expected max_bytes_per_second with the codec h264 only, got av1. Remove it, or set codec: h264"
            )
        return self

    def in_hours(self, now_s: float) -> bool:
        """Return whether the schedule includes this Unix time."""
        return self.schedule is None or self.schedule.holds(now_s)

    @property
    def encoding(self) -> Encoding:
        """The encoding of frames until a command changes it."""
        return Encoding(dropped_per_block(self.drop_ratio), self.probe_share, PROFILES[self.profile])


class CameraOptions(SendingOptions):
    """The options for all cameras and for each."""

    source: SourceSettings = Field(default_factory=SourceSettings)
    """The source of the pictures; a simulated scene by default."""


class CameraSettings(CameraOptions):
    """One camera. `index` is its number in the fleet, by which simulated sources differ."""

    camera_id: CameraId
    index: int = Field(default=0, ge=0)


class CameraGroup(CameraOptions):
    """`count` cameras that differ in name and index only.

    `{index}` in the name and in the source's address counts from `first`; `{index:02}` is padded with zeros.
    """

    name: str = "cam-{index:02}"
    """The name without the site: a–z, 0–9, `_ . -`, at most 64 characters with it. `{index}` is required if `count`
    exceeds 1."""
    count: int = Field(default=1, ge=1, le=100_000)
    """Number of cameras."""
    first: int = Field(default=0, ge=0, le=10**9)
    """The first value of `{index}`."""

    def numbers(self) -> range:
        """Return the value of `{index}` for each camera."""
        return range(self.first, self.first + self.count)


Group = TypeVar("Group", bound=CameraGroup)

MODELS: Final[dict[str, type[BaseModel]]] = {
    "defaults": CameraOptions,
    "cameras": CameraGroup,
    "source": SourceSettings,
    "login": LoginPlace,
    "motion": MotionSettings,
    "schedule": Schedule,
    "spool": SpoolLimits,
    "video": VideoSettings,
    "window": WindowSettings,
}
"""The model of each key in a file of cameras."""


def cameras_of(site: str, groups: Sequence[Group]) -> Iterator[tuple[Group, int, CameraSettings]]:
    """Yield every camera of the groups, with its group and the value of `{index}`.

    Raises `ConfigError` when two cameras have one name, or an address asks for a variable that is not set.
    """
    seen: set[CameraId] = set()
    for number, group in enumerate(groups):
        options = {name: getattr(group, name) for name in CameraOptions.model_fields}
        for index in group.numbers():
            name = camera_id(f"{site}/{numbered(group.name, index)}")
            if name in seen:
                raise ConfigError(f"cameras: expected one camera {name}, got two. Write {{index}} in the name.")
            try:
                options["source"] = addressed(group.source, index)
            except ConfigError as error:
                raise ConfigError(f"cameras.{number}.{error}") from None
            yield group, index, CameraSettings(camera_id=name, index=len(seen), **options)
            seen.add(name)


def addressed(source: SourceSettings, index: int) -> SourceSettings:
    """Return the source of a group's camera `index`. Replace `{index}` and `${VARIABLE}` in its file or address.

    Raises `ConfigError` for a variable that the environment does not have.
    """
    if source.address is None:
        file = source.file and Path(_replaced(str(source.file), index))
        return source if file == source.file else source.model_copy(update={"file": file})
    address = source.address.get_secret_value()
    text = _replaced(address, index)
    return source if text == address else source.model_copy(update={"address": SecretStr(text)})


def _replaced(text: str, index: int) -> str:
    return _VARIABLE.sub(lambda found: _variable(found[1]), numbered(text, index))


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(f"source.address: expected the environment variable {name}, got none. Set it.")
    return value


def numbered(text: str, index: int) -> str:
    """Return `text` with each `{index}` replaced; `{index:02}` is padded with zeros."""
    return _INDEX.sub(lambda found: str(index).zfill(int(found[1] or 1)), text)
