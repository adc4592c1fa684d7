"""Changes by the fields of a form or of a JSON object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request

from consumers.console.access.refusal import RefusedActionError
from consumers.console.context import ConsoleContext

SAVED: Final = "saved"
REMOVED: Final = "removed"

Change = Callable[[ConsoleContext, Request, Mapping[str, Any]], Awaitable[str]]
"""A change by the fields of a form or of a JSON object. Returns the outcome. Raises UserError for wrong fields."""


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return one text among the submitted values, empty without it. Raises RefusedActionError for any other type."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise RefusedActionError(f"{name}: expected a text, got {str(value)[:40]!r}. Correct it.", 400)
    return value
