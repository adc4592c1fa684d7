"""The parts of one operation of the REST API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.error_response import error_response
from consumers.console.access.gate import body_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import Right, RightScope
from consumers.console.actions.changes import Change
from consumers.console.context import ConsoleContext
from schemas.errors import ConfigError

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

    async def respond(self, context: ConsoleContext, request: Request) -> Response:
        """Answer a request. `json_of` then rejects fields that the schema of the body does not have."""
        request.scope["state"]["fields"] = (self.body or {}).get("properties")
        return await self.answer(context, request)


def fields(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object with these properties and no others, of which some are required."""
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | {"required": list(required)} if required else found


async def json_of(request: Request) -> dict[str, Any]:
    """Return the JSON object in the request.

    Raises RefusedActionError, 400, if it is invalid, too large, too deep or not text, or if it has an unknown field.
    """
    body, found = await body_of(request), None
    with suppress(ValueError, RecursionError):
        sent = json.loads(body or b"{}") if body is not None else None
        # A text may hold a lone surrogate ("\ud800") or a NUL character, which nothing can store.
        is_text = b"\\u0000" not in json.dumps(sent, ensure_ascii=False).encode()
        found = sent if is_text else None
    if not isinstance(found, dict):
        raise RefusedActionError("body: expected a JSON object", 400)
    known = request.scope["state"]["fields"]
    if known is not None and (unknown := found.keys() - known.keys()):
        expected = ", ".join(known)
        raise RefusedActionError(f"body: expected {expected}, got {str(min(unknown))[:40]!r}. Correct it.", 400)
    return found


async def answer_change(change: Change, context: ConsoleContext, request: Request) -> Response:
    """Run `change` with the JSON object in the request. Answer with its outcome, or 400 with its ConfigError."""
    try:
        outcome = await change(context, request, await json_of(request))
    except ConfigError as error:
        return error_response(400, str(error))
    return JSONResponse({"outcome": outcome})
