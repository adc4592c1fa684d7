"""The settings of a camera source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, SecretStr, model_validator

from schemas.limits import MAX_SIDE

Kind = Literal["scene", "dataset", "video", "url"]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Corner = Annotated[int, Field(ge=0, le=MAX_SIDE)]

_REQUIRED: Final[dict[str, set[str]]] = {"scene": set(), "dataset": {"file"}, "video": {"file"}, "url": {"address"}}
_OPTIONAL: Final[dict[str, set[str]]] = {
    "scene": {"seed", "prerendered", "size", "channels"},
    "dataset": {"split", "stride", "offset", "loop", "region", "size", "channels"},
    "video": {"loop", "region", "size", "channels"},
    "url": {"hang_s", "open_s", "region", "size", "channels"},
}


class SourceSettings(BaseModel, frozen=True, extra="forbid"):
    """What a camera films, and what part of it is sent in which size.

    A field of another kind than `kind` is refused, not ignored.
    """

    kind: Kind = "scene"

    seed: int = Field(default=0, ge=0, lt=2**64)
    """Scenes: the same seed and camera give the same pictures."""
    prerendered: int = Field(default=0, ge=0, le=100_000)
    """Scenes: so many are drawn before the start and then repeated; 0 draws each when it is read."""

    file: Path | None = None
    """Data set: an npz file. Video: any file that FFmpeg reads."""
    split: str = Field(default="test", pattern=r"^[A-Za-z0-9_]+$")
    """Data set: images are the array `{split}_x`, labels `{split}_y`; without them `images` and `labels` are taken."""
    stride: PositiveInt = 1
    """Data set: take every so many images. A fleet of N cameras shares a data set out with stride N."""
    offset: int | None = Field(default=None, ge=0)
    """Data set: the first image; by default the camera's index in its fleet."""
    loop: bool = False
    """Data set and video: begin again at the end."""

    address: SecretStr | None = None
    """URL: RTSP, HTTP or whatever else FFmpeg opens, or a device `/dev/video…`; it may hold a password."""
    hang_s: PositiveFloat = 10.0
    """URL: without a picture for so many seconds the source counts as hung."""
    open_s: PositiveFloat = 10.0
    """URL: time to connect, and again to find the video stream."""

    region: tuple[Corner, Corner, Side, Side] | None = None
    """What is cut out before resizing, in pixels: x, y, width, height."""
    size: tuple[Side, Side] | None = None
    """Width and height that are sent; by default those of the source (32 × 32 for scenes)."""
    channels: Literal[1, 3] | None = None
    """1 is grey, 3 is RGB; by default those of the source."""

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Self:
        required, optional = _REQUIRED[self.kind], _OPTIONAL[self.kind]
        if missing := sorted(name for name in required if getattr(self, name) is None):
            raise ValueError(f"a source of kind {self.kind} needs {', '.join(missing)}")
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if foreign := sorted(given - required - optional - {"kind"}):
            raise ValueError(
                f"a source of kind {self.kind} knows {', '.join(sorted(required | optional))}; got {', '.join(foreign)}"
            )
        return self
