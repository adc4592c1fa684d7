"""Options that several commands share: a dataclass of them in place of a list in each command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R")


def with_shared_options(command: Callable[..., R]) -> Callable[..., R]:
    """Return a command in which the fields of a dataclass, as options, take the place of each parameter of its type.

    The fields have types of typer (`Annotated`) and defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    kinds: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    options: list[Parameter] = []
    for name, own in signature(command).parameters.items():
        if name in kinds:
            options += _options(kinds[name])
        else:
            options.append(own.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))
    stated = Signature(options)

    @wraps(command)
    def run(**given: Any) -> R:
        bound = stated.bind(**given)
        bound.apply_defaults()
        values = dict(bound.arguments)
        for name, kind in kinds.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        return command(**values)

    # typer reads both.
    run.__signature__ = stated  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = {each.name: each.annotation for each in stated.parameters.values()}
    return run


def _options(kind: Any) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(kind)
    ]
