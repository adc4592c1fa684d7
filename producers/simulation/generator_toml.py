"""The file `generator.toml` of an attack generator, and the search for a generator that a scenario names."""

from __future__ import annotations

import os
import random
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producers.settings_file import first_problem
from schemas.errors import ConfigError
from schemas.limits import MAX_SIDE
from schemas.toml import parse_toml

TOML: Final = "generator.toml"
NETWORK: Final = "generator.onnx"
RANDOM: Final = "random"
OTHER: Final = "other"

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
ClassName = Annotated[str, Field(min_length=1)]


class GeneratorSettings(BaseModel):
    """The description of a generator in its folder; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    classes: tuple[ClassName, ...] | Annotated[int, Field(ge=2)]
    """The classes of the attacked network: their names in order, or their number."""
    channels: Literal[1, 3]
    height: Side
    width: Side
    eps: float = Field(gt=0, le=1)
    """The L∞ bound of the training, on the scale [0, 1]."""

    @property
    def class_count(self) -> int:
        """The number of target classes."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def check_target(self, target: str | int) -> None:
        """Raise `ConfigError` unless `target` is a class by name or number, `random` or `other`."""
        if target in (RANDOM, OTHER) or target in self._names:
            return
        if isinstance(target, int) and 0 <= target < self.class_count:
            return
        named = f", {', '.join(self._names)}" if self._names else ""
        raise ConfigError(
            f"target: expected {RANDOM}, {OTHER}, a class from 0 to {self.class_count - 1}{named}, got "
            f"{target!r}. Correct it."
        )

    def target_of(self, target: str | int, shown: int | None, position: int) -> int:
        """Return the target class of frame `position` of a source; `shown` is the frame's true class, None if unknown.

        `random` draws a class other than the true one, seeded by the position. `other` is the class after the true one,
        or drawn if that is unknown.
        """
        if isinstance(target, int):
            return target
        if target not in (RANDOM, OTHER):
            return self._names.index(target)
        if shown is None or shown >= self.class_count:
            return random.Random(position).randrange(self.class_count)
        if target == OTHER:
            return (shown + 1) % self.class_count
        drawn = random.Random(position).randrange(self.class_count - 1)
        return drawn + (drawn >= shown)

    @property
    def _names(self) -> tuple[str, ...]:
        return () if isinstance(self.classes, int) else self.classes


def find_generator(name: str) -> Path:
    """Return a generator's folder, by path or shipped name. Raises ConfigError if it has no `generator.toml`."""
    # Unlike those of `Path`, these functions raise no error for a closed folder or an unknown user.
    folder = Path(os.path.expanduser(name))  # noqa: PTH111
    if os.path.isfile(folder / TOML):  # noqa: PTH113
        return folder
    shipped = Path(str(files("bundles"))) / "generators"
    if folder.name == name and os.path.isfile(shipped / name / TOML):  # noqa: PTH113
        return shipped / name
    have = ", ".join(sorted(path.parent.name for path in shipped.glob(f"*/{TOML}"))) or "none"
    raise ConfigError(
        f"generator: expected a folder with {TOML}, or a shipped generator ({have}), got {name}. Correct it."
    )


def read_generator(folder: Path) -> GeneratorSettings:
    """Read and check `generator.toml`; `ConfigError` names the file, the key and what was expected there."""
    file = folder / TOML
    try:
        return GeneratorSettings.model_validate(parse_toml(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{file}: expected a readable file, got {error.strerror}. Correct the path.") from None
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_problem(error, GeneratorSettings, {})}. Correct the file.") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{file}: expected TOML in UTF-8, got {error}. Correct the file.") from None
