"""The roles of a local system as supervised processes: their start and their addresses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel

from consumers.console.data.roles import NO_ANSWER_S
from infra.local.http import get
from infra.local.ports import LOOPBACK, Ports
from infra.local.process import COMMAND, Child
from infra.local.service import instance_names
from infra.local.user_folders import backend_cache
from infra.pki.roles import SHARE_FILE, role_folder
from infra.process.exit_status import FLEET_DRAINED, FLEET_PENDING
from infra.settings.document import toml
from infra.settings.roles import MODELS, prefix_of
from infra.settings.variable import HIDDEN_URL
from infra.state_folder import Layout, role_file, write_secret
from infra.up.console_address import allowed_host, certificate_folder, console_url
from infra.up.settings import CameraLimits, UpSettings, bundle_folder
from schemas.keys.roots import Role as SecretRole
from schemas.runtime.supervisor import Process

_CAMERAS = frozenset(("fleet", "camera run"))
"""Commands of the roles that run cameras."""
ON_THE_WAY = frozenset(("bridge", "process", "record")) | _CAMERAS
"""Commands of the roles on a frame's way, which are traced."""
NOT_INHERITED = (
    "POINTILLIST_CAMERA_KEY",
    "POINTILLIST_CAMERA_KEY_FILE",
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
    "POINTILLIST_TRACING",
    "POINTILLIST_TRACING_SHARE",
)
"""Variables of the user that the roles do not inherit: they refer to other systems, or `up` has read them."""


@dataclass
class Role:
    """One line of `roles.json`."""

    name: str
    process: Process
    listen: Callable[[], str | None] = lambda: None
    url: str | None = None
    """The address for a browser, unless it is `http://` with `listen`."""
    owner_file: Path | None = None
    """File with the token that a browser of the user who runs the role needs, while there is one."""
    metrics: str | None = None
    log: Path | None = None
    final: frozenset[int] = frozenset()
    """Exit statuses that mean that its work is done."""
    optional: bool = False
    """Whether the others continue without it."""

    def healthy(self) -> bool:
        """Return whether its `/healthz` answers 200."""
        return self.metrics is None or is_healthy(self.metrics)


def is_healthy(address: str) -> bool:
    """Return whether `/healthz` at host:port is healthy; no answer counts as unhealthy."""
    found = fetch_health(address)
    return found is not None and found[0]


def fetch_health(address: str) -> tuple[bool, dict[str, dict[str, object]]] | None:
    """Return whether the role at host:port is ready, and its conditions; None without an answer for `NO_ANSWER_S`.

    A starting role has no conditions, and nothing listens on its address yet. Another program on its port counts as no
    answer.
    """
    try:
        answer = get(f"http://{address}/healthz", NO_ANSWER_S)
        document = answer.json()
    except httpx2.ConnectError:
        return False, {}
    except (httpx2.HTTPError, ValueError):
        return None
    return (answer.is_success, document.get("conditions", {})) if isinstance(document, dict) else None


