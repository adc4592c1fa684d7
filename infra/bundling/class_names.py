"""Class names of a network in the order of its outputs, from common file formats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from processors.bundle.limits import MAX_SETTINGS_BYTES
from processors.bundle.model_toml import UNSURE
from schemas.errors import ConfigError

_FORMS: Final = "a name a line, a JSON list of names, or a JSON object from the output's number to its name"


def read_class_names(file: Path) -> list[str]:
    """Read the names from a text file, one a line, or a JSON file: a list, or an object {"0": "tench", …}.

    An object's value may be a list with the name at its end, as in ImageNet's `{"0": ["n01440764", "tench"]}`. Blank
    lines at the end do not count. Raises ConfigError in one line.
    """
    try:
        if file.stat().st_size > MAX_SETTINGS_BYTES:
            raise ConfigError(
                f"--classes: expected at most {MAX_SETTINGS_BYTES} bytes of names, got more in {file}. Correct "
                "the file."
            )
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"--classes: expected a readable file, got {file}: {error.strerror}. Correct the path."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"--classes: expected a text in UTF-8, got other bytes in {file}. Correct the file."
        ) from None
    names = _of_json(text, file) if _looks_like_json(text) else text.rstrip().splitlines()
    names = [name.strip() for name in names]
    for number, name in enumerate(names):
        if not name:
            raise ConfigError(
                f"--classes: expected a name for output {number} in {file}, got an empty line. Correct the file."
            )
        if name == UNSURE or not name.isprintable():
            raise ConfigError(
                f"--classes: expected printable names other than `{UNSURE}`, got {name[:80]!r} for output {number} in "
                f"{file}. Correct the file."
            )
    if len(names) < 2:
        raise ConfigError(
            f"--classes: expected at least 2 names ({_FORMS}), got {len(names)} in {file}. Correct the file."
        )
    return names


def _looks_like_json(text: str) -> bool:
    """Return whether a text is JSON, possibly damaged: a first line `[background]` of several is a name."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    first, *others = text.strip().splitlines()
    if others and first.rstrip().endswith(("]", "}")):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
    return True


def _of_json(text: str, file: Path) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"--classes: expected {_FORMS}, got damaged JSON in {file}. Correct the file.") from None
    if isinstance(found, dict):
        try:
            numbered = {int(number): name for number, name in found.items()}
        except ValueError:
            raise ConfigError(
                f"--classes: expected {_FORMS}, got a key that is not a number in {file}. Correct the file."
            ) from None
        if sorted(numbered) != list(range(len(numbered))):
            raise ConfigError(
                f"--classes: expected names for the outputs 0 to {len(numbered) - 1}, got other numbers in "
                f"{file}. Correct the file."
            )
        found = [numbered[number] for number in range(len(numbered))]
    names = [each[-1] if isinstance(each, list) and each else each for each in found]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"--classes: expected {_FORMS}, got another form in {file}. Correct the file.")
    return names


def distinct(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Append the output's number to names that occur more than once; return the names, and the repeated ones.

    ImageNet has two cranes, a bird and a machine: a verdict must distinguish them.
    """
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({number})" if name in twice else name for number, name in enumerate(names)], sorted(twice)
