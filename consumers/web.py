"""The recorder's pages: cameras, their last pictures, alerts and dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Final

import structlog
import uvicorn
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumers.board import Board, monotonic_ms
from consumers.database import open_engine
from consumers.settings import RecorderSettings
from consumers.tables import alerts, dead_letters
from schemas.errors import ConfigError

RECENT: Final = 200
_PAGES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}

Query = Callable[[Engine], list[dict[str, object]]]

log = structlog.get_logger()


def recent_alerts(engine: Engine) -> list[dict[str, object]]:
    """The newest alerts first, without their pictures."""
    columns = [column for column in alerts.columns if column.name != "message"]
    with engine.begin() as connection:
        rows = connection.execute(select(*columns).order_by(alerts.c.raised_ms.desc()).limit(RECENT))
        return [dict(row) | {"boot": f"{row['boot']:016x}"} for row in rows.mappings()]


def recent_dead_letters(engine: Engine) -> list[dict[str, object]]:
    """The newest dead letters first, without their payloads."""
    columns = [column for column in dead_letters.columns if column.name not in ("payload", "stored_bytes")]
    with engine.begin() as connection:
        rows = connection.execute(select(*columns).order_by(dead_letters.c.recorded_ms.desc()).limit(RECENT))
        return [dict(row) | {"boot": f"{row['boot']:016x}"} for row in rows.mappings()]


class _Server(uvicorn.Server):
    """A server that leaves the signals of the process to whoever runs the recorder."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Pages:
    """Serves the pages in the recorder's loop; reads the database in a thread of its own, so that it waits for none.

    The address is taken at once: `ConfigError` when it is not free.
    """

    def __init__(self, settings: RecorderSettings, board: Board) -> None:
        if settings.http is None:
            raise ConfigError("expected an address for the pages, got none")
        self._board = board
        self._database = settings.database
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._socket = _listen(*settings.http)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        static = [Route(path, self._page) for path in _PAGES]
        self.app = Starlette(
            routes=[
                *static,
                Route("/cameras", self._cameras),
                Route("/preview/{site}/{camera}.jpg", self._preview),
                Route("/alerts", self._alerts),
                Route("/dead-letters", self._dead_letters),
            ]
        )
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = _Server(config)

    async def serve(self) -> None:
        """Serve until cancelled."""
        log.info("pages", address=f"http://{self.address[0]}:{self.address[1]}/")
        serving = asyncio.create_task(self._server.serve([self._socket]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.should_exit = True
            await serving
            raise

    async def close(self) -> None:
        """Give the address and the database back."""
        self._socket.close()
        await asyncio.to_thread(self._thread.shutdown)
        if self._engine is not None:
            self._engine.dispose()

    async def _page(self, request: Request) -> Response:
        name, kind = _PAGES[request.url.path]
        return Response(files("consumers").joinpath(name).read_bytes(), media_type=kind, headers=_HEADERS)

    async def _cameras(self, _request: Request) -> Response:
        return JSONResponse(self._board.describe(monotonic_ms()), headers=_HEADERS)

    async def _preview(self, request: Request) -> Response:
        name = f"{request.path_params['site']}/{request.path_params['camera']}"
        picture = self._board.preview(name)
        if picture is None:
            return JSONResponse({"error": f"no picture of {name} is kept"}, 404, headers=_HEADERS)
        return Response(picture, media_type="image/jpeg", headers=_HEADERS)

    async def _alerts(self, _request: Request) -> Response:
        return await self._read(recent_alerts)

    async def _dead_letters(self, _request: Request) -> Response:
        return await self._read(recent_dead_letters)

    async def _read(self, query: Query) -> Response:
        def run() -> list[dict[str, object]]:
            if self._engine is None:
                self._engine = open_engine(self._database, writes=False)
            return query(self._engine)

        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except SQLAlchemyError as error:
            answer = {"error": f"the database does not answer: {type(error).__name__}"}
            return JSONResponse(answer, 503, headers=_HEADERS)
        return JSONResponse(rows, headers=_HEADERS)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"expected an address for the pages, got {host}:{port}: {error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(f"expected a free address for the pages, got {host}:{port}: {error}") from None
    listening.setblocking(False)
    return listening
