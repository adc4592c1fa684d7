"""The names of cameras and frames."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NewType

from schemas.errors import ConfigError, MalformedError

CameraId = NewType("CameraId", str)
"""`site/camera`, taken from the topic only."""

DEFAULT_SITE: Final = "local"
"""The site of the cameras that `pointillist up` creates, and of a camera that is named without a site."""

_NAME = r"[a-z0-9][a-z0-9_.-]{0,62}"
CAMERA_ID_CHARACTERS: Final = 64
"""Maximum length of `site/camera`: it is the common name of the camera's certificate, which X.509 limits (RFC 5280,
A.1)."""
SITE_NAME: Final = re.compile(_NAME)
_CAMERA_ID = re.compile(rf"(?=.{{3,{CAMERA_ID_CHARACTERS}}}\Z){_NAME}/{_NAME}")

BOOT_ID_LIMIT = 2**63
"""The exclusive upper limit of boot ids: a database's signed 64-bit integer holds them."""
SEQ_LIMIT = 2**53


class Identity(NamedTuple):
    """The identity of a frame, the only key by which duplicates are removed."""

    camera_id: CameraId
    boot_id: int
    seq: int

    def __str__(self) -> str:
        return f"{self.camera_id}/{self.boot_id:016x}/{self.seq}"


def camera_id(text: str) -> CameraId:
    """Check a name that a person typed; `ConfigError` with the expected form."""
    if not _CAMERA_ID.fullmatch(text):
        remedy = (
            "Use a shorter site or name."
            if len(text) > CAMERA_ID_CHARACTERS
            else "Use lower-case letters, digits and _ . -, a letter or digit first, and one / between site and camera."
        )
        raise ConfigError(
            f"camera: expected site/camera of a-z 0-9 _ . -, at most {CAMERA_ID_CHARACTERS} characters in all, got "
            f"{text[:140]!r}. {remedy}"
        )
    return CameraId(text)


def camera_at(name: str, site: str = DEFAULT_SITE) -> CameraId:
    """Check a typed name whose site may be missing; `ConfigError` with the expected form."""
    return camera_id(name if "/" in name else f"{site}/{name}")


def camera_id_on_wire(text: str) -> CameraId:
    """Check a name from a topic or a record key; `MalformedError` if it is not a camera id."""
    if not _CAMERA_ID.fullmatch(text):
        raise MalformedError(f"expected a camera id site/camera, got {text[:140]!r}")
    return CameraId(text)
