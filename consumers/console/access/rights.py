"""Rights of the console: the one table of routes, each with the right that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

_READ: Final = frozenset(("GET", "HEAD"))


class Right(StrEnum):
    """The rights of a person. Each includes those before it."""

    VIEWER = "viewer"
    """Read all pages."""
    OPERATOR = "operator"
    """Send commands to cameras, decide on alerts, remove cameras."""
    ADMIN = "admin"
    """Publish models and replay dead letters."""

    def covers(self, needed: Right) -> bool:
        """Return whether this right includes the `needed` one."""
        order = list(Right)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Person:
    """The author of an action: somebody who has logged in, or a program with a token."""

    name: str
    """Name in the audit log."""
    right: Right


class GuardedRoute(Route):
    """A route for one method, and the right that it needs."""

    def __init__(
        self,
        path: str,
        answer: Callable[[Request], Awaitable[Response]],
        method: str = "GET",
        needed: Right | None = Right.VIEWER,
    ) -> None:
        """With `needed` None the route is open to strangers. ValueError for a change that viewers could make."""
        if method not in _READ and needed is Right.VIEWER:
            raise ValueError(f"{method} {path}: expected at least the right `{Right.OPERATOR}`, got `{needed}`.")
        super().__init__(path, answer, methods=[method])
        self.method = method
        self.needed = needed


class OpenMount(Mount):
    """Files that strangers may read."""


class RouteRights:
    """The right that a request needs, from the routes in their order."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes

    def needed(self, scope: Scope) -> Right | None:
        """Return the right, None for open content.

        A path without a route needs a login, and a method without a route the right to change something.
        """
        is_read = scope["method"] in _READ
        for route in self._routes:
            if route.matches(scope)[0] is not Match.FULL:
                continue
            if isinstance(route, GuardedRoute):
                return route.needed
            if isinstance(route, OpenMount):
                return None
        return Right.VIEWER if is_read else Right.OPERATOR