class RoleProcess(Child):
    """One of our own roles: `pointillist …` as a child process, whose `/healthz` reports when it is ready."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        super().__init__([*COMMAND, *arguments], log, env=environment)
        self.arguments = arguments
        self.environment = environment


class LocalRoles:
    """Builds the roles of a run around the brokers' addresses."""

    def __init__(
        self,
        settings: UpSettings,
        layout: Layout,
        ports: Ports,
        mqtt: str,
        kafka: str,
        limits: CameraLimits | None = None,
    ) -> None:
        """`limits` are those of the bridges for one camera; None keeps their defaults."""
        self._settings = settings
        self._limits = limits
        self._layout = layout
        self._ports = ports
        self._mqtt = mqtt
        self._kafka = kafka
        # Here the state folder's secrets and the files of settings apply, and no variables of other systems.
        prefixes = (HIDDEN_URL, *(prefix_of(role) for role in MODELS))
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in NOT_INHERITED and not name.startswith(prefixes)
        }
        self._environment["POINTILLIST_GENERATIONS_FILE"] = str(layout.generations.resolve())
        # A role that is busy in numpy must not take the device thread's cores.
        self._light = self._environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def _role(
        self,
        command: str,
        name: str,
        values: Mapping[str, Any],
        environment: dict[str, str],
        *,
        given: BaseModel | None = None,
        listen: str | None = None,
    ) -> Role:
        """Write a role's settings: those of its table of `up`, then `values`. Return the role that reads them."""
        if not self._settings.plain and command not in _CAMERAS:  # cameras have the certificates of their enrolments
            environment = environment | self._identity(name)
        metrics = f"{LOOPBACK}:{self._ports.allocate(f'{name}-metrics')}"
        log, file = self._layout.log(name), self._layout.role_settings(name)
        table = {} if given is None else given.model_dump(mode="json", exclude_unset=True)
        # Brokers come and go under a supervised role: it waits for them without a limit.
        table |= dict(values)
        if command in ON_THE_WAY:
            table["tracing"] = self._settings.tracing
        write_secret(file, toml(table | {"metrics": metrics, "connect_timeout_s": 0}))
        process = RoleProcess([*command.split(), "--config", str(file)], log, environment)
        return Role(name, process, listen=lambda: listen, metrics=metrics, log=log)

    def _identity(self, name: str) -> dict[str, str]:
        """Return the options with a role's own certificate, and no other role's."""
        folder = str(role_folder(self._layout.pki, name).resolve())
        found = {"POINTILLIST_MQTT_TLS": folder, "POINTILLIST_KAFKA_TLS": folder}
        if name.startswith("bridge"):
            found["POINTILLIST_SHARE_FILE"] = str((self._layout.pki / SHARE_FILE).resolve())
        return found

    def _secret_environment(self, role: SecretRole, environment: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a role, which names the file with its own secret and no other."""
        file = role_file(self._layout.roles.resolve(), role)
        return (self._light if environment is None else environment) | {"POINTILLIST_ROLE_SECRET_FILE": str(file)}

    def bridges(self) -> list[Role]:
        """Return the role that forwards frames from MQTT to Kafka."""
        values: dict[str, Any] = {
            "mqtt": self._mqtt, "kafka": self._kafka, "camera_rates": self._layout.camera_rates.resolve(),
        }  # fmt: skip
        if self._limits is not None:
            values |= self._limits._asdict()
        environment, given = self._secret_environment(SecretRole.BRIDGE), self._settings.bridge
        return [
            self._role("bridge", name, values | {"name": name}, environment, given=given)
            for name in instance_names("bridge", self._settings.bridges)
        ]

    def processors(self) -> list[Role]:
        """Return the role that turns Kafka's frames into verdicts."""
        values = {
            "kafka": self._kafka,
            "bundle": bundle_folder(self._settings),
            "backend_cache": backend_cache(),
            "model_cache": self._layout.model_cache.resolve(),
            "trust": self._layout.trusted.resolve(),
        }
        environment, given = self._secret_environment(SecretRole.PROCESSOR, self._environment), self._settings.processor
        return [
            self._role("process", name, values | {"instance": name}, environment, given=given)
            for name in (f"processor-{index + 1}" for index in range(self._settings.processors))
        ]

    def recorder(self) -> Role:
        """Return the role that writes Kafka's verdicts to the database and the quarantine."""
        values = {"kafka": self._kafka, "state": self._layout.folder}
        return self._role(
            "record", "recorder", values, self._secret_environment(SecretRole.RECORDER), given=self._settings.recorder
        )

    def console(self, *, prometheus: bool = False) -> Role:
        """Return the role with the pages for people; `prometheus` permits queries to a Prometheus that starts later."""
        settings, layout = self._settings, self._layout
        http = settings.http or f"{LOOPBACK}:{self._ports.allocate('console-http')}"
        tls = certificate_folder(settings, layout)
        values: dict[str, Any] = {
            "kafka": self._kafka,
            "mqtt": self._mqtt,
            "state": layout.folder,
            "http": http,
            "http_tls": tls and tls.resolve(),
            "allowed_host": allowed_host(settings),
            "behind_proxy": settings.behind_proxy,
            "jobs": {"folder": layout.jobs, "bundle": bundle_folder(settings), "signer": layout.signer_file},
        }
        if prometheus:
            values["prometheus"] = f"http://{LOOPBACK}:{self._ports.allocate('prometheus')}"
        environment = self._secret_environment(SecretRole.CONSOLE)
        role = self._role("console", "console", values, environment, given=settings.console, listen=http)
        role.url = console_url(settings, http)
        role.owner_file = layout.owner_token
        return role

    def monitor(self, *, alertmanager: str | None = None, console: str | None = None) -> Role:
        """Return the role with metrics of the brokers, of this machine, and of the audit.

        It posts alerts to the Alertmanager at the URL `alertmanager`, with links to the URL `console`.
        """
        values: dict[str, Any] = {"mqtt": self._mqtt, "kafka": self._kafka, "state": self._layout.folder}
        if alertmanager is not None:
            values["alertmanager"] = alertmanager
            values["console"] = console
        return self._role(
            "monitor", "monitor", values, self._secret_environment(SecretRole.AUDITOR), given=self._settings.monitor
        )

    def fleets(self, parts: int) -> list[Role]:
        """Return the cameras, simulated or listed; simulated ones are divided over `parts` processes.

        They are not health-checked before the start: they start last.
        """
        values = {
            "mqtt": self._mqtt,
            "state": self._layout.folder,
            "drain_s": self._settings.drain_s,
            "seconds": self._settings.seconds,
            "tracing_share": self._settings.tracing_share,
        }
        # The fleet gets its cameras' keys, and no secret.
        if (listed := self._settings.cameras_file) is not None:
            roles = [self._role("camera run", "fleet", values | {"cameras": listed.resolve()}, self._light)]
        else:
            values |= {"scenario": self._layout.scenario, "resume": True, "parts": parts}
            roles = [
                self._role("fleet", name, values | {"part": number}, self._light)
                for number, name in enumerate(instance_names("fleet", parts), start=1)
            ]
        for role in roles:
            role.final = frozenset((FLEET_DRAINED, FLEET_PENDING))
        return roles
