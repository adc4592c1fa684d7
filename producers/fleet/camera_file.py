"""The file `cameras.yaml`: real cameras with their addresses and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from producers.camera.camera_settings import (
    MODELS,
    CameraGroup,
    CameraOptions,
    CameraSettings,
    Profile,
    cameras_of,
    numbered,
)
from producers.settings_file import first_problem, read_yaml
from producers.sources.placing import is_path, place
from producers.sources.settings import REAL_KINDS, SourceSettings, keys_of
from schemas.errors import ConfigError
from schemas.identity import CameraId
from schemas.runtime.rejected_values import kind_in_words, shown

_KIND_OF: Final = {"address": "url", "file": "video"}


@dataclass(frozen=True)
class ListedCamera:
    """One camera of the file."""

    settings: CameraSettings
    enrolment: Path | None
    """The path of the camera's enrolment; None if the file does not name one."""
    enrolment_places: tuple[Path, ...]
    """The paths at which the enrolment may lie."""


class RealOptions(CameraOptions):
    """The options for all real cameras and for each."""

    probe_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the frames that are sent whole, for STRIP: one of every round(1 ÷ share) consecutive frames."""
    profile: Profile = "video"
    """The coding of the kept pixels: unchanged, lossless in fewer bytes, or by a video codec. A picture with a side
    below 128 is sent raw instead of video."""
    enrolment: str | None = None
    """The camera's enrolment; `{index}` stands for its number and `{camera}` for its name without the site."""


class RealGroup(RealOptions, CameraGroup):
    """`count` real cameras that differ in name and number."""

    name: str
    """The name without the site: a–z, 0–9, `_ . -`, at most 64 characters with it. `{index}` is required if `count`
    exceeds 1."""
    source: SourceSettings
    """An address or a file; the `kind` follows from it. An address that is a path is a file."""

    @model_validator(mode="after")
    def _is_real(self) -> Self:
        if self.source.kind not in REAL_KINDS:
            raise ValueError(
                f"source.kind: expected url or video, got {self.source.kind}; simulated ones run as a fleet"
            )
        return self


class CameraFile(BaseModel):
    """The real cameras of a site. A key of `defaults` applies to every camera that does not set the key itself.

    The source is merged key by key. With its own address, a camera keeps the `hang_s` of the defaults; with a file, it
    gets none of the keys that only addresses have. A key of the defaults that no camera takes is rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    """The first part of every camera's name, `site/camera`: a–z, 0–9, `_ . -`. The whole name has at most 64
    characters."""
    enrolments: Path | None = None
    """Folder of the enrolments: that of site/camera is `camera.enrolment` or `site/camera.enrolment`."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Defaults of every camera: any key of a camera but `name`, `count` and `first`."""
    groups: list[RealGroup] = Field(alias="cameras", min_length=1)
    """The cameras, in groups whose cameras differ in name and number only."""

    @model_validator(mode="before")
    @classmethod
    def _apply_defaults(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        defaults, groups = values.get("defaults", {}), values.get("cameras")
        if not isinstance(defaults, Mapping) or not isinstance(groups, list):
            return values
        _check_defaults(defaults)
        merged = [_with_defaults(group, defaults) for group in groups]
        _check_tables(merged)
        _check_common_source(defaults.get("source"), merged)
        return {**values, "cameras": merged}

    def cameras(self, folder: Path) -> dict[CameraId, ListedCamera]:
        """Return the cameras by name; relative paths start at `folder`.

        Raises `ConfigError` when two have one name, or an address asks for a variable that is not set.
        """
        listed: dict[CameraId, ListedCamera] = {}
        for group, index, camera in cameras_of(self.site, self.groups):
            # No `index`: the number of a camera changes when another is removed.
            settings = camera.model_copy(update={"index": 0, "source": _placed(camera.source, folder)})
            places = self._enrolment_places(group, camera.camera_id, index, folder)
            # Unlike `Path.exists`, this raises no error for a folder that is closed to this user.
            there = [place for place in places if os.path.exists(place)]  # noqa: PTH110
            listed[camera.camera_id] = ListedCamera(settings, next(iter([*there, *places]), None), places)
        return listed

    def _enrolment_places(self, group: RealGroup, name: CameraId, index: int, folder: Path) -> tuple[Path, ...]:
        site, _, camera = name.partition("/")
        if group.enrolment is not None:
            return (place(numbered(group.enrolment, index).replace("{camera}", camera), folder),)
        if self.enrolments is None:
            return ()
        enrolments = place(self.enrolments, folder)
        return enrolments / f"{camera}.enrolment", enrolments / site / f"{camera}.enrolment"


def load_camera_file(path: Path) -> dict[CameraId, ListedCamera]:
    """Read and check `cameras.yaml`; `ConfigError` names the file, the place and what was expected there."""
    return parse_camera_file(read_yaml(path, "the file of cameras"), path.resolve().parent, str(path))


def parse_camera_file(values: Any, folder: Path, origin: str) -> dict[CameraId, ListedCamera]:
    """Check the content of `cameras.yaml`, which lies in `folder`; messages begin with `origin`."""
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: expected the keys site and cameras, got {_content(values)}. Correct the file.")
    try:
        return CameraFile.model_validate(values).cameras(folder)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_problem(error, CameraFile, {**MODELS, 'cameras': RealGroup})}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _content(values: Any) -> str:
    return "an empty file" if values is None else kind_in_words(values)


