"""The roles of a local system as supervised processes: how each is started, and where it listens."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2

from consumers.console.roles import NO_ANSWER_S
from infra.layout import Layout, role_file
from infra.local.http import get
from infra.local.ports import LOOPBACK, Ports
from infra.local.process import COMMAND, Child, ProcessId
from infra.pki.roles import SHARE_FILE, role_folder
from infra.up.console_address import certificate_folder, console_url, served_as
from infra.up.settings import UpSettings, bundle_folder
from schemas.roots import Role as SecretRole

FLEET_DRAINED = 0
FLEET_PENDING = 3
"""Exit status of a fleet whose spools still held frames at the drain deadline."""
FRAMES_REFUSED = 4
"""Exit status of an attached camera whose frames were refused."""


FOREIGN = (
    "POINTILLIST_FLEET_SECRET",
    "POINTILLIST_FLEET_SECRET_FILE",
    "POINTILLIST_KAFKA_LOGIN",
    "POINTILLIST_KAFKA_LOGIN_FILE",
    "POINTILLIST_KAFKA_TLS",
    "POINTILLIST_MQTT_LOGIN",
    "POINTILLIST_MQTT_LOGIN_FILE",
    "POINTILLIST_MQTT_TLS",
    "POINTILLIST_ROLE_SECRET",
    "POINTILLIST_ROLE_SECRET_FILE",
    "POINTILLIST_SHARE_FILE",
)
"""Variables of the person's own that speak of other systems."""


class Supervised(Protocol):
    """What the supervisor can keep running."""

    def start(self) -> ProcessId:
        """Start it; blocks until it runs."""

    def poll(self) -> int | None:
        """The exit status, None while it runs."""

    def stop(self, deadline_s: float) -> None:
        """End it in good order."""


@dataclass
class Role:
    """One line of `roles.json`."""

    name: str
    process: Supervised
    listen: Callable[[], str | None] = lambda: None
    url: str | None = None
    """The address for a browser, where it is not `http://` with `listen`."""
    metrics: str | None = None
    log: Path | None = None
    final: frozenset[int] = frozenset()
    """Exit statuses that mean that its work is done."""
    optional: bool = False
    """Whether the others go on without it."""

    def healthy(self) -> bool:
        """Whether its `/healthz` answers 200."""
        return self.metrics is None or health_of(self.metrics)[0]


def health_of(address: str) -> tuple[bool, dict[str, dict[str, object]]]:
    """What `/healthz` at host:port says; no answer is no health."""
    return asked_health(address) or (False, {})


def asked_health(address: str) -> tuple[bool, dict[str, dict[str, object]]] | None:
    """Whether the role at host:port is ready, and its conditions; None without an answer for `NO_ANSWER_S`.

    A role that starts has no conditions, and nothing listens on its address yet.
    """
    try:
        answer = get(f"http://{address}/healthz", NO_ANSWER_S)
        return answer.is_success, answer.json().get("conditions", {})
    except httpx2.ConnectError:
        return False, {}
    except (httpx2.HTTPError, ValueError):
        return None


