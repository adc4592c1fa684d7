"""What the recorder tells other programs: cameras, their last pictures, alerts, dead letters, the audit.

A program of its own, started by `consumers.board.pages`: it reads the database, asks the recorder for what only that
knows, and ends when the recorder does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Final

import uvicorn
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumers.board.hosts import Hosts, OnlyOwnHosts
from consumers.board.server import Server
from consumers.board.visitors import VISITORS
from consumers.database.engine import open_engine
from consumers.database.history import minutes
from consumers.database.tables import alerts, dead_letters
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE

RECENT: Final = 200
LENGTH_BYTES: Final = 4
"""Of the length that stands before each of the recorder's messages."""
ANSWERS: Final = {
    "/cameras": "A list of all cameras, by name.",
    "/changes": "Those that changed after `?since=VERSION`: `version`, to be asked with next; `cameras`; `gone`, "
    "the names of those that are shown no more; `all`, true where so long ago is not remembered, and `cameras` are all "
    "that there are.",
    "/alerts": f"A list of the newest {RECENT} alerts, without their pictures.",
    "/dead-letters": f"A list of the newest {RECENT} payloads that were refused, without them, of each kind: "
    "verified or not.",
    "/history": "A list of the minutes of the last day in which frames were recorded, the oldest first, over all "
    "cameras.",
    "/audit": "The counts of `pointillist audit` as they change.",
    "/preview/SITE/CAMERA.jpg": "The last picture of a camera, as JPEG; 404 when none is kept.",
}
"""What is answered at each path."""
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
_FRESH_S: Final = 0.5
"""Answers that cost the recorder or the database something are given again for so long."""
_KEPT: Final = 16
_DAY_MS: Final = 86_400_000
_PATIENCE_S: Final = 5.0
_COUNT_S: Final = 1.0
_NICENESS: Final = 10
"""Recording goes first."""

Query = Callable[[Engine], list[dict[str, object]]]


class PagesSettings(BaseModel):
    """What the program is told, as the first message of the recorder: its arguments would show a password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str
    listen: str
    """The address as the operator wrote it, without its port."""
    served_as: tuple[str, ...] = ()
    tls: Path | None = None
    """Folder of the certificate and its key; None is plain HTTP."""


ALERT_COLUMNS: Final = tuple(each for each in alerts.columns if each.name != "message")
LETTER_COLUMNS: Final = tuple(each for each in dead_letters.columns if each.name not in ("payload", "stored_bytes"))


def recent_alerts(engine: Engine) -> list[dict[str, object]]:
    """The newest alerts first, without their pictures."""
    with engine.begin() as connection:
        rows = connection.execute(select(*ALERT_COLUMNS).order_by(alerts.c.raised_ms.desc()).limit(RECENT))
        return [dict(row) | {"boot": f"{row['boot']:016x}"} for row in rows.mappings()]


def recent_dead_letters(engine: Engine) -> list[dict[str, object]]:
    """The newest dead letters first, without their payloads: as many of each kind, for one could hide the other."""
    found: list[dict[str, object]] = []
    with engine.begin() as connection:
        for verified in (False, True):
            newest = select(*LETTER_COLUMNS).where(dead_letters.c.verified == verified)
            rows = connection.execute(newest.order_by(dead_letters.c.recorded_ms.desc()).limit(RECENT))
            found += [dict(row) | {"boot": f"{row['boot']:016x}"} for row in rows.mappings()]
    return sorted(found, key=itemgetter("recorded_ms"), reverse=True)


def last_day(engine: Engine) -> list[dict[str, object]]:
    """What was recorded in each minute of the last day, over all cameras, the oldest first."""
    with engine.begin() as connection:
        return [dict(row) for row in minutes(connection, time.time_ns() // 10**6 - _DAY_MS)]


class Recorder:
    """The recorder at the other end: one question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(self) -> None:
        """Take its messages until it has ended."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
                self._answers.put_nowait(await self._reader.readexactly(length))

    async def message(self) -> bytes:
        """The next message."""
        return await self._answers.get()

    def tell(self, line: str) -> None:
        """Say something that has no answer."""
        self._writer.write(f"{line}\n".encode())

    async def ask(self, line: str) -> bytes:
        """The answer; `TimeoutError` when the recorder is too busy for one."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._turn.acquire()
            # What has been asked is waited for, whoever gives up: the next answer is to the next question.
            return await asyncio.shield(asyncio.create_task(self._answer(line)))

    async def _answer(self, line: str) -> bytes:
        try:
            self.tell(line)
            return await self.message()
        finally:
            self._turn.release()


