"""The rights of a request's person by site: the part of the fleet to read, and checks of single objects."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import EVERYWHERE, RequiredRight, Right, Roles
from consumers.console.access.sessions import Session
from consumers.console.access.sight import ALL, Sight, site_of

UNSEEN: Final = "expected a camera, alert, frame, dead letter or job of your sites, got another or an unknown one"


def sight_of(request: Request) -> Sight:
    """Return the sites at which the person has the right that the route needs."""
    return _with(request, _need(request).right)


def visible_to(request: Request) -> Sight:
    """Return the sites that the person may see."""
    return _with(request, Right.VIEWER)


def _with(request: Request, right: Right | None) -> Sight:
    roles = _roles(request)
    sites = roles.sites(right) if roles is not None and right is not None else frozenset[str]()
    return ALL if EVERYWHERE in sites else Sight(sites)


def require(request: Request, subject: str | None, unseen: str = UNSEEN) -> None:
    """Check the right that the route needs at the site of a camera, or of a name that begins with `site/`.

    Another subject needs the right for all sites; None does not exist. Raises RefusedActionError: 404 with the text
    `unseen` without any right there, as for an object that does not exist.
    """
    roles, needed = _roles(request), _need(request).right
    held = roles.at(site_of(subject)) if roles is not None and subject is not None else None
    if held is None:
        raise RefusedActionError(unseen, 404)
    if needed is not None and not held.covers(needed):
        raise RefusedActionError(f"user: expected the right `{needed}` at that site, got `{held}`", 403)


def may(request: Request, right: Right, subject: str | None = None) -> bool:
    """Return whether the person has a right: at the site of `subject`, else where the route needs one."""
    roles = _roles(request)
    if roles is None:
        return False
    held = _need(request).held(roles) if subject is None else roles.at(site_of(subject))
    return held is not None and held.covers(right)


def _roles(request: Request) -> Roles | None:
    session: Session | None = request.scope["state"]["session"]
    return session.person.roles if session is not None else None


def _need(request: Request) -> RequiredRight:
    found: RequiredRight = request.scope["state"]["need"]
    return found
