"""Refusals in one line: a page for a person who opened a link or sent a form, JSON for everything else."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

_PAGE: Final = Environment(loader=PackageLoader("consumers.console"), autoescape=True).get_template("refusal.html")


class _Refusal(JSONResponse):
    """A refusal that becomes a page if a browser shows the answer."""

    def __init__(self, status: int, complaint: str) -> None:
        super().__init__({"error": complaint}, status)
        self._complaint = complaint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal."""
        headers = Headers(scope=scope)
        if not _is_shown(scope["path"], headers):
            await super().__call__(scope, receive, send)
            return
        page = HTMLResponse(_PAGE.render(complaint=self._complaint, back=page_before(headers)), self.status_code)
        for name, value in self.headers.items():
            page.headers.setdefault(name, value)
        await page(scope, receive, send)


def error_response(status: int, complaint: str) -> Response:
    """Return a refusal in one line."""
    return _Refusal(status, complaint)


def _is_shown(path: str, headers: Headers) -> bool:
    """Return whether a browser shows the answer. Scripts and pictures of our pages ask for other types."""
    asks = "text/html" in headers.get("accept", "")
    return asks and "hx-request" not in headers and not path.startswith("/api/")


def page_before(headers: Headers) -> str:
    """Return the page of this console that the visitor comes from, or the first one."""
    try:
        came = urlsplit(headers.get("referer", ""))
    except ValueError:
        return "/"
    is_own = came.scheme in ("http", "https") and came.netloc == headers.get("host")
    return f"/{came.path.lstrip('/')}" + (f"?{came.query}" if came.query else "") if is_own else "/"
