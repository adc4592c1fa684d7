"""The gate before every page: security headers, sessions, rights, and protection against cross-site forms."""

from __future__ import annotations

import asyncio
import base64
import hmac
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers.console.access.connections import client_of
from consumers.console.access.cookies import Origin, cookie_name
from consumers.console.access.error_response import error_response, page_before
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.logins import Logins
from consumers.console.access.passwords import Gone
from consumers.console.access.refusal import RefusedActionError, RefusedLoginError
from consumers.console.access.rights import EVERYWHERE, RequiredRight, Right, RightScope, RouteRights
from consumers.console.access.sessions import Session
from consumers.console.access.sites import UNSEEN
from consumers.console.access.users import User
from consumers.console.failures import Failures
from consumers.database.damage import AWAY
from schemas.errors import BrokerError, StateError

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # A stricter policy would send forms with `Origin: null`, which proves nothing.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_STRICT_TRANSPORT: Final = {"strict-transport-security": "max-age=31536000"}
"""The header for HTTPS: browsers then never use HTTP for this host."""
OWNERS_ADVICE: Final = ". Open the link that `pointillist up` or `pointillist status` shows."
"""The way of a console without logins to more than reading."""
LARGEST_FORM: Final = 2**16
LARGEST_LOGIN: Final = 2**13
"""Maximum size in bytes of the login form, the only form that is read without a session."""
LOGIN: Final = "/login"


class Visit:
    """The messages of one request. `gone` reads ahead; the application still receives every message."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ahead: Message | None = None

    async def __call__(self) -> Message:
        """Return the next message."""
        found, self._ahead = self._ahead, None
        return found if found is not None else await self._receive()

    async def gone(self) -> None:
        """Return when the visitor has left."""
        if self._ahead is None:
            self._ahead = await self._receive()
        while self._ahead["type"] != "http.disconnect":
            if self._ahead.get("more_body", False):
                await asyncio.Event().wait()  # reading on would buffer more of the body
            if (await self._receive())["type"] == "http.disconnect":
                return


class Gate:
    """ASGI middleware that sets `scope["state"]["session"]` on admitted requests."""

    def __init__(self, app: ASGIApp, logins: Logins, rights: RouteRights) -> None:
        self._app = app
        self._failures = Failures()
        self._logins = logins
        self._rights = rights
        self._sessions = logins.sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, or pass it to the application."""
        if scope["type"] != "http":
            return

        headers = _HEADERS | (_STRICT_TRANSPORT if scope["scheme"] == "https" else {})
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                made = MutableHeaders(scope=message)
                for name, value in headers.items():
                    made.setdefault(name, value)
                made.setdefault("cache-control", "no-store")
            await send(message)

        visit = Visit(receive)
        request = Request(scope, visit)
        try:
            await self._answer(request, scope, visit, sending)
        except ClientDisconnect:
            return
        except RefusedActionError as refused:
            await error_response(refused.status, str(refused))(scope, visit, sending)
        except Exception as error:
            # The console's health has the reason why a broker or the database is away.
            is_away = isinstance(error, BrokerError | StateError) and not has_begun
            if not is_away:
                self._failures.log(request, error)
            if has_begun:
                raise
            if is_away:
                refusal = error_response(503, str(error))
            elif isinstance(error, AWAY):  # readers of the recorder's database raise one of the errors above
                refusal = error_response(503, "the console's database does not respond: see the console's log")
            else:
                refusal = error_response(500, "internal error: see the console's log")
            await refusal(scope, visit, sending)

    async def _answer(self, request: Request, scope: Scope, visit: Visit, sending: Send) -> None:
        if "\0" in path_of(request) or b"%00" in scope["query_string"]:
            raise RefusedActionError("path and query: expected no NUL character, which PostgreSQL does not hold", 400)
        state = scope.setdefault("state", {})
        state["session"], state["form"], state["gone"] = None, {}, visit.gone
        need = state["need"] = self._rights.need(scope)
        needed = need.right
        session, brings_credentials, refusal = None, False, None
        try:
            session, brings_credentials = await self._session(request, needed)
        except TryLaterError as later:
            refusal = try_later(later)
        except RefusedLoginError as refused:
            refusal = error_response(refused.status, str(refused))
        if refusal is None and needed is not None:
            refusal = _require_login(request) if session is None else self._refuse_missing_right(session, need, needed)
        state["session"] = session
        if refusal is None and request.method not in ("GET", "HEAD"):
            refusal = await self._check_origin(request, session, brings_credentials)
        await (refusal or self._app)(scope, visit, sending)

    async def _session(self, request: Request, needed: Right | None) -> tuple[Session | None, bool]:
        """Return the session, and whether the request itself brings credentials that no other site can send."""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        text, peer = text.strip(), peer_of(request)
        if needed is not None and kind.lower() == "bearer" and self._logins.takes_bearer(text, peer):
            return await self._logins.by_token(text, address_of(request)), True
        if needed is not None:
            proxied = await self._logins.by_proxy(request.headers, peer, address_of(request))
            if proxied is not None:
                return proxied, False
        cookie = request.cookies.get(cookie_name(origin_of(request)), "")
        session = self._sessions.find(cookie) or self._sessions.visitor
        if session is not None or needed is None or kind.lower() != "basic":
            return session, False
        user = await self._by_password(request, text)
        return (None, False) if user is None else (self._sessions.passing(user, self._logins.is_current(user)), True)

    def _refuse_missing_right(self, session: Session, need: RequiredRight, needed: Right) -> Response | None:
        """Return the refusal of a request whose person lacks the right at its site."""
        held = need.held(session.roles)
        if held is not None and held.covers(needed):
            return None
        if held is None and need.reach is RightScope.SITE:
            return error_response(404, UNSEEN)
        where = " on all sites" if need.reach is RightScope.FLEET and session.roles.at(EVERYWHERE) is None else ""
        advice = OWNERS_ADVICE if session is self._sessions.visitor else ""
        return error_response(403, f"user: expected the right `{needed}`{where}, got `{session.roles}`{advice}")

    async def _check_origin(
        self, request: Request, session: Session | None, brings_credentials: bool
    ) -> Response | None:
        """Check a state-changing request: origin, form and CSRF token. Return a refusal, or None."""
        if not is_own(request.headers):
            return error_response(403, "origin: expected a page of this console, got another site's")
        path = path_of(request)
        if path.startswith("/api/"):
            # A page of another site cannot send this header without a preflight request.
            is_json = request.headers.get("content-type", "").startswith("application/json")
            return None if is_json else error_response(415, "content-type: expected application/json")
        if session is None and path != LOGIN:
            return None  # Strangers may send no other form: the routes reject the method, and the body stays unread.
        largest = LARGEST_LOGIN if path == LOGIN else LARGEST_FORM
        fields = await read_form(request, largest)
        if fields is None:
            return error_response(400, f"body: expected a form of at most {largest} bytes")
        request.scope["state"]["form"] = fields
        if brings_credentials or session is None or path == LOGIN:
            return None
        token = request.headers.get("x-csrf-token") or fields.get("csrf", "")
        return (
            None
            if hmac.compare_digest(token.encode(), session.csrf.encode())
            else error_response(403, "csrf: expected the token of this page. Reload the page.")
        )

    async def _by_password(self, request: Request, text: str) -> User | None:
        try:
            name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except ValueError:
            return None
        return await self._logins.by_basic(Attempt(address_of(request), name), password, gone_of(request))


