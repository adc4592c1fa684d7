"""The console as a web server: routes, static files, and access."""

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

from consumers.console.access.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.access.connections import CONNECTIONS
from consumers.console.access.gate import (
    Gate,
    address_of,
    browser_cookie,
    cookie,
    cookie_name,
    form_of,
    gone_of,
    is_secure,
)
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.hosts import Hosts, OnlyOwnHosts
from consumers.console.api.routes import api_routes
from consumers.console.context import HERE, ConsoleContext
from consumers.console.data.stream import Streams
from consumers.console.pages.alerts import alert_routes
from consumers.console.pages.camera import camera_routes
from consumers.console.pages.dead_letters import letter_routes
from consumers.console.pages.fleet import fleet_routes
from consumers.console.pages.jobs import job_routes
from consumers.console.pages.models import model_routes
from consumers.console.pages.system import system_routes
from consumers.console.pages.teach import teach_routes
from consumers.console.server import Server
from consumers.console.settings import Proxies
from schemas.errors import ConfigError
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE


class CheckedFiles(StaticFiles):
    """Static files of the console and `infra.release.assets`. A browser revalidates them at each use."""

    def __init__(self) -> None:
        """Find the files. Raises ConfigError if files of packages are missing."""
        super().__init__(directory=HERE / "static")
        assets = HERE / "assets"
        if not assets.is_dir():
            raise ConfigError(
                f"{assets} is missing: expected the files of packages. Run `python -m infra.release.assets`."
            )
        self.all_directories.append(assets)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file, or 304 if the browser has it."""
        answer = super().file_response(*args, **kwargs)
        answer.headers["cache-control"] = "no-cache"
        return answer


def make_app(context: ConsoleContext) -> Starlette:
    """Return the web application."""
    streams = Streams(context.fleet, context.sessions)
    settings = context.settings
    routes: list[BaseRoute] = [
        *fleet_routes(context, streams),
        *camera_routes(context, streams),
        *alert_routes(context),
        *model_routes(context),
        *teach_routes(context),
        *job_routes(context, streams),
        *system_routes(context, streams),
        *letter_routes(context),
        *api_routes(context),
        Route("/login", partial(_login_page, context)),
        Route("/login", partial(_login, context), methods=["POST"]),
        Route("/logout", partial(_logout, context), methods=["POST"]),
        Route("/health", _health),
        Mount("/static", CheckedFiles()),
    ]
    hosts = Hosts(settings.http[0], settings.allowed_host)
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(OnlyOwnHosts, hosts=hosts),
            Middleware(Gate, logins=context.logins),
        ],
    )


async def _health(_request: Request) -> Response:
    return JSONResponse({"ok": True})


def _login_form(context: ConsoleContext, then: str, complaint: str, status: int) -> Response:
    body = context.render("login.html", then=then, complaint=complaint)
    return Response(body, status, media_type="text/html")


async def _login_page(context: ConsoleContext, request: Request) -> Response:
    return _login_form(context, request.query_params.get("then", "/"), "", 200)


async def _login(context: ConsoleContext, request: Request) -> Response:
    fields = form_of(request)
    then, name = fields.get("then", "/"), fields.get("name", "")
    browsers, secure = context.logins.browsers, is_secure(request)
    attempt = Attempt(address_of(request), name, browsers.known(request.cookies.get(BROWSER_COOKIE, ""), name))
    try:
        user = await context.logins.by_form(attempt, fields.get("password", ""), gone_of(request))
    except TryLaterError as later:
        answer = _login_form(context, then, f"Too many attempts. Try again in {later.after_s} s.", 429)
        answer.headers["retry-after"] = str(later.after_s)
        return answer
    if user is None:
        return _login_form(context, then, "Wrong name or password.", 403)
    answer = RedirectResponse(then if then.startswith("/") and not then.startswith(("//", "/\\")) else "/", 303)
    answer.headers.append("set-cookie", cookie(context.sessions.begin(user), secure=secure))
    answer.headers.append("set-cookie", browser_cookie(browsers.mark(user.name), secure=secure))
    return answer


async def _logout(context: ConsoleContext, request: Request) -> Response:
    secure = is_secure(request)
    ended = context.sessions.end(request.cookies.get(cookie_name(secure=secure), ""))
    if ended is not None:
        await context.logins.log_out(ended, address_of(request))
    answer = RedirectResponse("/login", 303)
    answer.headers.append("set-cookie", cookie("", secure=secure))
    return answer


def make_server(context: ConsoleContext) -> Server:
    """Return the server of one console."""
    tls, proxy = context.settings.http_tls, context.settings.behind_proxy
    if proxy is not None:
        CONNECTIONS.shared = Proxies(proxy)
    return Server(
        uvicorn.Config(
            make_app(context),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            server_header=False,
            # With anybody's `X-Forwarded-For`, each password guess could use another address.
            proxy_headers=proxy is not None,
            forwarded_allow_ips=proxy or "",
            ssl_certfile=tls / CERTIFICATE_FILE if tls else None,
            ssl_keyfile=tls / KEY_FILE if tls else None,
        )
    )


def listen(host: str, port: int, patience_s: float = 3.0) -> socket.socket:
    """Bind the address. Raises ConfigError if it is not free within `patience_s` seconds."""
    end_s = time.monotonic() + patience_s
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: expected an address of this machine, got {error}") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            listening.bind(address)
            return listening
        except OSError as error:
            if time.monotonic() > end_s:
                listening.close()
                raise ConfigError(f"{host}:{port}: expected a free address, got {error}") from None
            time.sleep(0.05)
