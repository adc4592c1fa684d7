"""The console as a web server: routes, static files, and access."""

from __future__ import annotations

import socket
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from consumers.console.access.connections import CONNECTIONS
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import Gate, path_of
from consumers.console.access.hosts import Hosts, OnlyOwnHosts
from consumers.console.access.proxy import Proxies
from consumers.console.access.rights import GuardedRoute, OpenMount, RouteRights
from consumers.console.api.routes import api_routes
from consumers.console.context import HERE, ConsoleContext
from consumers.console.data.stream import Streams
from consumers.console.pages.alerts import alert_routes
from consumers.console.pages.camera import camera_routes
from consumers.console.pages.dead_letters import letter_routes
from consumers.console.pages.drop_policies import policy_routes
from consumers.console.pages.fleet import fleet_routes
from consumers.console.pages.jobs import job_routes
from consumers.console.pages.login import login_routes
from consumers.console.pages.models import model_routes
from consumers.console.pages.presets import preset_routes
from consumers.console.pages.sighting_rules import sighting_rule_routes
from consumers.console.pages.system import system_routes
from consumers.console.pages.teach import teach_routes
from consumers.console.server import Server
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


def console_routes(context: ConsoleContext, streams: Streams) -> list[GuardedRoute]:
    """Return all routes besides the files, each with the right that it needs."""
    return [
        *fleet_routes(context, streams),
        *camera_routes(context, streams),
        *alert_routes(context),
        *model_routes(context),
        *teach_routes(context),
        *job_routes(context, streams),
        *system_routes(context, streams),
        *letter_routes(context),
        *policy_routes(context),
        *preset_routes(context),
        *sighting_rule_routes(context),
        *api_routes(context),
        *login_routes(context),
    ]


async def _unrouted(request: Request, error: Exception) -> Response:
    """Return the refusal of a path, or of a method at a path, that no route has."""
    assert isinstance(error, HTTPException)
    unknown = f"path: expected one of this console, got {path_of(request)[:200]}"
    answer = error_response(
        error.status_code, unknown if error.status_code == 404 else f"{request.method}: {error.detail}"
    )
    answer.headers.update(error.headers or {})
    return answer


def make_app(context: ConsoleContext) -> Starlette:
    """Return the web application."""
    settings = context.settings
    routes: list[BaseRoute] = [
        *console_routes(context, Streams(context.fleet, context.sessions)),
        OpenMount("/static", CheckedFiles()),
    ]
    hosts = Hosts(settings.http[0], settings.own_hosts)
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(OnlyOwnHosts, hosts=hosts),
            Middleware(Gate, logins=context.logins, rights=RouteRights(routes)),
        ],
        exception_handlers={HTTPException: _unrouted},
    )


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
