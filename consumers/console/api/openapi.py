"""The OpenAPI document of the REST API."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from consumers.console.access.rights import RightScope
from consumers.console.api.operation import TEXT, Operation, Schema


def described(root: str, operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these operations below `root`."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        names = [part[1:-1] for part in each.path.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in each.query.items()]
        error = {"description": "An error message in one line", "content": {"application/json": {"schema": _ERROR}}}
        entry: dict[str, Any] = {
            "summary": each.summary,
            "description": _NEEDS[each.reach or RightScope.SITE].format(each.needed),
            "parameters": parameters,
            "responses": {
                str(each.status): {"description": each.returns, "content": {each.gives: {}}},
                "4XX": error,
                "5XX": error,
            },
        }
        if each.body is not None:
            entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": each.body}}}
        paths.setdefault(root + each.path, {})[each.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pointillist's console", "version": _version()},
        "security": [{"session": []}, {"token": []}, {"password": []}],
        "components": {
            "securitySchemes": {
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "pointillist",
                    "description": "Its name ends in `-PORT` unless the port is the usual one, and begins with "
                    "`__Host-` by HTTPS.",
                },
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            }
        },
        "paths": paths,
    }


_NEEDS: Final = {
    RightScope.SITE: "Needs the right `{}` at the camera's site.",
    RightScope.PART: "Needs the right `{}` at one site or more. Only cameras of these sites are included.",
    RightScope.FLEET: "Needs the right `{}` at all sites.",
    RightScope.SAME: "Needs the right `{}` at any site.",
}
"""The right that a route needs, by its reach."""

_ERROR: Final[Schema] = {"type": "object", "properties": {"error": TEXT}, "required": ["error"]}


def _version() -> str:
    try:
        return version("pointillist")
    except PackageNotFoundError:
        return "unknown"
