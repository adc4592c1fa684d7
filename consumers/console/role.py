"""The console as a role: it reads Kafka and the recorder's database, serves the pages, and writes to neither."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from consumers.cameras.camera import monotonic_ms
from consumers.console.access.connections import CONNECTIONS
from consumers.console.access.connections import OUTCOMES as CONNECTION_OUTCOMES
from consumers.console.commands import Commands
from consumers.console.desk import Desk
from consumers.console.feed import Feed
from consumers.console.flagged import copy_flagged
from consumers.console.fleet import Fleet
from consumers.console.jobs import Jobs, Launch
from consumers.console.logins import OUTCOMES, Logins
from consumers.console.look import Look
from consumers.console.models import ModelsWatch
from consumers.console.prometheus import Prometheus
from consumers.console.roles import ReadRoles
from consumers.console.rollup import Rollup
from consumers.console.server import Server
from consumers.console.settings import ConsoleSettings
from consumers.console.store import Store
from consumers.console.users import Users
from consumers.console.web import listen, make_server
from schemas import metrics
from schemas.errors import ConfigError
from schemas.keys import KeyRing
from schemas.runtime.health import Health
from schemas.signers import TrustedSigners
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE, server_context

_COUNT_S: Final = 1.0
_ROLL_UP_S: Final = 5.0
_BETWEEN_S: Final = 0.2
_PURGE_S: Final = 600.0
_FORGOTTEN_S: Final = 2.0

log = structlog.get_logger()


def open_desk(
    settings: ConsoleSettings,
    keys: KeyRing,
    launch: Launch | None = None,
    read_roles: ReadRoles | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> Desk:
    """Open all that the pages are made from. `launch` starts jobs, `read_roles` reads the states of the roles.

    ConfigError for what cannot be, StateError for another version's store, or a folder of jobs that is taken.
    """
    if settings.users is None and (settings.behind_proxy is not None or not settings.is_local):
        raise ConfigError(
            f"users is missing: expected a file of users where others reach the console, at {settings.http[0]}. "
            "`pointillist user add NAME` makes it."
        )
    commands = Commands(settings.broker, keys) if settings.mqtt else None
    if settings.http_tls is not None:
        server_context(settings.http_tls / CERTIFICATE_FILE, settings.http_tls / KEY_FILE)
    users = Users(settings.users) if settings.users is not None else None
    fleet = Fleet(settings, settings.page_cards)
    store = Store(settings.store)
    store.prepare()
    desk = Desk(settings, fleet, store, users, clock_s, commands=commands, read_roles=read_roles)
    desk.prometheus = Prometheus(settings.prometheus) if settings.prometheus is not None else None
    desk.reviews, desk.runbooks = store.reviewed(), settings.runbooks
    fleet.forget_all(store.gone())
    if settings.jobs is not None and launch is not None:
        quarantine = settings.quarantine

        def copy(camera: str, folder: Path, stopped: Callable[[], bool]) -> int:
            return copy_flagged(desk.engine(), quarantine, camera, folder, stopped)

        desk.jobs = Jobs(settings.jobs, store, launch, desk.write, copy, fleet.stir)
    return desk


async def run_console(
    settings: ConsoleSettings,
    keys: KeyRing,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    launch: Launch | None = None,
    read_roles: ReadRoles | None = None,
) -> None:
    """Serve the pages until `stop` is set. Kafka and the database may be away at any time."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what a visitor does wrong is counted
    with listen(*settings.http) as listening:
        desk = open_desk(settings, keys, launch, read_roles)
        await _run(desk, keys, listening, registry=registry, health=health, stop=stop)


