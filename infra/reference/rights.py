"""The reference of rights in the console: every route, with the right that it needs."""

from __future__ import annotations

from typing import Any, cast

from consumers.console.access.rights import Right, RightScope
from consumers.console.web import console_routes
from infra.reference.markdown import code, page, table
from infra.settings.described import docstrings


def rights() -> str:
    """Return the page of the rights."""
    nobody = cast(Any, None)  # routes are listed, not answered
    routes = console_routes(nobody, nobody)
    described, reaches = docstrings(Right), docstrings(RightScope)
    parts = []
    for right in (*Right, None):
        rows = sorted((route.path, route.method, route.reach or "") for route in routes if route.needed is right)
        heading = f"## Routes for the right `{right}`" if right is not None else "## Routes for everybody"
        columns = ("method", "path", "at") if right is not None else ("method", "path")
        cells = [(code(method), code(path), reach) for path, method, reach in rows]
        parts += [heading, table(columns, [each[: len(columns)] for each in cells])]
    return page(
        "Rights in the console",
        "The gate compares the right of a person or a token with the right of the route, before anything else of the "
        "request is read. A person has a role for each site, or one for all of them. [How people get a "
        "right](../operations/people.md).",
        table(("right", "may, besides what those above may"), [(code(each), described[each.name]) for each in Right]),
        table(("at", "where the right is needed"), [(each.value, reaches[each.name]) for each in RightScope]),
        *parts,
        "The files below `/static/` are for everybody too.",
    )
