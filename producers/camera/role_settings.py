"""Settings of the commands for real cameras: `camera attach`, `camera run` and `camera test`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator

from producers.camera.camera_settings import MODELS, CameraSettings, Profile, SendingOptions, addressed
from producers.settings_file import first_problem
from producers.sources.settings import SourceSettings, StreamSettings
from schemas.errors import ConfigError
from schemas.identity import CameraId
from schemas.limits import MAX_FRAMES_PER_SECOND
from schemas.settings import MqttSettings, RoleSettings, SamplingSettings, SettingsTable


class _CameraRole(RoleSettings, MqttSettings, SamplingSettings):
    """Settings of a process with real cameras."""

    spool: Path | None = None
    """Folder of the spools. Default: the state folder or, on a device, `~/.local/state/pointillist`."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which the run ends. Default: when the sources end."""
    drain_s: float = Field(default=30.0, ge=0)
    """Maximum seconds to wait, after the end, until all frames are confirmed."""


class AttachedCamera(SendingOptions):
    """One real camera."""

    fps: float = Field(default=0.0, ge=0, le=MAX_FRAMES_PER_SECOND, allow_inf_nan=False)
    """Frames per second; 0 sends all frames of the source."""
    probe_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the frames that are sent whole, for STRIP: one of every round(1 ÷ share) consecutive frames."""
    profile: Profile = "video"
    """Coding of the kept pixels: raw (unchanged), lossless (compressed) or video (by a video codec). A picture with a
    side below 128 is sent raw instead of video."""
    source: StreamSettings = StreamSettings()
    """The stream, and the part of its picture that is sent."""


class CameraAttachSettings(_CameraRole):
    """Settings of `pointillist camera attach`."""

    address: SecretStr | None = None
    """RTSP or HTTP URL, `/dev/video0`, or a video file; the argument URL takes precedence."""
    name: str | None = None
    """The camera as SITE/CAMERA, or CAMERA of the site `local`. Default: the name in the enrolment."""
    enrolment: Path | None = None
    """Enrolment file of this camera (key, certificate, broker address), as `pointillist enroll` writes it."""
    camera: AttachedCamera = AttachedCamera()
    """The camera."""

    def camera_settings(self, place: str, identity: CameraId) -> CameraSettings:
        """Return the settings of the camera at a place; ConfigError if the source rejects one of them."""
        options = {name: getattr(self.camera, name) for name in SendingOptions.model_fields}
        source = addressed(source_at(place, self.camera.source), 0)
        return CameraSettings(camera_id=identity, source=source, **options)


class CameraRunSettings(_CameraRole):
    """Settings of `pointillist camera run`."""

    cameras: Path | None = None
    """Camera file, cameras.yaml; it is read again when it changes. The argument FILE takes precedence."""
    processes: int = Field(default=1, ge=1, le=256)
    """Number of processes that share the cameras."""
    share: str | None = None
    """Run one part of the cameras only, NUMBER/OF such as `2/3`."""

    @model_validator(mode="after")
    def _one_division(self) -> Self:
        if self.share is not None and self.processes > 1:
            raise ValueError("share: expected no processes next to it, got both. Remove one.")
        return self


class CameraTestSettings(SettingsTable):
    """Settings of `pointillist camera test`."""

    address: SecretStr | None = None
    """RTSP or HTTP URL, `/dev/video0`, or a video file; with `cameras`, SITE/CAMERA. The argument URL takes precedence.
    """
    cameras: Path | None = None
    """Camera file, cameras.yaml. The camera SITE/CAMERA in it is tested with its own settings."""
    seconds: float = Field(default=5.0, ge=0.1, allow_inf_nan=False)
    """Seconds to watch, after the first picture."""
    source: StreamSettings = StreamSettings()
    """The stream, and the part of its picture that would be sent."""


def source_at(place: str, stream: StreamSettings) -> SourceSettings:
    """Return the source at a URL, a device or a file; ConfigError if the source's kind does not have one of the
    settings."""
    kind = {"kind": "url", "address": place} if is_stream(place) else {"kind": "video", "file": place}
    given = {name: getattr(stream, name) for name in stream.model_fields_set}
    try:
        return SourceSettings.model_validate(kind | given)
    except ValidationError as error:
        raise ConfigError(f"source: {first_problem(error, SourceSettings, MODELS)}") from None


def is_stream(place: str) -> bool:
    """Return whether a place is a URL or a device, not a file."""
    return "://" in place or place.startswith("/dev/")