class RoleProcess:
    """One of our own roles: `pointillist …` as a child process."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self._child = Child([*COMMAND, *arguments], log, env=environment)

    def start(self) -> ProcessId:
        """Start it; its `/healthz` tells when it is ready."""
        return self._child.start()

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._child.poll()

    def stop(self, deadline_s: float) -> None:
        """SIGTERM, SIGKILL after the deadline."""
        self._child.stop(deadline_s)


def names(role: str, count: int) -> list[str]:
    """`bridge` alone, or `bridge-1`, `bridge-2`, …"""
    return [role] if count == 1 else [f"{role}-{index + 1}" for index in range(count)]


class LocalRoles:
    """Builds the roles of a run around the brokers' addresses."""

    def __init__(
        self,
        settings: UpSettings,
        layout: Layout,
        ports: Ports,
        mqtt: str,
        kafka: str,
        camera_messages: float | None = None,
        camera_bytes: tuple[float, int] | None = None,
    ) -> None:
        """`camera_messages` and `camera_bytes` are what bridges take of one camera in a second, the latter with what
        they take at once; None is what they take by themselves."""
        self._settings = settings
        self._camera_messages = camera_messages
        self._camera_bytes = camera_bytes
        self._layout = layout
        self._ports = ports
        self._mqtt = mqtt
        self._kafka = kafka
        self._environment = dict(os.environ)
        # Here the state folder's secrets hold, whatever the person has exported for other systems.
        for name in FOREIGN:
            self._environment.pop(name, None)
        self._environment["POINTILLIST_GENERATIONS_FILE"] = str(layout.generations.resolve())
        # A role that is busy in numpy must not take the device thread's cores.
        self._light = self._environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def _role(self, name: str, arguments: list[str], environment: dict[str, str], listen: str | None = None) -> Role:
        if not self._settings.plain:
            environment = environment | self._identity(name)
        metrics = f"{LOOPBACK}:{self._ports.take(f'{name}-metrics')}"
        log = self._layout.log(name)
        # Brokers come and go under a role that is supervised: it waits for them as long as it takes.
        process = RoleProcess([*arguments, "--metrics", metrics, "--broker-wait", "0"], log, environment)
        return Role(name, process, listen=lambda: listen, metrics=metrics, log=log)

    def _identity(self, name: str) -> dict[str, str]:
        """Where a role finds its certificate; it is told of no other's."""
        folder = str(role_folder(self._layout.pki, name).resolve())
        found = {"POINTILLIST_MQTT_TLS": folder, "POINTILLIST_KAFKA_TLS": folder}
        if name.startswith("bridge"):
            found["POINTILLIST_SHARE_FILE"] = str((self._layout.pki / SHARE_FILE).resolve())
        return found

    def _given(self, role: SecretRole, environment: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of a role, which names the file with its own secret and no other."""
        file = role_file(self._layout.roles.resolve(), role)
        return (self._light if environment is None else environment) | {"POINTILLIST_ROLE_SECRET_FILE": str(file)}

    def bridges(self) -> list[Role]:
        """MQTT → Kafka."""
        fixed = ["bridge", "--mqtt", self._mqtt, "--kafka", self._kafka]
        if self._camera_messages is not None:
            fixed += ["--camera-messages", f"{self._camera_messages:g}"]
        if self._camera_bytes is not None:
            rate, at_once = (size / 2**20 for size in self._camera_bytes)
            fixed += ["--camera-mib", f"{rate:g}", "--camera-burst-mib", f"{at_once:g}"]
            fixed += ["--camera-rates", str(self._layout.camera_rates.resolve())]
        return [
            self._role(name, [*fixed, "--name", name], self._given(SecretRole.BRIDGE))
            for name in names("bridge", self._settings.bridges)
        ]

    def processors(self) -> list[Role]:
        """Kafka frames → verdicts."""
        bundle = str(bundle_folder(self._settings))
        fixed = ["process", "--kafka", self._kafka, "--bundle", bundle, "--mode", self._settings.mode]
        fixed += ["--backend", self._settings.backend, "--precision", self._settings.precision]
        fixed += ["--batch-frames", str(self._settings.batch_frames)]
        fixed += ["--max-pixels", str(self._settings.max_frame_pixels)]
        fixed += ["--model-cache", str(self._layout.model_cache.resolve())]
        fixed += ["--trust", str(self._layout.trusted.resolve())]
        environment = self._given(SecretRole.PROCESSOR, self._environment)
        return [
            self._role(f"processor-{index + 1}", [*fixed, "--instance", f"processor-{index + 1}"], environment)
            for index in range(self._settings.processors)
        ]

    def recorder(self) -> Role:
        """Kafka verdicts → database, quarantine."""
        arguments = ["record", "--kafka", self._kafka, "--state", str(self._layout.folder)]
        return self._role("recorder", arguments, self._given(SecretRole.RECORDER))

    def console(self, *, prometheus: bool = False) -> Role:
        """The pages for people; whether they may ask a `prometheus` that starts after them."""
        http = self._settings.http or f"{LOOPBACK}:{self._ports.take('console-http')}"
        arguments = ["console", "--kafka", self._kafka, "--mqtt", self._mqtt, "--state", str(self._layout.folder)]
        arguments += ["--http", http, "--jobs", str(self._layout.jobs), "--bundle", str(bundle_folder(self._settings))]
        arguments += ["--signer", str(self._layout.signer_file)]
        if prometheus:
            arguments += ["--prometheus", f"http://{LOOPBACK}:{self._ports.take('prometheus')}"]
        for name in served_as(self._settings):
            arguments += ["--served-as", name]
        if (tls := certificate_folder(self._settings, self._layout)) is not None:
            arguments += ["--http-tls", str(tls.resolve())]
        if self._settings.behind_proxy is not None:
            arguments += ["--behind-proxy", self._settings.behind_proxy]
        role = self._role("console", arguments, self._given(SecretRole.CONSOLE), listen=http)
        role.url = console_url(self._settings, http)
        return role

    def monitor(self) -> Role:
        """Metrics of the brokers, of this machine, and of the audit."""
        arguments = ["monitor", "--mqtt", self._mqtt, "--kafka", self._kafka, "--state", str(self._layout.folder)]
        return self._role("monitor", arguments, self._given(SecretRole.AUDITOR))

    def fleet(self) -> Role:
        """The simulated cameras. It is not health-checked before the start: it is started last."""
        arguments = ["fleet", "--scenario", str(self._layout.scenario), "--mqtt", self._mqtt]
        arguments += ["--state", str(self._layout.folder), "--drain", str(self._settings.drain_s), "--resume"]
        if self._settings.seconds is not None:
            arguments += ["--seconds", str(self._settings.seconds)]
        # The fleet is given its cameras' keys, and no secret.
        role = self._role("fleet", arguments, self._light)
        role.final = frozenset((FLEET_DRAINED, FLEET_PENDING))
        return role
