"""The settings of a camera source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator

from producers.sources.login import LoginPlace, has_login
from schemas.limits import MAX_SIDE
from schemas.settings import SettingsTable

Kind = Literal["scene", "dataset", "video", "url"]
REAL_KINDS: Final = ("url", "video")
"""Kinds of source that can be away: streams and videos of real cameras. The others simulate one."""
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Corner = Annotated[int, Field(ge=0, le=MAX_SIDE)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

REQUIRED_KEYS: Final[dict[str, set[str]]] = {"scene": set(), "dataset": {"file"}, "video": {"file"}, "url": {"address"}}
_ROUNDING: Final = 1e-9
_FRAMED: Final = {"rotate", "privacy", "region", "size", "channels"}
OPTIONAL_KEYS: Final[dict[str, set[str]]] = {
    "scene": {"seed", "prerendered", "size", "channels"},
    "dataset": {"split", "stride", "offset", "loop"} | _FRAMED,
    "video": {"loop", "hardware"} | _FRAMED,
    "url": {"login", "hang_s", "open_s", "hardware", "clock"} | _FRAMED,
}


def keys_of(kind: str) -> set[str]:
    """Return the settings of a source of this kind; none for an unknown kind."""
    return REQUIRED_KEYS.get(kind, set()) | OPTIONAL_KEYS.get(kind, set()) | {"kind"}


class StreamSettings(SettingsTable):
    """The settings of a real camera's stream or of a video, and the part of its picture that is sent."""

    login: LoginPlace | None = None
    """URL: the place of user and password, read at each connection."""
    hang_s: PositiveFloat = 10.0
    """URL: seconds without a picture after which the source counts as hung and is opened again."""
    open_s: PositiveFloat = 10.0
    """URL: maximum seconds to connect, and the same again to find the video stream."""

    loop: bool = False
    """Data set and video: start again after the last frame."""

    hardware: str = Field(default="none", pattern=r"^[a-z0-9]+(:[A-Za-z0-9/_.-]+)?$")
    """URL and video: the decoder. `none` is FFmpeg's software; `auto` is the first hardware decoder of this machine,
    else software. A device type such as `cuda` or `vaapi`, optionally with a device as in `vaapi:/dev/dri/renderD128`,
    requires that hardware."""
    clock: Literal["auto", "arrival"] = "auto"
    """URL: the capture time of a frame. `auto` uses the stream's own clock (RTCP) if that is at most 30 s behind the
    clock of this machine or 1 s ahead; `arrival` is the time of receipt."""

    rotate: Literal[0, 90, 180, 270] = 0
    """Degrees, clockwise, by which the picture is rotated before any other step. A video file, also one on a web
    server, is first turned and mirrored as players show it, by the display matrix that telephones write."""
    privacy: tuple[tuple[Share, Share, Share, Share], ...] = ()
    """Rectangles x, y, width, height that are blacked out, as shares of the rotated picture's width and height, so that
    they stay valid if the camera changes its resolution. Up to three pixels next to them are black too, because their
    colour is that of pixels inside. As text, one is `X,Y,WIDTH,HEIGHT`."""
    region: tuple[Corner, Corner, Side, Side] | None = None
    """The region that is cut out before resizing, in pixels of the rotated picture: x, y, width, height. As
    text `X,Y,WIDTH,HEIGHT`."""
    size: tuple[Side, Side] | None = None
    """Width and height of the frames. Default: as the source (32 × 32 for scenes). A frame has at most 14 MiB: a larger
    source needs `size` or `region`. As text `WIDTHxHEIGHT`."""
    channels: Literal[1, 3] | None = None
    """Number of channels: 1 is grey, 3 is RGB. Default: as the source."""

    @field_validator("rotate", "channels", mode="before")
    @classmethod
    def _read_number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("size", mode="before")
    @classmethod
    def _read_size(cls, value: object) -> object:
        return whole_numbers(value, "x", 2, "WIDTHxHEIGHT") if isinstance(value, str) else value

    @field_validator("region", mode="before")
    @classmethod
    def _read_region(cls, value: object) -> object:
        return whole_numbers(value, ",", 4, "X,Y,WIDTH,HEIGHT") if isinstance(value, str) else value

    @field_validator("privacy", mode="before")
    @classmethod
    def _read_privacy(cls, value: object) -> object:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return given
        return [_shares(each) if isinstance(each, str) else each for each in given]


