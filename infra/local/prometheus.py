"""Prometheus on a loopback port, scraping every role of the run. Optional: a run works without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.local.files import write_json
from infra.local.http_service import HttpService
from infra.local.ports import Ports
from infra.local.programs import prometheus_binary, require_program
from infra.local.service import INFRA, fill
from infra.prometheus.runbooks import CONSOLES, PAGE

TEMPLATE = INFRA / "prometheus" / "prometheus.yml.in"
RULES = INFRA / "prometheus" / "rules"
TARGETS = "targets.json"
ALERTMANAGERS = "alertmanagers.json"


class Prometheus(HttpService):
    """One Prometheus with the shipped rules; the latest call of `scrape` sets its targets."""

    role = "prometheus"
    port_names = ("prometheus",)
    ready_path = "/-/ready"

    def __init__(self, state: Path, ports: Ports | None = None, *, console: str | None = None) -> None:
        """`console` is the URL of the pages that alerts link to; None keeps this server's own."""
        super().__init__(state, ports)
        self._console = console

    def scrape(self, roles: Mapping[str, Mapping[str, Any]]) -> None:
        """Scrape the roles (as in `roles.json`) that have a metrics address; Prometheus notices by itself.

        Each series carries the role's name as its label `role`, unless it has that label already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        targets = [
            {"targets": [entry["metrics"]], "labels": {"role": role}}
            for role, entry in sorted(roles.items())
            if entry.get("metrics")
        ]
        write_json(self.folder / TARGETS, targets)

    def set_alertmanager(self, alertmanager: str | None) -> None:
        """Send alerts to the Alertmanager at `host:port`, or with None to no one; Prometheus notices by itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / ALERTMANAGERS, [] if alertmanager is None else [{"targets": [alertmanager]}])

    def _command(self) -> list[str]:
        program = require_program(prometheus_binary(), "prometheus")
        if not (self.folder / TARGETS).is_file():
            self.scrape({})
        if not (self.folder / ALERTMANAGERS).is_file():
            self.set_alertmanager(None)
        # JSON strings are YAML strings: any path is quoted safely.
        fill(
            TEMPLATE,
            self.folder / "prometheus.yml",
            RULES=json.dumps(f"{RULES}/*.yml"),
            TARGETS=json.dumps(TARGETS),
            ALERTMANAGERS=json.dumps(ALERTMANAGERS),
            RUNBOOKS=json.dumps(f"{self._console}/runbooks" if self._console else f"{self.url}/consoles/{PAGE.name}"),
            CONSOLE=json.dumps(self._console or ""),
        )
        return [
            program,
            "--config.file=prometheus.yml",
            f"--web.listen-address={self.listen}",
            # The start of an alert's `generatorURL`: Debian's Prometheus has no pages of its own.
            f"--web.external-url={f'{self._console}/rules' if self._console else self.url}",
            "--web.route-prefix=/",
            f"--web.console.templates={CONSOLES}",
            "--enable-feature=exemplar-storage",
            "--storage.tsdb.path=data",
            "--storage.tsdb.retention.time=1d",
            "--storage.tsdb.retention.size=256MB",
            "--log.level=warn",
        ]
