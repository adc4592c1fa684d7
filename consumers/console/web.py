"""The console as a web server: its routes, its files, who may reach it."""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from consumers.console.access.connections import CONNECTIONS
from consumers.console.access.hosts import Hosts, OnlyOwnHosts
from consumers.console.alerts_page import alert_routes
from consumers.console.api import api_routes
from consumers.console.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.camera_page import camera_routes
from consumers.console.dead_letters_page import letter_routes
from consumers.console.desk import HERE, Desk
from consumers.console.fleet_page import fleet_routes
from consumers.console.gate import (
    Gate,
    address_of,
    browser_cookie,
    cookie,
    cookie_name,
    form_of,
    gone_of,
    is_secure,
)
from consumers.console.guesses import Attempt, TryLaterError
from consumers.console.jobs_page import job_routes
from consumers.console.models_page import model_routes
from consumers.console.server import Server
from consumers.console.settings import Proxies
from consumers.console.stream import Streams
from consumers.console.system_page import system_routes
from schemas.errors import ConfigError
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE


class CheckedFiles(StaticFiles):
    """The console's own files and those of `infra.assets`. A browser checks with each use whether they changed."""

    def __init__(self) -> None:
        """Prepare. Raises ConfigError if the files of packages are missing."""
        super().__init__(directory=HERE / "static")
        assets = HERE / "assets"
        if not assets.is_dir():
            raise ConfigError(f"{assets} is missing: expected the files of packages. Run `python -m infra.assets`.")
        self.all_directories.append(assets)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file, or 304 if the browser has it."""
        answer = super().file_response(*args, **kwargs)
        answer.headers["cache-control"] = "no-cache"
        return answer


def make_app(desk: Desk) -> Starlette:
    """The application."""
    streams = Streams(desk.fleet, desk.sessions)
    settings = desk.settings
    routes: list[BaseRoute] = [
        *fleet_routes(desk, streams),
        *camera_routes(desk, streams),
        *alert_routes(desk),
        *model_routes(desk),
        *job_routes(desk, streams),
        *system_routes(desk, streams),
        *letter_routes(desk),
        *api_routes(desk),
        Route("/login", partial(_login_page, desk)),
        Route("/login", partial(_login, desk), methods=["POST"]),
        Route("/logout", partial(_logout, desk), methods=["POST"]),
        Route("/health", _health),
        Mount("/static", CheckedFiles()),
    ]
    hosts = Hosts(settings.http[0], settings.served_as)
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(OnlyOwnHosts, hosts=hosts),
            Middleware(Gate, logins=desk.logins),
        ],
    )


async def _health(_request: Request) -> Response:
    return JSONResponse({"ok": True})


def _login_form(desk: Desk, then: str, complaint: str, status: int) -> Response:
    body = desk.render("login.html", then=then, complaint=complaint)
    return Response(body, status, media_type="text/html")


async def _login_page(desk: Desk, request: Request) -> Response:
    return _login_form(desk, request.query_params.get("then", "/"), "", 200)


async def _login(desk: Desk, request: Request) -> Response:
    fields = form_of(request)
    then, name = fields.get("then", "/"), fields.get("name", "")
    browsers, secure = desk.logins.browsers, is_secure(request)
    attempt = Attempt(address_of(request), name, browsers.known(request.cookies.get(BROWSER_COOKIE, ""), name))
    try:
        user = await desk.logins.by_form(attempt, fields.get("password", ""), gone_of(request))
    except TryLaterError as later:
        answer = _login_form(desk, then, f"Too many passwords: try again in {later.after_s} s.", 429)
        answer.headers["retry-after"] = str(later.after_s)
        return answer
    if user is None:
        return _login_form(desk, then, "That is not a name and its password.", 403)
    answer = RedirectResponse(then if then.startswith("/") and not then.startswith(("//", "/\\")) else "/", 303)
    answer.headers.append("set-cookie", cookie(desk.sessions.begin(user), secure=secure))
    answer.headers.append("set-cookie", browser_cookie(browsers.mark(user.name), secure=secure))
    return answer


async def _logout(desk: Desk, request: Request) -> Response:
    secure = is_secure(request)
    ended = desk.sessions.end(request.cookies.get(cookie_name(secure=secure), ""))
    if ended is not None:
        await desk.logins.log_out(ended, address_of(request))
    answer = RedirectResponse("/login", 303)
    answer.headers.append("set-cookie", cookie("", secure=secure))
    return answer


def make_server(desk: Desk) -> Server:
    """The server of one console."""
    tls, proxy = desk.settings.http_tls, desk.settings.behind_proxy
    if proxy is not None:
        CONNECTIONS.shared = Proxies(proxy)
    return Server(
        uvicorn.Config(
            make_app(desk),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            server_header=False,
            # `X-Forwarded-For` of anybody else would give each guess an address of its own.
            proxy_headers=proxy is not None,
            forwarded_allow_ips=proxy or "",
            ssl_certfile=tls / CERTIFICATE_FILE if tls else None,
            ssl_keyfile=tls / KEY_FILE if tls else None,
        )
    )


def listen(host: str, port: int, patience_s: float = 3.0) -> socket.socket:
    """Take the address; ConfigError when it is not free for so long."""
    end_s = time.monotonic() + patience_s
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"expected an address for the console, got {host}:{port}: {error}") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            listening.bind(address)
            return listening
        except OSError as error:
            if time.monotonic() > end_s:
                listening.close()
                raise ConfigError(f"expected a free address for the console, got {host}:{port}: {error}") from None
            time.sleep(0.05)
