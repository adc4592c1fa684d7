"""Tells Home Assistant of the cameras: retained messages on an MQTT broker, its own or the fleet's."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from prometheus_client import CollectorRegistry

from consumers.homeassistant.discovery import ORIGIN, STATUS_TOPIC, Shown, config, config_topic, state_topic
from consumers.homeassistant.reading import Reading
from consumers.homeassistant.settings import AnnouncerSettings
from schemas import metrics
from schemas.runtime.health import Health
from schemas.topics import DISCOVERY_ROOT

_AGAIN_S: Final = 10
_STOP_S: Final = 3.0

log = structlog.get_logger()


async def run_announcer(
    settings: AnnouncerSettings, version: str, *, registry: CollectorRegistry, health: Health, stop: asyncio.Event
) -> None:
    """Tell until `stop` is set. Broker and database may be away at any time; what was told stays at the broker."""
    reading = Reading(settings.database)
    announcer = Announcer(settings, version, registry)
    thread = ThreadPoolExecutor(1, thread_name_prefix="database")
    announcer.begin()
    health.set("database", False, "not read yet")
    health.set("mqtt", False, "not connected yet")
    try:
        while not stop.is_set():
            begun = time.monotonic()
            try:
                found = await asyncio.get_running_loop().run_in_executor(thread, reading.look)
                health.set("database", True)
                announcer.tell(found)
            except Exception as error:  # whatever it is, the database does not answer
                health.set("database", False, str(error)[:200] or type(error).__name__)
            health.set("mqtt", announcer.is_connected, "" if announcer.is_connected else announcer.refusal)
            took = time.monotonic() - begun
            with suppress(TimeoutError):
                # A large fleet is read less often: at most a quarter of the time.
                await asyncio.wait_for(stop.wait(), max(settings.look_s, 3 * took))
    finally:
        announcer.end()
        thread.shutdown(wait=True, cancel_futures=True)


class Announcer:
    """The MQTT client, and what the broker was told."""

    def __init__(self, settings: AnnouncerSettings, version: str, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._version = version
        broker = settings.broker
        self._address = broker.address
        self._cameras = metrics.HOME_CAMERAS.on(registry)
        self._messages = metrics.HOME_MESSAGES.on(registry)
        self._lock = threading.Lock()  # paho calls from a thread of its own
        self._told: dict[str, tuple[Shown, float]] = {}
        self._leftovers: set[str] = set()
        self._begun_s = time.monotonic()
        self.refusal = "not connected yet"
        """Why there is no connection."""
        self._client = Client(CallbackAPIVersion.VERSION2, settings.name, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, _AGAIN_S)
        self._client.will_set(STATUS_TOPIC, "offline", 1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        if broker.tls is not None:
            self._client.tls_set_context(broker.tls.context())
        if broker.login is not None:
            self._client.username_pw_set(broker.login.user, broker.login.password.get_secret_value())

    @property
    def is_connected(self) -> bool:
        """Whether the broker takes what is told."""
        return self._client.is_connected()

    def begin(self) -> None:
        """Connect, again and again, from a thread of its own."""
        self._client.connect_async(*self._address)
        self._client.loop_start()

    def tell(self, found: Sequence[Shown]) -> None:
        """Announce cameras that are new, tell what has changed of the others, and take back those that are gone."""
        wanted = {each.camera: each for each in found if self._is_wanted(each.camera)}
        self._cameras.set(len(wanted))
        if not self.is_connected:
            return
        now_s = time.monotonic()
        with self._lock:
            for camera, each in wanted.items():
                before = self._told.get(camera)
                if before is None:
                    self._publish(config_topic(camera), config(camera, self._version, self._page(camera)))
                elif each.news() == before[0].news() and (
                    each == before[0] or now_s - before[1] < self._settings.numbers_s
                ):
                    continue
                self._publish(state_topic(camera), each.document())
                self._told[camera] = (each, now_s)
            for camera in self._told.keys() - wanted.keys():
                self._take_back(camera)
                del self._told[camera]
            if self._leftovers and now_s - self._begun_s > self._settings.forgotten_s:
                for camera in self._leftovers - wanted.keys():
                    self._take_back(camera)
                self._leftovers.clear()

    def end(self) -> None:
        """Say that nobody tells any more, and let go of the broker."""
        if self.is_connected:
            said = self._client.publish(STATUS_TOPIC, "offline", 1, retain=True)
            with suppress(ValueError, RuntimeError):
                said.wait_for_publish(_STOP_S)
        self._client.disconnect()
        self._client.loop_stop()

    def _is_wanted(self, camera: str) -> bool:
        return not self._settings.only or any(fnmatch.fnmatchcase(camera, each) for each in self._settings.only)

    def _page(self, camera: str) -> str | None:
        console = self._settings.console
        return f"{console.rstrip('/')}/camera/{camera}" if console else None

    def _publish(self, topic: str, document: dict[str, Any]) -> None:
        self._client.publish(topic, json.dumps(document, separators=(",", ":")), 1, retain=True)
        self._messages.inc()

    def _take_back(self, camera: str) -> None:
        for topic in (config_topic(camera), state_topic(camera)):
            self._client.publish(topic, b"", 1, retain=True)
            self._messages.inc()

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self.refusal = str(reason)
            log.warning("not_connected", reason=str(reason))
            return
        with self._lock:
            # A broker that has lost what it kept is told all of it again.
            self._told.clear()
        client.subscribe(f"{DISCOVERY_ROOT}/device/+/config", 1)
        client.publish(STATUS_TOPIC, "online", 1, retain=True)

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        self.refusal = str(reason)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        """A device that somebody has announced: of an earlier run of ours it may be gone since."""
        try:
            document = json.loads(message.payload)
            ours = document["origin"]["name"] == ORIGIN and document["availability_topic"] == STATUS_TOPIC
            camera = str(document["state_topic"]).removeprefix(state_topic(""))
        except (ValueError, KeyError, TypeError):
            return
        if ours and message.retain and message.topic == config_topic(camera):
            with self._lock:
                self._leftovers.add(camera)
