"""What stands before every page: headers that keep foreign content out, who asks, and what he may ask for."""

from __future__ import annotations

import asyncio
import base64
import hmac
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers.console.sessions import Session, Sessions
from consumers.console.users import Right, User, check_password

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not less: a form would then be sent with `Origin: null`, which is nobody's.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
COOKIE: Final = "pointillist"
LARGEST_FORM: Final = 2**16
_OPEN: Final = ("/login", "/static/", "/health")
"""What is shown to who is not logged in."""


class Gate:
    """Lets requests in with `scope["state"]["session"]` set."""

    def __init__(
        self, app: ASGIApp, users: dict[str, User] | None, sessions: Sessions, checks: ThreadPoolExecutor
    ) -> None:
        self._app = app
        self._users = users
        self._sessions = sessions
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or hand on."""
        if scope["type"] != "http":
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                made = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    made.setdefault(name, value)
                made.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope, receive)
        session = self._sessions.local or self._sessions.find(request.cookies.get(COOKIE, ""))
        by_password = False
        if session is None and (user := await self._by_password(request)) is not None:
            session, by_password = Session(user.name, user.right), True
        state = scope.setdefault("state", {})
        state["session"], state["form"] = session, {}
        refusal = self._stranger(request, session)
        if refusal is None and request.method not in ("GET", "HEAD"):
            refusal = await self._foreign(request, session, by_password)
        await (refusal or self._app)(scope, receive, sending)

    def _stranger(self, request: Request, session: Session | None) -> Response | None:
        path = request.url.path
        if session is not None or any(path == each or (each[-1] == "/" and path.startswith(each)) for each in _OPEN):
            return None
        if path.startswith("/api/") or request.headers.get("hx-request"):
            return no(401, "log in first: a session's cookie, or HTTP Basic")
        return RedirectResponse(f"/login?then={quote(path)}", 303)

    async def _foreign(self, request: Request, session: Session | None, by_password: bool) -> Response | None:
        """What changes something comes from a page of ours, or from no browser."""
        if not is_own(request.headers):
            return no(403, "this came from a page of somebody else's")
        if request.url.path.startswith("/api/"):
            # A page of somebody else's cannot send this without being asked about it first.
            is_json = request.headers.get("content-type", "").startswith("application/json")
            return None if is_json else no(415, "expected content-type: application/json")
        fields = await _fields(request)
        if fields is None:
            return no(400, f"expected a form of at most {LARGEST_FORM} bytes")
        request.scope["state"]["form"] = fields
        if by_password or session is None or request.url.path == "/login":
            return None
        said = request.headers.get("x-csrf-token") or fields.get("csrf", "")
        return None if hmac.compare_digest(said.encode(), session.csrf.encode()) else no(403, "load the page again")

    async def _by_password(self, request: Request) -> User | None:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if self._users is None or kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except ValueError:
            return None
        return await self.check(request, name, password)

    async def check(self, request: Request, name: str, password: str) -> User | None:
        """The user, if that is his password; an address that was wrong too often is not listened to for a while."""
        return await checked(self._users or {}, self._sessions, self._checks, request, name, password)


async def checked(
    users: dict[str, User], sessions: Sessions, checks: ThreadPoolExecutor, request: Request, name: str, password: str
) -> User | None:
    """See `Gate.check`."""
    address = request.client.host if request.client else ""
    if not sessions.may_try(address):
        return None
    user = await asyncio.get_running_loop().run_in_executor(checks, check_password, users, name, password)
    if user is None:
        sessions.was_wrong(address)
    return user


def session_of(request: Request) -> Session:
    """Whose request it is."""
    found: Session = request.scope["state"]["session"]
    return found


def may(request: Request, needed: Right) -> bool:
    """Whether who asks has that right."""
    return session_of(request).right.covers(needed)


def cookie(token: str, *, secure: bool) -> str:
    """The header that gives a browser its session; an empty token takes it away."""
    ends = "" if token else "; Max-Age=0"
    return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}{ends}"


def is_own(headers: Headers) -> bool:
    """Whether a browser sent this from one of our pages, or it was no browser."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def form_of(request: Request) -> dict[str, str]:
    """The fields of the form that was sent."""
    found: dict[str, str] = request.scope["state"]["form"]
    return found


async def body_of(request: Request) -> bytes | None:
    """All that was sent; None when that is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            return None
    return body


async def _fields(request: Request) -> dict[str, str] | None:
    """The fields of a form; None when it is too large, or none."""
    body = await body_of(request)
    if body is None:
        return None
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    except ValueError:
        return None


def no(status: int, complaint: str) -> Response:
    """A refusal in one line."""
    return JSONResponse({"error": complaint}, status)
