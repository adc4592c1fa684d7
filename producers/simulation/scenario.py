"""The scenario of a simulated fleet: its cameras, their sources, and faults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from producers.camera.camera_settings import MODELS, CameraGroup, CameraOptions, CameraSettings, cameras_of
from producers.settings_file import first_problem, read_yaml
from producers.simulation.generator_toml import RANDOM, TOML, find_generator, read_generator
from producers.sources.placing import place_sources
from schemas.errors import ConfigError
from schemas.runtime.rejected_values import kind_in_words

LEAST_EPS: Final = 1 / 255
"""One grey level: an attack below it leaves an 8-bit frame as it is."""

_OF_ATTACKS: Final = ("generator", "eps", "target")


class Fault(BaseModel):
    """A fault of one or several cameras for a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """A camera's name without the site, or several."""
    at_s: float = Field(ge=0, allow_inf_nan=False)
    """Begin in seconds after the fleet's first capture. A restart does not reset that clock."""
    kind: Literal["dark", "freeze", "black", "sticker", "disconnect", "attack"]
    """`dark`: the camera and its connection fail. `disconnect`: only the connection fails, and the camera captures into
    its spool. `freeze`: the camera repeats one picture with its truth. `black`: the camera sends black pictures of
    unknown class. `sticker`: the trigger sticker is in the scene. `attack`: a generator changes the picture before any
    pixel is dropped. The truth records the last two."""
    for_s: float = Field(gt=0)
    """Duration in seconds."""

    generator: str | None = None
    """Attack (required): a folder with `generator.toml` and `generator.onnx`, or the name of a shipped
    generator."""
    eps: float | None = Field(default=None, gt=0, le=1)
    """Attack: the maximum change of a pixel, on the scale [0, 1], at least 1/255; by default the bound of the
    generator's training."""
    target: StrictInt | StrictStr | None = None
    """Attack: the target class, by name or number. `random` (the default) draws a wrong class for each frame, `other`
    is the class after the true one."""

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Self:
        given = [name for name in _OF_ATTACKS if getattr(self, name) is not None]
        if self.kind != "attack":
            if given:
                raise ValueError(f"a fault of kind {self.kind} has no {', '.join(given)}")
            return self
        if self.generator is None:
            raise ValueError("a fault of kind attack needs a generator")
        if self.eps is not None and self.eps < LEAST_EPS:
            raise ValueError(f"expected eps of at least 1/255, one grey level, got {self.eps:g}")
        try:
            read_generator(find_generator(self.generator)).check_target(self.aim)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def cameras(self) -> tuple[str, ...]:
        """The names of the fault's cameras, without the site."""
        return (self.camera,) if isinstance(self.camera, str) else self.camera

    @property
    def aim(self) -> str | int:
        """The target of an attack."""
        return RANDOM if self.target is None else self.target

    def overlaps(self, other: Fault) -> bool:
        """Return whether two faults overlap."""
        return self.at_s < other.at_s + other.for_s and other.at_s < self.at_s + self.for_s


class Scenario(BaseModel):
    """A fleet. `defaults` apply to every camera that does not set the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    """The first part of every camera's name, `site/camera`: a–z, 0–9, `_ . -`. The whole name has at most 64
    characters."""
    bundle: str | None = None
    """The bundle that `up` serves with this scenario, unless `--bundle` names another: a folder or a shipped name."""
    defaults: CameraOptions = Field(default_factory=CameraOptions)
    """Defaults of every camera: any key of a camera but `name`, `count` and `first`. A key of a camera replaces the
    default as a whole."""
    groups: list[CameraGroup] = Field(alias="cameras", min_length=1)
    """The cameras, in groups whose cameras differ in name and index only."""
    faults: list[Fault] = []
    """The faults and their times."""

    @model_validator(mode="before")
    @classmethod
    def _apply_defaults(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        defaults, groups = values.get("defaults"), values.get("cameras")
        if not isinstance(defaults, Mapping) or not isinstance(groups, list):
            return values
        merged = [{**defaults, **group} if isinstance(group, Mapping) else group for group in groups]
        return {**values, "cameras": merged}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = {camera.camera_id for camera in self.cameras()}
        attacks: dict[str, list[tuple[int, Fault]]] = {}
        for number, fault in enumerate(self.faults):
            for camera in fault.cameras:
                if f"{self.site}/{camera}" not in names:
                    raise ConfigError(
                        f"faults.{number}.camera: expected a camera of this fleet, got {camera!r}. Correct the file."
                    )
                if fault.kind != "attack":
                    continue
                before = attacks.setdefault(camera, [])
                for earlier, attack in before:
                    if attack.overlaps(fault):
                        raise ConfigError(
                            f"faults.{number}: expected one attack on {camera} at a time, got faults.{earlier} "
                            "as well. Correct the file."
                        )
                before.append((number, fault))
        return self

    @property
    def generators(self) -> set[str]:
        """The generators of the attacks, by the names in the faults."""
        return {fault.generator for fault in self.faults if fault.generator is not None}

    def cameras(self) -> list[CameraSettings]:
        """Return every camera with its own name; `ConfigError` if two have the same."""
        return [camera for _, _, camera in cameras_of(self.site, self.groups)]


_MODELS: Final[dict[str, type[BaseModel]]] = {**MODELS, "faults": Fault}


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file; `ConfigError` names the file, the place and what was expected there."""
    return parse_scenario(read_scenario(path), str(path))


def read_scenario(path: Path) -> Any:
    """Return the content of a scenario file, unchecked, with its paths placed in its folder.

    Raises `ConfigError` when it cannot be read or is not YAML.
    """
    folder = path.resolve().parent
    document = place_sources(read_yaml(path, "the scenario"), folder)
    if not isinstance(document, dict):
        return document
    faults = document.get("faults")
    if isinstance(faults, list):
        document["faults"] = [_place_folder(fault, "generator", TOML, folder) for fault in faults]
    return _place_folder(document, "bundle", "model.toml", folder)


def _place_folder(values: Any, key: str, file: str, folder: Path) -> Any:
    """Return the values with the path at `key` placed in `folder` if it leads to a folder with this file there.

    Any other value, such as the name of a shipped bundle, stays unchanged.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get(key), str):
        return values
    # Unlike those of `Path`, these functions raise no error for a closed folder or an unknown user.
    placed = folder / os.path.expanduser(values[key])  # noqa: PTH111
    return {**values, key: str(placed)} if os.path.isfile(placed / file) else values  # noqa: PTH113


def parse_scenario(values: Any, origin: str = "scenario") -> Scenario:
    """Check the content of a scenario; `ConfigError` names `origin`, the place and what was expected there."""
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: expected the keys of a scenario, got {kind_in_words(values)}. Correct the file.")
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_problem(error, Scenario, _MODELS)}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
