"""The console as a role: it reads Kafka and the recorder's database, and serves the pages.

It writes to neither, except for mutes in the database. Clips and frames to label are files of its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from consumers.console.access.connections import CONNECTIONS
from consumers.console.access.connections import OUTCOMES as CONNECTION_OUTCOMES
from consumers.console.access.logins import OUTCOMES, WAYS, Logins
from consumers.console.background.tasks import background_tasks
from consumers.console.context import ConsoleContext
from consumers.console.data.appearance import FeatureExtractor
from consumers.console.data.commands import Commands
from consumers.console.data.drop_policies import read_policies
from consumers.console.data.feed import Feed
from consumers.console.data.fleet import Fleet
from consumers.console.data.kept_clips import KeptClips
from consumers.console.data.labelled_frames import LabelledFrames
from consumers.console.data.prometheus import Prometheus
from consumers.console.data.roles import ReadRoles
from consumers.console.data.site_poller import SitePoller
from consumers.console.data.store import Store
from consumers.console.data.views import Views
from consumers.console.database_poller import DatabasePoller
from consumers.console.jobs.jobs import Jobs, Launch
from consumers.console.jobs.quarantine_copies import QuarantineCopies
from consumers.console.login_methods import open_login_methods
from consumers.console.server import Server
from consumers.console.settings import ConsoleSettings
from consumers.console.web import listen, make_server
from consumers.database.damage import AWAY, UNREADABLE, count_set_aside, is_damaged, reason, set_aside
from consumers.database.engine import sqlite_file
from schemas import metrics
from schemas.clock import unix_ms
from schemas.keys.keys import KeyRing
from schemas.keys.signers import TrustedSigners
from schemas.messages.models_records import ModelsRecords
from schemas.runtime.health import Health
from schemas.runtime.settled_clock import SettledClock
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE, server_context
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.follow import follow
from schemas.waiting import cancel

_COUNT_S: Final = 1.0
_TRUST_S: Final = 5.0

log = structlog.get_logger()


def open_store(url: str) -> Store:
    """Return the store with its tables. A damaged SQLite file is set aside, and a new one begins.

    Raises StateError for another version's store, and what the driver raises for one that does not respond.
    """
    store = Store(url)
    try:
        store.check()
        store.prepare()
    except UNREADABLE as error:
        store.close()
        if not is_damaged(error):
            raise
        aside = set_aside(url, unix_ms())
        log.error("database_set_aside", file=str(aside), detail=reason(error))
        store = Store(url)
        store.prepare()
    return store


def open_context(
    settings: ConsoleSettings,
    keys: KeyRing,
    launch: Launch | None = None,
    read_roles: ReadRoles | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> ConsoleContext:
    """Open all resources of the pages. `launch` starts jobs, `read_roles` reads the states of the roles.

    Raises ConfigError for invalid settings. Raises StateError for another version's store, or a folder of jobs that is
    in use.
    """
    store = open_store(settings.store)  # first: if it is away, the next try opens everything
    login_methods = open_login_methods(settings, clock_s)
    if settings.http_tls is not None:
        server_context(settings.http_tls / CERTIFICATE_FILE, settings.http_tls / KEY_FILE)
    fleet = Fleet(settings, settings.page_cards)
    commands = Commands(settings.broker, keys, store.engine) if settings.mqtt else None
    context = ConsoleContext(
        settings, fleet, store, keys, login_methods, clock_s, commands=commands, read_roles=read_roles
    )
    context.prometheus = Prometheus(settings.prometheus) if settings.prometheus is not None else None
    context.reviews, context.runbooks = store.reviewed(), settings.runbooks
    kept_files = settings.kept_files or settings.quarantine
    if keys.reads_previews and kept_files:
        age_clock = SettledClock()
        context.labelled_frames = LabelledFrames(store.engine, kept_files, keys.previews, age_clock.now_ms)
        context.clips = KeptClips(store.engine, kept_files, keys.previews, settings.bounds, clock_s, age_clock.now_ms)
    context.drop_plan.adopt(read_policies(store.engine))
    fleet.forget_all(store.removed_cameras())
    context.sites = SitePoller(settings.sites, fleet)
    if settings.jobs is not None and launch is not None:
        copies = QuarantineCopies(context.recorded, settings.quarantine, keys)
        context.jobs = Jobs(
            settings.jobs, store, launch, context.write, copies, fleet.notify_pages, context.labelled_frames
        )
    if login_methods.owner is not None:
        login_methods.owner.write()  # last: a console that cannot start leaves no token
    return context


async def run_console(
    settings: ConsoleSettings,
    keys: KeyRing,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    launch: Launch | None = None,
    read_roles: ReadRoles | None = None,
    feature_extractor: FeatureExtractor | None = None,
) -> None:
    """Serve the pages until `stop` is set. Kafka, the database and the console's own store may be away at any time."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # visitors' errors are counted, not logged
    with listen(*settings.http) as listening:
        backoff = Backoff()
        while True:
            try:
                context = open_context(settings, keys, launch, read_roles)
                break
            except AWAY as error:
                health.set("store", False, reason(error))
                log.warning("store_unavailable", error=reason(error))
                if await backoff.wait(stop):
                    return
        health.set("store", True)
        count_set_aside(sqlite_file(settings.store), registry)
        context.feature_extractor = feature_extractor
        await _run(context, keys, listening, registry=registry, health=health, stop=stop)


async def _run(
    context: ConsoleContext,
    keys: KeyRing,
    listening: socket.socket,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
) -> None:
    settings = context.settings
    context.health = health
    TrustedSigners.read(settings.trust)  # A faulty file ends the console at its start.
    context.models = ModelsRecords(partial(TrustedSigners.read, settings.trust))
    context.views = Views(settings.kafka, settings.views_topic, keys)
    poller = DatabasePoller(context.recorded, context.fleet, context.reviews, health, context.published_ms)
    server = make_server(context)
    work = background_tasks(context) | {
        "feed": Feed(settings, keys, context.fleet, health).run(),
        "database-poller": poller.run(),
        "models": follow(settings.kafka, settings.models_topic, context.models.apply_record),
        "trust": _retry(context.models),
        "views": context.views.run(),
        "pages": _serve(server, listening, health),
        "visits": _count(metrics.HTTP_CONNECTIONS.on(registry)),
        "logins": _count_logins(context.logins, metrics.CONSOLE_LOGINS.on(registry)),
        "stop": stop.wait(),
    }
    tasks = [asyncio.create_task(each, name=name) for name, each in work.items()]
    scheme = "http" if settings.http_tls is None else "https"
    host, port = listening.getsockname()[:2]
    log.info("console_started", address=f"{scheme}://{host}:{port}/")
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # Streams never end by themselves.
        server.should_exit = server.force_exit = True
        await cancel(*tasks)
        if context.jobs is not None:
            await context.jobs.stop()
        await asyncio.to_thread(poller.close)
        await asyncio.to_thread(context.close)
        context.store.close()


async def _retry(models: ModelsRecords) -> None:
    """Accept a rejected list of models once its signer is trusted."""
    while True:
        models.retry()
        await asyncio.sleep(_TRUST_S)


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
    for way, outcome in product(WAYS, OUTCOMES):
        counter.labels(way, outcome)
    while True:
        counts, logins.counts = logins.counts, type(logins.counts)()
        for (way, outcome), number in counts.items():
            counter.labels(way, outcome).inc(number)
        await logins.sum_up()
        await asyncio.sleep(_COUNT_S)
