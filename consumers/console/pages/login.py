"""The login page: by password, by the identity provider, by the owner's link; and the logout."""

from __future__ import annotations

import re
from functools import partial
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from consumers.console.access.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.access.cookies import OPENID_COOKIE, browser_cookie, cookie, cookie_name, openid_cookie
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import (
    LARGEST_LOGIN,
    LOGIN,
    address_of,
    form_of,
    gone_of,
    origin_of,
    read_form,
)
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.logins import NO_PROVIDER
from consumers.console.access.openid import BEGIN, DONE, LOGOUT
from consumers.console.access.owner import LINK
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import GuardedRoute
from consumers.console.context import ConsoleContext

_OWN_PATH: Final = re.compile(r"/(?!/)[^\x00-\x1f\x7f\\]*")
"""A path of this host. Browsers remove tabs and line breaks from a URL, and read a backslash as a slash."""
_URL_CHARACTERS: Final = ":/?#[]@!$&'()*+,;=%~"
"""Characters besides letters, digits and -._ that a URL may have (RFC 3986)."""


def login_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page, all open."""
    return [
        GuardedRoute(LOGIN, partial(_page, context), needed=None),
        GuardedRoute(LOGIN, partial(_log_in, context), "POST", needed=None),
        GuardedRoute(LINK, partial(_link, context), needed=None),
        GuardedRoute(BEGIN, partial(_begin, context), needed=None),
        GuardedRoute(DONE, partial(_done, context), needed=None),
        GuardedRoute(LOGOUT, partial(_logged_out, context), "POST", needed=None),
        GuardedRoute("/logout", partial(_log_out, context), "POST", needed=None),
        GuardedRoute("/health", _health, needed=None),
    ]


async def _health(_request: Request) -> Response:
    return JSONResponse({"ok": True})


def _form(context: ConsoleContext, then: str, complaint: str, status: int) -> Response:
    login_methods = context.logins.login_methods
    passwords = login_methods.users is not None and bool(login_methods.users())
    body = context.render(
        "login.html",
        then=then,
        complaint=complaint,
        passwords=passwords,
        openid=login_methods.openid is not None,
        proxied=login_methods.proxy is not None,
    )
    return Response(body, status, media_type="text/html")


def _own_path(then: str) -> str:
    return then if _OWN_PATH.fullmatch(then) else "/"


async def _page(context: ConsoleContext, request: Request) -> Response:
    return _form(context, request.query_params.get("then", "/"), "", 200)


async def _log_in(context: ConsoleContext, request: Request) -> Response:
    fields = form_of(request)
    then, name = fields.get("then", "/"), fields.get("name", "")
    browsers, origin = context.logins.browsers, origin_of(request)
    attempt = Attempt(address_of(request), name, browsers.known(request.cookies.get(BROWSER_COOKIE, ""), name))
    try:
        user = await context.logins.by_form(attempt, fields.get("password", ""), gone_of(request))
    except TryLaterError as later:
        answer = _form(context, then, f"Too many attempts. Try again in {later.after_s} s.", 429)
        answer.headers["retry-after"] = str(later.after_s)
        return answer
    if user is None:
        return _form(context, then, "Wrong name or password.", 403)
    answer = RedirectResponse(_own_path(then), 303)
    token = context.sessions.begin(user, context.logins.is_current(user))
    answer.headers.append("set-cookie", cookie(token, origin))
    answer.headers.append("set-cookie", browser_cookie(browsers.mark(user.name), origin))
    return answer


def _onward(context: ConsoleContext, request: Request, place: str, token: str) -> Response:
    """Return a page that goes on to another, and sets or deletes the session cookie.

    Browsers send a strict cookie only from a page of ours: after a redirect from another site they leave it out. And a
    form may not be redirected to another site (`form-action` of the content policy).
    """
    quoted = quote(place, safe=_URL_CHARACTERS)
    answer = Response(context.render("onward.html", place=quoted), media_type="text/html")
    answer.headers.append("set-cookie", cookie(token, origin_of(request)))
    return answer


async def _link(context: ConsoleContext, request: Request) -> Response:
    if not await context.logins.by_link(request.query_params.get("token", ""), address_of(request)):
        return _form(
            context,
            "/",
            "This link is invalid or expired. Open the link that `pointillist up` or `pointillist status` shows.",
            403,
        )
    return _onward(context, request, "/", context.sessions.begin_owner())


async def _begin(context: ConsoleContext, request: Request) -> Response:
    then, openid = request.query_params.get("then", "/"), context.logins.login_methods.openid
    if openid is None:
        return _form(context, then, NO_PROVIDER, 404)
    try:
        url, pending = await openid.begin(then, address_of(request))
    except RefusedLoginError as refused:
        return _form(context, then, str(refused), refused.status)
    answer = RedirectResponse(url, 303)
    answer.headers.append("set-cookie", openid_cookie(pending, origin_of(request)))
    return answer


async def _done(context: ConsoleContext, request: Request) -> Response:
    origin = origin_of(request)
    pending = request.cookies.get(cookie_name(origin, OPENID_COOKIE), "")
    try:
        found = await context.logins.by_openid(request.query_params, pending, address_of(request))
        if found is None:
            return _form(context, "/", NO_PROVIDER, 404)
        token = await context.logins.begin_of_provider(found, address_of(request))
    except RefusedLoginError as refused:
        answer = _form(context, "/", str(refused), refused.status)
    else:
        answer = _onward(context, request, _own_path(found.then), token)
    answer.headers.append("set-cookie", openid_cookie("", origin))
    return answer


async def _logged_out(context: ConsoleContext, request: Request) -> Response:
    """End the sessions that a logout token of the provider names. The token is the only credential."""
    fields = await read_form(request, LARGEST_LOGIN)
    try:
        await context.logins.by_logout_token((fields or {}).get("logout_token", ""), address_of(request))
    except RefusedLoginError as refused:
        return error_response(refused.status, str(refused))
    return JSONResponse({})


async def _log_out(context: ConsoleContext, request: Request) -> Response:
    origin, openid = origin_of(request), context.logins.login_methods.openid
    ended = context.sessions.end(request.cookies.get(cookie_name(origin), ""))
    if ended is not None:
        await context.logins.log_out(ended, address_of(request))
        place = openid.logout_url(ended.id_token) if openid is not None else None
        if place is not None:
            return _onward(context, request, place, "")
    answer = RedirectResponse(LOGIN, 303)
    answer.headers.append("set-cookie", cookie("", origin))
    return answer
