"""YAML files with settings: reading, and the messages about errors in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import ConfigError

_MERGE: Final = "tag:yaml.org,2002:merge"
_EXPECTED: Final = {
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}", "less_than_equal": "at most {le}", "finite_number": "a finite number",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "text", "literal_error": "{expected}", "string_pattern_mismatch": "text that matches {pattern}",
    "list_type": "a list", "tuple_type": "a list", "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries", "dict_type": "a table", "model_type": "a table",
    "path_type": "a path",
}  # fmt: skip
"""The expected form of a value by the type of pydantic's error, whose context fills the names in braces."""
_KINDS: Final = {dict: "a table", list: "a list", tuple: "a list", str: "text", NoneType: "nothing"}


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
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}"
    form = _EXPECTED.get(problem["type"])
    if form is None:
        expected = problem["msg"].removeprefix("Input ")
    elif "privacy" in problem["loc"] and isinstance(problem["input"], int | float):
        expected = "expected a share of the picture from 0 to 1"
    else:
        bounds = {key: _whole(bound) for key, bound in problem.get("ctx", {}).items()}
        expected = f"expected {form.format_map(bounds)}"
    value = problem["input"]
    # The address and the login of a source may hold a password.
    is_open = problem["type"] == "literal_error" or "source" not in problem["loc"]
    if isinstance(value, bool | int | float) and "login" not in problem["loc"]:
        return f"{place}: {expected}, got {str(value).lower()}"
    if isinstance(value, str) and is_open:
        return f"{place}: {expected}, got {shown(value)!r}"
    return f"{place}: {expected}, got {kind_in_words(value)}"


def _whole(bound: object) -> object:
    """Return 1 for 1.0, and everything else unchanged."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def kind_in_words(value: object) -> str:
    """Return the kind of a value of a file, in words."""
    return _KINDS.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """Return a key or value for a message, without any address, because it may hold a password."""
    text = str(value)
    return text[:80] if "://" not in text else "an address"