def _check_defaults(defaults: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for wrong defaults, before the cameras are checked; a source is complete in cameras only."""
    try:
        RealOptions.model_validate({key: value for key, value in defaults.items() if key != "source"})
    except ValidationError as error:
        problem = first_problem(error, RealOptions, MODELS)
        raise ConfigError(f"defaults{problem}" if problem.startswith(":") else f"defaults.{problem}") from None


def _check_tables(groups: list[Any]) -> None:
    """Raise `ConfigError` for an address in place of a source."""
    for number, group in enumerate(groups):
        if isinstance(group, Mapping) and isinstance(group.get("source"), str):
            raise ConfigError(
                f'cameras.{number}.source: expected a table, such as {{address: "rtsp://…"}}, got text. Correct it.'
            )


def _check_common_source(common: Any, groups: list[Any]) -> None:
    """Raise `ConfigError` for a key of `defaults.source` that no camera of the file takes."""
    sources = [group.get("source") for group in groups if isinstance(group, Mapping)]
    kinds = {str(source["kind"]) for source in sources if isinstance(source, Mapping) and "kind" in source}
    if not isinstance(common, Mapping) or not kinds:
        return
    known = set[str]().union(*map(keys_of, kinds))
    for key in common:
        if key not in known:
            raise ConfigError(
                f"defaults.source.{shown(key)}: expected a key that a camera of this file takes, a source of kind "
                f"{' or '.join(sorted(kinds))}, got one that none does. Remove it."
            )


def _with_defaults(group: Any, defaults: Mapping[str, Any]) -> Any:
    """Return a group merged with the defaults; the kind of its source follows from its keys."""
    if not isinstance(group, Mapping):
        return group
    merged = {**defaults, **group}
    common, own = defaults.get("source", {}), group.get("source", {})
    if isinstance(common, Mapping) and isinstance(own, Mapping):
        if "kind" not in own and is_path(own.get("address")) and "file" not in own:
            own = {"file" if key == "address" else key: value for key, value in own.items()}
        source = {**common, **own}
        # The camera's own keys decide before those of the defaults.
        kinds = [kind for keys in (own, source) for key, kind in _KIND_OF.items() if key in keys]
        kind = str(source.get("kind") or (kinds[0] if kinds else "url"))
        known = keys_of(kind)
        merged["source"] = {
            "kind": kind, **{key: value for key, value in source.items() if key in own or key in known}
        }  # fmt: skip
    return merged


def _placed(source: SourceSettings, folder: Path) -> SourceSettings:
    """Return the source with its relative paths resolved."""
    changed: dict[str, Any] = {}
    if source.file is not None:
        changed["file"] = place(source.file, folder)
    if source.address is not None and is_path(source.address.get_secret_value()):
        changed["address"] = SecretStr(str(place(source.address.get_secret_value(), folder)))
    if source.login is not None and source.login.file is not None:
        changed["login"] = source.login.model_copy(update={"file": place(source.login.file, folder)})
    return source.model_copy(update=changed) if changed else source