def _require_login(request: Request) -> Response:
    path = path_of(request)
    if path.startswith("/api/") or request.headers.get("hx-request"):
        return error_response(401, "login is missing: send a session cookie, a token, or HTTP Basic credentials")
    return RedirectResponse(f"/login?then={quote(_requested_page(request))}", 303)


def _requested_page(request: Request) -> str:
    """Return path and query of the page that a stranger asks for, or on which the form was."""
    if request.method in ("GET", "HEAD"):
        query = request.scope["query_string"].decode("latin-1")
        return quote(path_of(request)) + (f"?{query}" if query else "")
    return page_before(request.headers)


def path_of(request: Request) -> str:
    """Return the path used for routing. `request.url` may come from the `Host` header."""
    found: str = request.scope["path"]
    return found


def try_later(later: TryLaterError) -> Response:
    """Return 429: no password is checked now."""
    refusal = error_response(429, str(later))
    refusal.headers["retry-after"] = str(later.after_s)
    return refusal


def address_of(request: Request) -> str:
    """Return the visitor's address."""
    return request.client.host if request.client else ""


def peer_of(request: Request) -> str:
    """Return the address at the other end of the connection, which no header changes."""
    client = client_of(request.scope)
    return client[0] if client else address_of(request)


def gone_of(request: Request) -> Gone:
    """Return a function that waits until the visitor has left."""
    found: Gone = request.scope["state"]["gone"]
    return found


def session_of(request: Request) -> Session:
    """Return the session of a request. Raises LookupError without one; the gate lets no page see that."""
    found: Session | None = request.scope["state"]["session"]
    if found is None:
        raise LookupError("session: expected one, the request has none")
    return found


def origin_of(request: Request) -> Origin:
    """Return the origin in the browser's URL."""
    _, _, port = request.headers.get("host", "").rpartition(":")
    return Origin(request.scope["scheme"] == "https", port if port.isdecimal() else "")


def is_own(headers: Headers) -> bool:
    """Return whether a browser sent this from one of our pages, or the client is not a browser."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def form_of(request: Request) -> dict[str, str]:
    """Return the fields of the submitted form."""
    found: dict[str, str] = request.scope["state"]["form"]
    return found


async def body_of(request: Request, largest: int = LARGEST_FORM) -> bytes | None:
    """Return the request's body; None if it is larger than `largest` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > largest:
            return None
    return body


async def read_form(request: Request, largest: int) -> dict[str, str] | None:
    """Return the fields of a form; None if it is larger than `largest` bytes, no form, or has a NUL character."""
    body = await body_of(request, largest)
    if body is None or b"\0" in body or b"%00" in body:
        return None
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    except ValueError:
        return None
