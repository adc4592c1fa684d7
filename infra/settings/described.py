"""Descriptions of fields, parameters and types, from the code."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretStr


def paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


_LIST: Final = "list of "
_BY_NAME: Final = " by name"
_KINDS: Final = {
    str: "text", int: "whole number", float: "number", bool: "true or false", bytes: "bytes", Path: "path",
    SecretStr: "text", object: "anything", Any: "anything",
}  # fmt: skip
_BOUNDS: Final = {
    "ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}",
    "min_length": "of at least {}", "max_length": "of at most {}",
}  # fmt: skip


@cache
def docstrings(described: type) -> dict[str, str]:
    """Return the docstring of each field of a class and of its base classes, without those of libraries."""
    found: dict[str, str] = {}
    for each in reversed(described.__mro__):
        if each.__module__.partition(".")[0] in ("builtins", "typing", "pydantic", "pydantic_settings", "enum"):
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, text in zip(definition.body, definition.body[1:], strict=False):
            match statement, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                    ast.Expr(value=ast.Constant(value=str(said))),
                ):
                    found[name] = paragraph(said)
    return found


def fields_of(described: type) -> list[tuple[str, str, str]]:
    """Return name, type and meaning of each field of a dataclass or a TypedDict."""
    said = docstrings(described)
    return [(name, kind_of(kind), said.get(name, "")) for name, kind in get_type_hints(described).items()]


def kind_of(annotation: Any) -> str:
    """Return a type in words, for the reference pages; None is `null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(each)}`" for each in arguments)
    if origin in (Union, UnionType):
        return " or ".join("null" if each is NoneType else kind_of(each) for each in arguments)
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"{_LIST}{kind_of(arguments[0])}"
    if origin is tuple:
        return ", ".join(f"{len(list(equal))} × ({kind})" for kind, equal in groupby(map(kind_of, arguments)))
    if origin is dict:
        return {Any: "table", object: "object"}.get(arguments[1]) or f"{kind_of(arguments[1])}{_BY_NAME}"
    if hasattr(annotation, "__metadata__"):
        return bounded(kind_of(arguments[0] if arguments else annotation.__origin__), annotation.__metadata__)
    if annotation in _KINDS:
        return _KINDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{json.dumps(each.value)}`" for each in annotation)
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel | dict) or is_dataclass(annotation)):
        return "table" if issubclass(annotation, BaseModel) else "object"
    supertype = getattr(annotation, "__supertype__", None)
    assert supertype is not None, f"no words for the type {annotation}"
    return kind_of(supertype)


def without_none(annotation: Any) -> Any:
    """Return a type without None."""
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(each for each in get_args(annotation) if each is not NoneType)]  # noqa: UP007
    return annotation


def _number(bound: float) -> str:
    """Return a number as text, a large power of two as `2^n`."""
    whole = int(bound)
    return f"2^{whole.bit_length() - 1}" if bound == whole >= 2**31 and whole & (whole - 1) == 0 else f"{bound:,}"


def bounded(kind: str, metadata: Iterable[Any]) -> str:
    """Return a type with its bounds."""
    # The metadata of a `Field(…)` inside a type counts too.
    parts = [each for part in metadata for each in getattr(part, "metadata", [part])]
    bounds = ", ".join(
        form.format(_number(getattr(each, key)))
        for each in parts
        for key, form in _BOUNDS.items()
        if getattr(each, key, None) is not None
    )
    if bounds and kind.endswith(_BY_NAME):
        return f"{kind}, {bounds}"
    if bounds and kind.startswith(_LIST):
        return f"list {bounds} of {kind.removeprefix(_LIST)}"
    return " ".join(filter(None, (kind, bounds)))
