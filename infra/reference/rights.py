"""The reference of rights in the console: every route, with the right that it needs."""

from __future__ import annotations

from typing import Any, cast

from consumers.console.access.rights import Right
from consumers.console.web import console_routes
from infra.reference.markdown import code, page, table
from infra.settings.described import docstrings


def rights() -> str:
    """The page."""
    nobody = cast(Any, None)  # routes are listed, not answered
    routes = console_routes(nobody, nobody)
    described = docstrings(Right)
    parts = []
    for right in (*Right, None):
        rows = sorted((route.path, route.method) for route in routes if route.needed is right)
        heading = f"## Routes for the right `{right}`" if right is not None else "## Routes for everybody"
        parts += [heading, table(("method", "path"), [(code(method), code(path)) for path, method in rows])]
    return page(
        "Rights in the console",
        "The gate compares the right of a person or a token with the right of the route, before anything else of the "
        "request is read. [How people get a right](../operations/people.md).",
        table(("right", "may, besides what those above may"), [(code(each), described[each.name]) for each in Right]),
        *parts,
        "The files below `/static/` are for everybody too.",
    )
