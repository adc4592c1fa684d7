"""Rights of the console: roles of people by site, and the one table of routes, each with the right that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from schemas.identity import SITE_NAME

_READ: Final = frozenset(("GET", "HEAD"))
EVERYWHERE: Final = "*"
"""In place of a site: all sites, and the actions that concern the whole fleet."""
ROLES_FORM: Final = "viewer, operator or admin, or SITE=ROLE,…"


class Right(StrEnum):
    """The rights of a person. Each includes those before it."""

    VIEWER = "viewer"
    """Read all pages."""
    OPERATOR = "operator"
    """Send commands to cameras, decide on alerts, remove cameras."""
    ADMIN = "admin"
    """Replay dead letters and repair models. With a role for all sites: also train and publish models."""

    def covers(self, needed: Right) -> bool:
        """Return whether this right includes the `needed` one."""
        order = list(Right)
        return order.index(self) >= order.index(needed)


class RightScope(StrEnum):
    """The sites at which a route needs its right."""

    SITE = "its site"
    """The site in the path. If the person has no role there, the answer is 404, also for a camera that does not
    exist."""
    PART = "any site"
    """One site is enough. The answer and the effect are limited to the cameras of the sites where the person has the
    right; a single object of another site is answered like one that does not exist."""
    FLEET = "all sites"
    """All sites: the answer or the effect concerns the whole fleet."""
    SAME = "any site, without cameras"
    """One site is enough. The answer has nothing of any camera."""


@dataclass(frozen=True)
class Roles:
    """The roles of a person: at most one for each site, and one for `*`, all sites."""

    by_site: tuple[tuple[str, Right], ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Right]]) -> Roles:
        """Return the highest role for each site."""
        highest: dict[str, Right] = {}
        for site, right in pairs:
            if site not in highest or right.covers(highest[site]):
                highest[site] = right
        return cls(tuple(sorted(highest.items())))

    @classmethod
    def parse(cls, text: str) -> Roles:
        """Read the form that `str` writes, such as `viewer` or `north=operator,south=viewer`. Raises ValueError."""
        pairs = []
        for part in text.split(","):
            site, equals, right = part.rpartition("=")
            site = site if equals else EVERYWHERE
            if site != EVERYWHERE and not SITE_NAME.fullmatch(site):
                raise ValueError(f"expected a site of a-z 0-9 _ . -, or *, got {site[:80]!r}")
            if right not in list(Right):
                raise ValueError(f"no role is named {right[:80]!r}")
            pairs.append((site, Right(right)))
        return cls.of(pairs)

    def __str__(self) -> str:
        return ",".join(right if site == EVERYWHERE else f"{site}={right}" for site, right in self.by_site)

    def at(self, site: str) -> Right | None:
        """Return the right at a site; at any other text, that for all sites. None without one."""
        held = [right for each, right in self.by_site if each in (EVERYWHERE, site)]
        return max(held, key=list(Right).index, default=None)

    @property
    def highest(self) -> Right:
        """The highest right at any site."""
        return max((right for _, right in self.by_site), key=list(Right).index)

    def sites(self, needed: Right) -> frozenset[str]:
        """Return the sites, or `*`, with at least the `needed` right."""
        return frozenset(site for site, right in self.by_site if right.covers(needed))


@dataclass(frozen=True)
class Person:
    """The author of an action: somebody who has logged in, or a program with a token."""

    name: str
    """Name in the audit log."""
    roles: Roles


class _Number(Convertor[int]):
    """The number in a path such as `/{offset:number}`. A database's largest one takes the place of a larger one."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        """Return the number."""
        return min(int(value), 2**63 - 1)

    def to_string(self, value: int) -> str:
        """Return the number as text."""
        return str(value)


register_url_convertor("number", _Number())


class GuardedRoute(Route):
    """A route for one method, the right that it needs, and the sites at which it needs it."""

    def __init__(
        self,
        path: str,
        answer: Callable[[Request], Awaitable[Response]],
        method: str = "GET",
        needed: Right | None = Right.VIEWER,
        reach: RightScope | None = None,
    ) -> None:
        """With `needed` None the route is open to strangers. A path with `{site}` has the reach `SITE`.

        ValueError for a change that viewers could make, and for a route without a reach.
        """
        if method not in _READ and needed is Right.VIEWER:
            raise ValueError(f"{method} {path}: expected at least the right `{Right.OPERATOR}`, got `{needed}`.")
        if "{site}" in path and needed is not None:
            if reach is not None:
                raise ValueError(f"{method} {path}: expected no reach next to {{site}}, got `{reach}`.")
            reach = RightScope.SITE
        if reach is None and needed is not None:
            raise ValueError(f"{method} {path}: expected a reach, got none.")
        super().__init__(path, answer, methods=[method])
        self.method = method
        self.needed = needed
        self.reach = reach


class OpenMount(Mount):
    """Files that strangers may read."""


@dataclass(frozen=True)
class RequiredRight:
    """The right that a request needs, and where."""

    right: Right | None
    """None for open content."""
    reach: RightScope = RightScope.SAME
    site: str = ""
    """The site in the path; empty for other reaches."""

    def held(self, roles: Roles) -> Right | None:
        """Return the right of a person that counts for this request, None without one."""
        if self.reach is RightScope.SITE:
            return roles.at(self.site)
        return roles.at(EVERYWHERE) if self.reach is RightScope.FLEET else roles.highest


class RouteRights:
    """The right that a request needs, from the routes in their order."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes

    def need(self, scope: Scope) -> RequiredRight:
        """Return the right and its reach.

        A path without a route needs a login, and a method without a route the right to change something.
        """
        for route in self._routes:
            match, found = route.matches(scope)
            if match is not Match.FULL:
                continue
            if isinstance(route, GuardedRoute):
                site = found["path_params"]["site"] if route.reach is RightScope.SITE else ""
                return RequiredRight(route.needed, route.reach or RightScope.SAME, site)
            if isinstance(route, OpenMount):
                return RequiredRight(None)
        return RequiredRight(Right.VIEWER if scope["method"] in _READ else Right.OPERATOR)