async def _run(
    desk: Desk,
    keys: KeyRing,
    listening: socket.socket,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
) -> None:
    settings = desk.settings
    desk.health = health
    desk.models = ModelsWatch(settings.kafka, settings.models_topic, TrustedSigners.read(settings.trust))
    feed = Feed(settings, keys, desk.fleet, health)
    look = Look(desk.recorded, desk.fleet, desk.reviews, health, desk.published_ms)
    server = make_server(desk)
    visits, logins = metrics.PAGE_VISITS.on(registry), metrics.CONSOLE_LOGINS.on(registry)
    tasks = [
        asyncio.create_task(feed.run(), name="feed"),
        asyncio.create_task(look.run(), name="look"),
        asyncio.create_task(desk.watch.run(), name="system"),
        asyncio.create_task(desk.models.run(), name="models"),
        asyncio.create_task(_tick(desk.fleet, settings.tick_s), name="tick"),
        asyncio.create_task(_serve(server, listening, health), name="pages"),
        asyncio.create_task(_count(visits), name="visits"),
        asyncio.create_task(_count_logins(desk.logins, logins), name="logins"),
        asyncio.create_task(_roll_up(desk), name="rollup"),
        asyncio.create_task(_follow_forgotten(desk), name="forgotten"),
    ]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    scheme = "http" if settings.http_tls is None else "https"
    host, port = listening.getsockname()[:2]
    log.info("console", address=f"{scheme}://{host}:{port}/")
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # Streams never end by themselves.
        server.should_exit = server.force_exit = True
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        if desk.jobs is not None:
            await desk.jobs.stop()
        await asyncio.to_thread(look.close)
        await asyncio.to_thread(desk.close)
        desk.store.close()


async def _tick(fleet: Fleet, every_s: float) -> None:
    while True:
        fleet.tick(monotonic_ms())
        await asyncio.sleep(every_s)


async def _roll_up(desk: Desk) -> None:
    """Add what was recorded since, a little at a time, and forget what is too old."""
    rollup: Rollup | None = None
    purge_at_s = 0.0
    while True:
        try:
            engine = await desk.write(desk.engine)
            if rollup is None or rollup.recorded is not engine:
                rollup = Rollup(engine, desk.store.engine)
            rollup.note({card.name: card.evidence for card in desk.fleet.cards() if card.evidence})
            more = await desk.write(rollup.step)
            if time.monotonic() >= purge_at_s:
                purge_at_s = time.monotonic() + _PURGE_S
                await desk.write(rollup.purge)
        except Exception as error:  # the recorder's database may be away, or not made yet
            log.warning("not_rolled_up", error=str(error)[:200] or type(error).__name__)
            more = False
        # Half of the time at most, so that what people do has its turn.
        await asyncio.sleep(_BETWEEN_S if more else _ROLL_UP_S)


async def _follow_forgotten(desk: Desk) -> None:
    """Drop the cameras that the command line has forgotten since the last look."""
    while True:
        try:
            desk.fleet.forget_all(await desk.write(desk.store.gone))
        except Exception as error:  # another try follows
            log.warning("forgotten_not_read", error=str(error)[:200] or type(error).__name__)
        await asyncio.sleep(_FORGOTTEN_S)


async def _serve(server: Server, listening: socket.socket, health: Health) -> None:
    health.set("pages", False, "not served yet")
    serving = asyncio.create_task(server.serve([listening]))
    listens = asyncio.create_task(server.listens.wait())
    try:
        await asyncio.wait([serving, listens], return_when=asyncio.FIRST_COMPLETED)
        health.set("pages", server.started)
        await serving
    finally:
        serving.cancel()
        listens.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def _count(visits: Counter) -> None:
    for outcome in CONNECTION_OUTCOMES:
        visits.labels(outcome)
    while True:
        counts, CONNECTIONS.counts = CONNECTIONS.counts, type(CONNECTIONS.counts)()
        for outcome, number in counts.items():
            visits.labels(outcome).inc(number)
        await asyncio.sleep(_COUNT_S)


async def _count_logins(logins: Logins, counter: Counter) -> None:
    for outcome in OUTCOMES:
        counter.labels(outcome)
    while True:
        counts, logins.counts = logins.counts, type(logins.counts)()
        for outcome, number in counts.items():
            counter.labels(outcome).inc(number)
        await logins.sum_up()
        await asyncio.sleep(_COUNT_S)
