"""Publishes the cameras to Home Assistant: retained messages on an MQTT broker, its own or the fleet's."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry

from consumers.database.engine import LATE, LATE_S, database_id
from consumers.database.recorded import RecorderDatabase
from consumers.homeassistant.discovery import ORIGIN, CameraSnapshot, config, config_topic, state_topic, status_topic
from consumers.homeassistant.reading import DatabaseReader
from consumers.homeassistant.settings import AnnouncerSettings
from schemas import metrics
from schemas.errors import BrokerError, MalformedError, error_text
from schemas.identity import camera_id_on_wire
from schemas.limits import MAX_CAMERAS
from schemas.runtime.health import Health
from schemas.runtime.worker_threads import WorkerThreads
from schemas.topics import DISCOVERY_ROOT
from schemas.transport.mqtt.background import BackgroundClient
from schemas.transport.mqtt.connection import Subscription
from schemas.waiting import noticing_delay, wait_at_most

_AGAIN_S: Final = 10
_STOP_S: Final = 3.0
_UNREAD_S: Final = 30.0
"""Seconds without a reading of the database after which the devices are unavailable: their states may be wrong."""


def announcer_id(settings: AnnouncerSettings) -> str:
    """Return an id that stays at restarts and differs from that of other systems: of the database and the name."""
    return database_id(settings.database, settings.name)


async def run_announcer(
    settings: AnnouncerSettings, version: str, *, registry: CollectorRegistry, health: Health, stop: asyncio.Event
) -> None:
    """Publish until `stop` is set.

    Broker and database may be unreachable at any time. The broker retains the published messages.
    """
    recorded = RecorderDatabase(settings.database)
    reading = DatabaseReader(recorded, settings.console_store)
    announcer = Announcer(settings, version, registry)
    run_in_thread = WorkerThreads(1, "database")
    announcer.begin()
    health.set("database", False, "not read yet")
    health.set("mqtt", False, "not connected yet")
    try:
        while not stop.is_set():
            begun = time.monotonic()
            try:
                with (
                    noticing_delay(LATE_S, partial(health.set, "database", False, LATE)),
                    noticing_delay(_UNREAD_S, partial(announcer.set_status, read=False)),
                ):
                    found = await run_in_thread(reading.poll)
                health.set("database", True)
                announcer.announce(found, reading.removed)
                # A database that replaces a damaged one has no cameras at first.
                announcer.set_status(read=bool(found or reading.removed))
            except Exception as error:  # any error means that the database does not respond
                health.set("database", False, error_text(error))
                announcer.set_status(read=False)
            health.set("mqtt", announcer.is_connected, "" if announcer.is_connected else announcer.refusal)
            took = time.monotonic() - begun
            # A large fleet is read less often: at most a quarter of the time.
            await wait_at_most(stop, max(settings.look_s, 3 * took))
    finally:
        announcer.end()
        run_in_thread.close()
        recorded.close()


class Announcer:
    """The MQTT client and the messages published so far."""

    def __init__(self, settings: AnnouncerSettings, version: str, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._version = version
        self._cameras = metrics.HOME_CAMERAS.on(registry)
        self._messages = metrics.HOME_MESSAGES.on(registry)
        self._lock = threading.Lock()  # the client calls back from its own thread
        self._announced: dict[str, tuple[CameraSnapshot, float]] = {}
        self._leftovers: set[str] = set()
        """Cameras whose devices the broker had retained at the last connection."""
        self._missing: dict[str, float] = {}
        """Cameras with a device that the database lacks, with the time at which they were first missing."""
        self._read_s = time.monotonic()
        self._shown = "online"
        self._id = announcer_id(settings)
        self._status = status_topic(self._id)
        self._client = BackgroundClient(
            settings.broker,
            self._on_message,
            name=f"{settings.name}-{self._id}",
            on_connected=self._on_connected,
            will=(self._status, "offline"),
            reconnect_max_s=_AGAIN_S,
        )

    @property
    def refusal(self) -> str:
        """The reason why there is no connection."""
        return self._client.refusal

    @property
    def is_connected(self) -> bool:
        """Whether the broker accepts messages."""
        return self._client.is_connected

    def begin(self) -> None:
        """Connect from a separate thread and reconnect after failures."""
        self._client.start()

    def announce(self, found: Sequence[CameraSnapshot], removed: Collection[str] = ()) -> None:
        """Announce new cameras, publish changed states, and remove cameras that are gone.

        Cameras that people have `removed` are gone at once, others when the database has lacked them for `forgotten_s`.
        A database without any camera has just replaced another one: no camera is gone then.
        """
        wanted = {each.camera: each for each in found if self._is_included(each.camera)}
        self._cameras.set(len(wanted))
        if not self.is_connected:
            return
        now_s = time.monotonic()
        with self._lock:
            for camera, each in wanted.items():
                before = self._announced.get(camera)
                if before is None:
                    self._publish(config_topic(camera), config(camera, self._version, self._id, self._page(camera)))
                elif each.urgent_values() == before[0].urgent_values() and (
                    each == before[0] or now_s - before[1] < self._settings.numbers_s
                ):
                    continue
                self._publish(state_topic(camera), each.document())
                self._announced[camera] = (each, now_s)
            lacking = (self._announced.keys() | self._leftovers) - wanted.keys() if found or removed else ()
            self._missing = {camera: self._missing.get(camera, now_s) for camera in lacking}
            for camera, since_s in self._missing.items():
                if camera in removed or now_s - since_s >= self._settings.forgotten_s:
                    # First: one that cannot be withdrawn must not stop the others in each round.
                    self._announced.pop(camera, None)
                    self._leftovers.discard(camera)
                    self._withdraw(camera)

    def set_status(self, *, read: bool) -> None:
        """Publish a changed status: the devices are unavailable if the database was not `read` for `_UNREAD_S`."""
        now_s = time.monotonic()
        if read:
            self._read_s = now_s
        status = "online" if read or now_s - self._read_s < _UNREAD_S else "offline"
        with self._lock:
            if status != self._shown:
                self._shown = status
                if self.is_connected:
                    self._client.publish(self._status, status)

    def end(self) -> None:
        """Publish the offline status and disconnect."""
        if self.is_connected:
            with suppress(BrokerError):  # the other messages were rejected too
                self._client.publish(self._status, "offline", wait_s=_STOP_S)
        self._client.close()

    def _is_included(self, camera: str) -> bool:
        return not self._settings.only or any(fnmatch.fnmatchcase(camera, each) for each in self._settings.only)

    def _page(self, camera: str) -> str | None:
        console = self._settings.console
        return f"{console.rstrip('/')}/camera/{camera}" if console else None

    def _publish(self, topic: str, document: dict[str, Any]) -> None:
        self._client.publish(topic, json.dumps(document, separators=(",", ":")))
        self._messages.inc()

    def _withdraw(self, camera: str) -> None:
        for topic in (config_topic(camera), state_topic(camera)):
            self._client.publish(topic, b"")
            self._messages.inc()

    def _on_connected(self) -> None:
        with self._lock:
            # A broker that has lost its retained messages receives all of them again.
            self._announced.clear()
            self._client.publish(self._status, self._shown)
        self._client.subscribe([Subscription(f"{DISCOVERY_ROOT}/device/+/config", 1)])

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        """Record a device of this announcer: it may be one of an earlier run that is gone since.

        Others may write to the broker: a name that is no camera's is ignored.
        """
        try:
            document = json.loads(payload)
            ours = document["origin"]["name"] == ORIGIN and document["availability_topic"] == self._status
            camera = camera_id_on_wire(str(document["state_topic"]).removeprefix(state_topic("")))
        except (ValueError, KeyError, TypeError, RecursionError, MalformedError):
            return
        if ours and retained and topic == config_topic(camera):
            with self._lock:
                if len(self._leftovers) < MAX_CAMERAS:
                    self._leftovers.add(camera)
