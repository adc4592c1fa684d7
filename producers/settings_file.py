"""YAML files with settings: reading, and the messages about errors in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import ConfigError
from schemas.runtime.rejected_values import expectation, kind_in_words, received, shown

_MERGE: Final = "tag:yaml.org,2002:merge"


class RepeatedKeyError(yaml.MarkedYAMLError):
    """A mapping with one key twice; `problem_mark` is the place of the second."""


class SettingsLoader(yaml.SafeLoader):
    """A loader of YAML that departs from PyYAML where YAML 1.2 does.

    A mapping with one key twice is rejected (3.2.1.3). PyYAML keeps the last: a second `cameras` would remove all
    cameras of the first. Digits are a decimal number (10.3.2): PyYAML reads 021 as 17, and 019 as a text.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the mapping; `RepeatedKeyError` if it has one key twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise RepeatedKeyError(problem=f"the key {shown(key.value)} twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return the number; `0x` and `0b` begin other bases."""
        digits = node.value.replace("_", "")
        return int(digits) if digits.lstrip("+-").isdecimal() else int(super().construct_yaml_int(node))


SettingsLoader.add_constructor("tag:yaml.org,2002:int", SettingsLoader.construct_yaml_int)


def read_yaml(path: Path, what: str) -> Any:
    """Return the unchecked content of a file; `ConfigError` when it cannot be read or is not YAML. `what` names the
    file in messages."""
    try:
        loader = SettingsLoader(path.read_text(encoding="utf-8"))
        try:
            values = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError(f"{what} {path}: expected a readable file, got {error.strerror}. Correct the path.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path}: expected a text in UTF-8, got other bytes. Correct the file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(
            f"{path}:{place} expected YAML, got {getattr(error, 'problem', None) or 'another form'}. Correct the file."
        ) from None
    except (ValueError, RecursionError) as error:  # such as the date 2024-02-30, or a thousand brackets
        raise ConfigError(f"{path}: expected YAML, got a value beyond it ({error}). Correct the file.") from None
    return values


def first_problem(error: ValidationError, root: type[BaseModel], models: Mapping[str, type[BaseModel]]) -> str:
    """Return the first error of a validation: its key, and the expected value.

    `root` is the model of the whole file, `models` those of its keys: an unknown key is answered with what they know.
    """
    problem = error.errors(include_url=False)[0]
    place = ".".join(shown(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parents = [str(part) for part in problem["loc"][:-1] if isinstance(part, str)]
        model = models.get(parents[-1], root) if parents else root
        known = ", ".join(sorted(field.alias or name for name, field in model.model_fields.items()))
        return f"{place}: unknown key; expected one of {known}"
    if problem["type"] == "missing":
        return f"{place}: expected a value, got none"
    if problem["type"] == "value_error":
        return f"{place}: {expectation(problem)}"
    value = problem["input"]
    is_share = "privacy" in problem["loc"] and isinstance(value, int | float)
    expected = "expected a share of the picture from 0 to 1" if is_share else expectation(problem)
    # The address and the login of a source may hold a password.
    is_address = "source" in problem["loc"] and isinstance(value, str) and problem["type"] != "literal_error"
    hidden = is_address or "login" in problem["loc"]
    return f"{place}: {expected}, got {kind_in_words(value) if hidden else received(value)}"
