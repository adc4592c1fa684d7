"""Alertmanager on a loopback port: receives the alerts of the run's Prometheus, and notifies people. Optional."""

from __future__ import annotations

from pathlib import Path

from infra.alertmanager.receivers import as_yaml, configuration
from infra.local.child_environment import PROXIES, inherited
from infra.local.http_service import HttpService
from infra.local.ports import Ports
from infra.local.programs import alertmanager_binary, require_program
from infra.state_folder import write_secret


class Alertmanager(HttpService):
    """One Alertmanager with the shipped routes and silences, and the receivers of a file."""

    role = "alertmanager"
    port_names = ("alertmanager",)
    ready_path = "/-/ready"

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

    def _environment(self) -> dict[str, str]:
        return inherited(*PROXIES)  # receivers may have `proxy_from_environment`

    def _command(self) -> list[str]:
        program = require_program(alertmanager_binary(), "prometheus-alertmanager")
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