class Fresh:
    """Answers by name, each made once in `_FRESH_S` seconds however often it is asked for."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._made: dict[str, tuple[float, Response]] = {}

    async def get(self, name: str, make: Callable[[], Awaitable[Response]]) -> Response:
        """The answer of that name, made by `make` unless it is fresh."""
        async with self._turn:
            made_s, answer = self._made.get(name, (0.0, None))
            if answer is None or time.monotonic() - made_s > _FRESH_S:
                answer = await make()
                self._made[name] = (time.monotonic(), answer)
                if len(self._made) > _KEPT:
                    del self._made[next(iter(self._made))]
            return answer


class Web:
    """The routes."""

    def __init__(self, settings: PagesSettings, recorder: Recorder) -> None:
        self._settings = settings
        self._recorder = recorder
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._fresh = {path: Fresh() for path in ("/cameras", "/alerts", "/dead-letters", "/history", "/audit")}
        self._changed = Fresh()
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/cameras", partial(self._given_again, self._cameras)),
                Route("/changes", self._changes),
                Route("/audit", partial(self._given_again, partial(self._ask, "audit"))),
                Route("/history", partial(self._given_again, partial(self._read, last_day))),
                Route("/preview/{site}/{camera}.jpg", self._preview),
                Route("/alerts", partial(self._given_again, partial(self._read, recent_alerts))),
                Route("/dead-letters", partial(self._given_again, partial(self._read, recent_dead_letters))),
            ],
            middleware=[Middleware(OnlyOwnHosts, hosts=Hosts(settings.listen, settings.served_as))],
        )

    async def _index(self, _request: Request) -> Response:
        return JSONResponse({"answers": sorted(ANSWERS), "pages": "the console"}, headers=_HEADERS)

    async def _given_again(self, make: Callable[[], Awaitable[Response]], request: Request) -> Response:
        path: str = request.scope["path"]
        return await self._fresh[path].get(path, make)

    async def _cameras(self) -> Response:
        return await self._ask("cameras")

    async def _ask(self, question: str) -> Response:
        try:
            body = await self._recorder.ask(question)
        except TimeoutError:
            return _busy("the recorder does not answer")
        return Response(body, media_type="application/json", headers=_HEADERS)

    async def _changes(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdecimal() and len(since) < 20):
            return JSONResponse(
                {"error": "expected since=VERSION, a number from an earlier answer"}, 400, headers=_HEADERS
            )
        # Visitors who are as far share an answer; where each says another number, none is kept for long.
        return await self._changed.get(since, partial(self._ask, f"changes {since}"))

    async def _preview(self, request: Request) -> Response:
        name = f"{request.path_params['site']}/{request.path_params['camera']}"
        if not name.isprintable() or len(name) > 200:
            return JSONResponse({"error": "expected the name of a camera"}, 404, headers=_HEADERS)
        try:
            picture = await self._recorder.ask(f"preview {name}")
        except TimeoutError:
            return _busy("the recorder does not answer")
        if not picture:
            return JSONResponse({"error": f"no picture of {name} is kept"}, 404, headers=_HEADERS)
        return Response(picture, media_type="image/jpeg", headers=_HEADERS)

    async def _read(self, query: Query) -> Response:
        def run() -> list[dict[str, object]]:
            if self._engine is None:
                self._engine = open_engine(self._settings.database, writes=False)
            return query(self._engine)

        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except SQLAlchemyError as error:
            return _busy(f"the database does not answer: {type(error).__name__}")
        return JSONResponse(rows, headers=_HEADERS)


def _busy(complaint: str) -> Response:
    return JSONResponse({"error": complaint}, 503, headers=_HEADERS)


async def serve(listening: socket.socket, channel: socket.socket) -> None:
    """Serve on `listening` until the recorder at the other end of `channel` has ended."""
    recorder = Recorder(*await asyncio.open_connection(sock=channel))
    listens = asyncio.create_task(recorder.listen())
    settings = PagesSettings.model_validate_json(await recorder.message())
    web = Web(settings, recorder)
    config = uvicorn.Config(
        web.app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls / CERTIFICATE_FILE if settings.tls else None,
        ssl_keyfile=settings.tls / KEY_FILE if settings.tls else None,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    counting = asyncio.create_task(_count(server, recorder))
    await asyncio.wait([serving, counting, listens], return_when=asyncio.FIRST_COMPLETED)
    # At once, whoever is still being answered: the next recorder wants the address.
    os._exit(0)


async def _count(server: Server, recorder: Recorder) -> None:
    """Say when the pages are served, and once a second how visitors fared."""
    await server.listens.wait()
    recorder.tell("ready")
    while True:
        counts, VISITORS.counts = VISITORS.counts, type(VISITORS.counts)()
        for outcome, count in counts.items():
            recorder.tell(f"count {outcome} {count}")
        await asyncio.sleep(_COUNT_S)


def main() -> None:
    """`python -m consumers.board.web LISTENING CHANNEL`, both the numbers of inherited sockets."""
    # The recorder says when to end; Ctrl-C in its terminal is for the recorder.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    # What a visitor does wrong is counted: a line for each would fill the log.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    listening, channel = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    asyncio.run(serve(listening, channel))


if __name__ == "__main__":
    main()
