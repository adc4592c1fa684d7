"""Options that several commands share: a dataclass of them in place of a list in each command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R")


def with_shared_options(command: Callable[..., R]) -> Callable[..., R]:
    """Return a command whose parameter of a dataclass type is replaced by that dataclass's fields as options.

    The fields have types of typer (`Annotated`) and defaults. They stand behind the command's own options.
    """
    hints = get_type_hints(command, include_extras=True)
    kind: Any
    place, kind = next((name, hint) for name, hint in hints.items() if is_dataclass(hint))
    kinds = get_type_hints(kind, include_extras=True)
    names = [each.name for each in fields(kind)]
    own = [each.replace(annotation=hints[name]) for name, each in signature(command).parameters.items()]
    shared = [
        Parameter(each.name, Parameter.POSITIONAL_OR_KEYWORD, default=each.default, annotation=kinds[each.name])
        for each in fields(kind)
    ]
    stated = Signature([*(each for each in own if each.name != place), *shared])

    @wraps(command)
    def run(*given: Any, **named: Any) -> R:
        bound = stated.bind(*given, **named)
        bound.apply_defaults()
        values = dict(bound.arguments)
        options = kind(**{name: values.pop(name) for name in names})
        return command(**values, **{place: options})

    # typer reads both.
    run.__signature__ = stated  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = {each.name: each.annotation for each in stated.parameters.values()}
    return run
