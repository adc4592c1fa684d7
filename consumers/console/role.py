"""The console as a role: it reads Kafka and the recorder's database, and serves the pages.

It writes to neither, except for mutes in the database. Clips and frames to label are files of its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from consumers.console.access.connections import CONNECTIONS
from consumers.console.access.connections import OUTCOMES as CONNECTION_OUTCOMES
from consumers.console.access.logins import OUTCOMES, WAYS, Logins
from consumers.console.background.clip_keeper import keep_clips
from consumers.console.background.drop_steering import steer
from consumers.console.background.review_purge import purge_reviews
from consumers.console.background.switching import switch
from consumers.console.context import ConsoleContext
from consumers.console.data.appearance import FeatureExtractor
from consumers.console.data.collector import Collector
from consumers.console.data.commands import Commands
from consumers.console.data.drop_policies import read_policies
from consumers.console.data.feed import Feed
from consumers.console.data.fleet import Fleet
from consumers.console.data.kept_clips import KeptClips
from consumers.console.data.labelled_frames import LabelledFrames
from consumers.console.data.prometheus import Prometheus
from consumers.console.data.roles import ReadRoles
from consumers.console.data.rollup import Rollup
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
from schemas.clock import monotonic_ms, unix_ms
from schemas.errors import error_text
from schemas.keys.keys import KeyRing
from schemas.keys.signers import TrustedSigners
from schemas.messages.models_records import ModelsRecords
from schemas.runtime.health import Health
from schemas.runtime.repeat import attempt, repeat
from schemas.runtime.settled_clock import SettledClock
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE, server_context
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.follow import follow
from schemas.waiting import wait_at_most

_COUNT_S: Final = 1.0
_COLLECT_S: Final = 1.0
_ROLL_UP_S: Final = 5.0
_CLIPS_S: Final = 5.0
_BETWEEN_S: Final = 0.2
_PURGE_S: Final = 600.0
_FORGOTTEN_S: Final = 2.0
_STEER_S: Final = 5.0
_TRUST_S: Final = 5.0
_SWITCH_S: Final = 5.0
"""Between two tries to send commands that the broker did not take."""

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
    work = _background(context) | {
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
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if context.jobs is not None:
            await context.jobs.stop()
        await asyncio.to_thread(poller.close)
        await asyncio.to_thread(context.close)
        context.store.close()


def _background(context: ConsoleContext) -> dict[str, Coroutine[Any, Any, object]]:
    """Return the periodic work on the data of the pages, by the names of its tasks."""
    work: dict[str, Coroutine[Any, Any, object]] = {
        "system": context.watch.run(),
        "tick": _tick(context.fleet, context.settings.tick_s),
        "rollup": _roll_up(context),
        "forgotten": _follow_forgotten(context),
        "drop_steering": _steer(context),
        "switches": _switch(context),
        "sites": _poll_sites(context),
        "purge": _purge(context),
    }
    if context.labelled_frames is not None:
        work["labelled_frames"] = _collect(context)
    if context.clips is not None:
        work["clips"] = _keep_clips(context)
    return work


async def _retry(models: ModelsRecords) -> None:
    """Accept a rejected list of models once its signer is trusted."""
    while True:
        models.retry()
        await asyncio.sleep(_TRUST_S)


async def _tick(fleet: Fleet, every_s: float) -> None:
    while True:
        fleet.tick(monotonic_ms())
        await asyncio.sleep(every_s)


async def _roll_up(context: ConsoleContext) -> None:
    """Sum up newly recorded frames in small steps, and delete expired sums."""
    rollup: Rollup | None = None
    age_clock = SettledClock()
    purge_at_s = 0.0

    async def sum_up() -> bool:
        nonlocal rollup, purge_at_s
        engine = await context.use_recorder(context.recorded.engine)
        if rollup is None or rollup.recorded is not engine:
            rollup = Rollup(engine, context.store.engine)
        rollup.note({card.name: card.evidence for card in context.fleet.own_cards() if card.evidence})
        part = await context.use_recorder(rollup.read)
        more = part is not None and await context.write(rollup.add, part)
        if time.monotonic() >= purge_at_s:
            left = await context.write(rollup.purge, age_clock.now_ms())
            purge_at_s = time.monotonic() + (0 if left else _PURGE_S)
            more |= left
        return more

    while True:
        more = await attempt(sum_up, "rollup_failed")
        # At most half of the time, so that people's requests get their turn.
        await asyncio.sleep(_BETWEEN_S if more else _ROLL_UP_S)


async def _follow_forgotten(context: ConsoleContext) -> None:
    """Remove the cameras that the command line has removed since the last poll.

    The poll also sets the condition `store`: whether the console's own database responds.
    """
    health = context.health

    async def forget() -> None:
        try:
            removed = await context.write(context.store.removed_cameras)
        except Exception as error:
            if health is not None:
                health.set("store", False, error_text(error))
            raise
        if health is not None:
            health.set("store", True)
        context.fleet.forget_all(removed)

    await repeat(forget, _FORGOTTEN_S, "forgotten_not_read")


async def _steer(context: ConsoleContext) -> None:
    """Let the drop policies decide and send commands."""
    await asyncio.sleep(_STEER_S)
    await repeat(partial(steer, context), _STEER_S, "drop_ratios_not_steered")


async def _switch(context: ConsoleContext) -> None:
    """Send the commands of switches, also of those that an earlier console has left."""
    while True:
        context.switch_due.clear()
        if not await attempt(partial(switch, context), "presets_not_switched"):
            await wait_at_most(context.switch_due, _SWITCH_S)


async def _poll_sites(context: ConsoleContext) -> None:
    if context.sites is not None:
        await context.sites.run()
    await asyncio.Event().wait()


async def _collect(context: ConsoleContext) -> None:
    """Keep frames of the chosen cameras that are worth a label."""
    assert context.labelled_frames is not None
    collector = Collector(context.labelled_frames, context.feature_extractor)
    try:
        # Features may take seconds: pages that show frames must not wait for them.
        step = partial(asyncio.to_thread, collector.step, context.fleet)
        await repeat(step, _COLLECT_S, "labelled_frames_not_kept")
    finally:
        if context.feature_extractor is not None:
            context.feature_extractor.close()


async def _keep_clips(context: ConsoleContext) -> None:
    """Keep clips of alerts, also of those that were raised while no console ran, and clips that users asked for."""
    await repeat(partial(keep_clips, context), _CLIPS_S, "clips_not_kept")


async def _purge(context: ConsoleContext) -> None:
    """Delete clips, frames to label and decisions beyond their bounds, also while no other one is kept."""
    while True:
        for kind, kept in (("clips", context.clips), ("labelled_frames", context.labelled_frames)):
            if kept is not None:
                await attempt(partial(context.run_on_kept_files, kept.purge), "kept_files_not_purged", kind=kind)
        await attempt(partial(purge_reviews, context), "reviews_not_purged")
        await asyncio.sleep(_PURGE_S)


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
