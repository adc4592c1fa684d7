"""What one operation of the REST API is, and the document that describes them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.desk import Desk
from consumers.console.users import Right

Schema = dict[str, Any]
Answer = Callable[[Desk, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """One entry of the table."""

    method: str
    path: str
    summary: str
    """What it is for, without a full stop."""
    answer: Answer
    returns: str = "The outcome, in words."
    """What the answer holds."""
    query: dict[str, Schema] = field(default_factory=dict)
    """Parameters of the address, by name."""
    body: Schema | None = None
    """The JSON object that is sent."""
    needed: Right = Right.VIEWER
    gives: str = "application/json"
    """Media type of the answer."""


def described(root: str, operations: Iterable[Operation]) -> dict[str, Any]:
    """The API of these operations below `root`, as OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        names = [part[1:-1] for part in each.path.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in each.query.items()]
        error = {"description": "A refusal in one line", "content": {"application/json": {"schema": _ERROR}}}
        entry: dict[str, Any] = {
            "summary": each.summary,
            "description": f"Needs the right `{each.needed}`.",
            "parameters": parameters,
            "responses": {"200": {"description": each.returns, "content": {each.gives: {}}}, "4XX": error},
        }
        if each.body is not None:
            entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": each.body}}}
        paths.setdefault(root + each.path, {})[each.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pointillist's console", "version": _version()},
        "security": [{"session": []}, {"password": []}],
        "components": {
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": "pointillist"},
                "password": {"type": "http", "scheme": "basic"},
            }
        },
        "paths": paths,
    }


_ERROR: Final[Schema] = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def _version() -> str:
    try:
        return version("pointillist")
    except PackageNotFoundError:
        return "unknown"
