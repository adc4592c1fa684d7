"""Alertmanager on a loopback port: receives the alerts of the run's Prometheus, and notifies people. Optional."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.alertmanager.receivers import as_yaml, configuration
from infra.local.http import is_ready
from infra.local.ports import Ports
from infra.local.service import Service
from infra.state_folder import write_secret
from schemas.errors import BrokerError


def alertmanager_binary() -> str | None:
    """Return Alertmanager's program, under Debian's name or its makers'; None when it is not installed."""
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def check_receivers_file(receivers: Path) -> None:
    """Raise ConfigError when the file cannot be read, holds other keys, or fails Alertmanager's own check."""
    configuration(receivers)


class Alertmanager(Service):
    """One Alertmanager with the shipped routes and silences, and the receivers of a file."""

    role = "alertmanager"
    port_names = ("alertmanager",)

    def __init__(
        self,
        state: Path,
        ports: Ports | None = None,
        *,
        receivers: Path | None = None,
        console: str | None = None,
    ) -> None:
        """`receivers` is the operator's file; without it alerts are only shown. Messages link to the URL `console`."""
        super().__init__(state, ports)
        self._console = console
        self._receivers = receivers.resolve() if receivers is not None else None

    @property
    def url(self) -> str:
        """Base URL of its HTTP API."""
        return f"http://{self.listen}"

    def _command(self) -> list[str]:
        program = alertmanager_binary()
        if program is None:
            raise BrokerError(
                "prometheus-alertmanager is missing: expected the program on PATH. Install the Debian package "
                "prometheus-alertmanager."
            )
        # It may hold passwords of receivers.
        write_secret(self.folder / "alertmanager.yml", as_yaml(configuration(self._receivers)).rstrip())
        return [
            program,
            "--config.file=alertmanager.yml",
            f"--web.listen-address={self.listen}",
            # A message's `externalURL`: Debian's Alertmanager has no pages of its own.
            f"--web.external-url={f'{self._console}/alerts' if self._console else self.url}",
            "--web.route-prefix=/",
            "--storage.path=data",
            # A single instance: no port for a cluster.
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        return is_ready(f"{self.url}/-/ready")
