"""Values that pydantic has rejected: what was expected and what came, in words."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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


def expectation(problem: ErrorDetails) -> str:
    """Return what was expected for an entry of `ValidationError.errors()`, such as `expected at least 1`.

    For a type of error without words of its own, it is the message of pydantic.
    """
    form = _EXPECTED.get(problem["type"])
    if form is None:
        return problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"expected {form.format_map({name: _whole(bound) for name, bound in problem.get('ctx', {}).items()})}"


def _whole(bound: object) -> object:
    """Return 1 for 1.0, and everything else unchanged."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def received(value: object) -> str:
    """Return a rejected value for a message: a number or a text as `shown`, the kind of another."""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, str):
        return repr(shown(value)) if "://" not in value else shown(value)
    return kind_in_words(value)


def kind_in_words(value: object) -> str:
    """Return the kind of a value of a file, in words."""
    return _KINDS.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """Return a key or value for a message, without any address, because it may hold a password."""
    text = str(value)
    return text[:80] if "://" not in text else "an address"
