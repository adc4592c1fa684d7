"""The parts of one operation of the REST API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.gate import body_of, error_response
from consumers.console.access.rights import Right, RightScope
from consumers.console.context import ConsoleContext
from consumers.console.pages.outcomes import Change

Schema = dict[str, Any]
Answer = Callable[[ConsoleContext, Request], Awaitable[Response]]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
WHOLE: Final[Schema] = {"type": "integer"}
OBJECT: Final[Schema] = {"type": "object"}


@dataclass(frozen=True)
class Operation:
    """One operation of the API."""

    method: str
    path: str
    summary: str
    """Its purpose, without a full stop."""
    answer: Answer
    returns: str = "The outcome in words."
    """Content of the response."""
    query: dict[str, Schema] = field(default_factory=dict)
    """Query parameters by name."""
    body: Schema | None = None
    """Schema of the JSON object in the request; None without a body."""
    needed: Right = Right.VIEWER
    reach: RightScope | None = None
    """The sites at which the right is needed; None for the site in the path."""
    gives: str = "application/json"
    """Media type of the response."""
    status: int = 200
    """HTTP status of a success."""


def fields(**properties: Schema) -> Schema:
    """Return the schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


async def json_of(request: Request) -> dict[str, Any] | None:
    """Return the JSON object in the request; None if it is invalid, too large, too deep or not text."""
    body = await body_of(request)
    if body is None:
        return None
    try:
        found = json.loads(body or b"{}")
        # A text may hold a lone surrogate ("\ud800") or a NUL character, which nothing can store.
        if b"\\u0000" in json.dumps(found, ensure_ascii=False).encode():
            return None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


async def answer_change(change: Change, done: str, context: ConsoleContext, request: Request) -> Response:
    """Run `change` with the JSON object in the request. Answer 200 if its outcome is `done`, else 400."""
    asked = await json_of(request)
    if asked is None:
        return error_response(400, "body: expected a JSON object")
    outcome = await change(context, request, asked)
    return JSONResponse({"outcome": outcome}) if outcome == done else error_response(400, outcome)