class SourceSettings(StreamSettings):
    """The source of a camera, and the part of its picture that is sent.

    A field of another kind than `kind` is rejected, not ignored.
    """

    kind: Kind = "scene"
    """`scene` is the endless simulator, with ground truth; `dataset` the images of an npz file, with their labels as
    ground truth; `video` a file; `url` a real camera: RTSP, HTTP, or a device such as `/dev/video0`."""

    seed: int = Field(default=0, ge=0, lt=2**64)
    """Scenes: the same seed and camera give the same pictures."""
    prerendered: int = Field(default=0, ge=0, le=100_000)
    """Scenes: number of frames that are drawn before the start and then repeated; 0 draws each when it is read."""

    file: Path | None = None
    """Data set: an npz file. Video: any file that FFmpeg reads. `{index}` is replaced by the camera's number. A
    relative path starts at the folder of the settings file."""
    split: str = Field(default="test", pattern=r"^[A-Za-z0-9_]+$")
    """Data set: the arrays `{split}_x` and `{split}_y` hold images and labels, or `images` and `labels` if the file has
    no such arrays."""
    stride: PositiveInt = 1
    """Data set: take every n-th image. A fleet of N cameras divides a data set with stride N."""
    offset: int | None = Field(default=None, ge=0)
    """Data set: the first image; by default the camera's index in its fleet."""
    address: SecretStr | None = None
    """URL: RTSP, HTTP or whatever else FFmpeg opens, a device `/dev/video…` or a link to one, or a path as in `file`;
    `{index}` and `${VARIABLE}` are replaced by the camera's number and an environment variable. If the address holds a
    password, make the file readable by its owner only."""

    @property
    def opening_s(self) -> float:
        """URL: seconds after which an opening is stuck, in a wait that FFmpeg does not time."""
        return 2 * self.open_s + 1

    @property
    def computed(self) -> bool:
        """Whether the source reads nothing and draws each frame on demand, so that it opens at once."""
        return self.kind == "scene" and not self.prerendered

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Self:
        required, optional = REQUIRED_KEYS[self.kind], OPTIONAL_KEYS[self.kind]
        if missing := sorted(name for name in required if getattr(self, name) is None):
            raise ValueError(f"a source of kind {self.kind} needs {', '.join(missing)}")
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if foreign := sorted(given - required - optional - {"kind"}):
            raise ValueError(
                f"a source of kind {self.kind} knows {', '.join(sorted(required | optional))}; got {', '.join(foreign)}"
            )
        for x, y, width, height in self.privacy:
            if not (width and height) or x + width > 1 + _ROUNDING or y + height > 1 + _ROUNDING:
                raise ValueError(
                    f"privacy: expected x, y, width, height as shares inside the picture, got {[x, y, width, height]}"
                )
        if self.login is not None and self.address is not None and has_login(self.address.get_secret_value()):
            raise ValueError("expected user and password in the address or by login, got both")
        return self


def whole_numbers(text: str, separator: str, count: int, form: str) -> list[int]:
    """Read `count` whole numbers. Raises ValueError with the expected `form`."""
    parts = text.lower().split(separator)
    if len(parts) != count or not all(part.isdecimal() for part in parts):
        raise ValueError(f"expected {form}, got {text!r}")
    return [int(part) for part in parts]


def _shares(text: str) -> list[float]:
    parts = text.split(",")
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if len(found) != 4:
        raise ValueError(f"expected X,Y,WIDTH,HEIGHT as shares from 0 to 1, got {text!r}")
    return found
