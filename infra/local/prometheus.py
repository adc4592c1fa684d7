"""Prometheus on a loopback port, scraping every role of the run. Optional: a run works without it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.local.http_service import HttpService
from infra.local.ports import Ports
from infra.local.programs import prometheus_binary, require_program
from infra.local.service import INFRA, fill
from infra.prometheus.runbooks import CONSOLES, PAGE
from schemas.runtime.json_files import write_json

TEMPLATE = INFRA / "prometheus" / "prometheus.yml.in"
RULES = INFRA / "prometheus" / "rules"
TARGETS = "targets.json"
ALERTMANAGERS = "alertmanagers.json"
DATA = "data"
AHEAD = "data.ahead"
"""The data of a time at which the clock was ahead."""
_AHEAD_S = 300.0


class Prometheus(HttpService):
    """One Prometheus with the shipped rules; the latest call of `scrape` sets its targets."""

    role = "prometheus"
    port_names = ("prometheus",)
    ready_path = "/-/ready"

    def __init__(
        self,
        state: Path,
        ports: Ports | None = None,
        *,
        console: str | None = None,
        print_line: Callable[[str], None] = print,
    ) -> None:
        """`console` is the URL of the pages that alerts link to; None keeps this server's own."""
        super().__init__(state, ports)
        self._console = console
        self._print_line = print_line

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

    def _set_aside_future_data(self) -> None:
        """Rename data that was written while the clock was ahead: until then, Prometheus would take no sample."""
        data, aside, latest_s = self.folder / DATA, self.folder / AHEAD, time.time() + _AHEAD_S
        if any(file.stat().st_mtime > latest_s for file in data.rglob("*") if file.is_file()):
            shutil.rmtree(aside, ignore_errors=True)
            data.rename(aside)
            self._print_line(
                f"prometheus: expected data of the past, got data dated in the future, which is now {aside}: the clock "
                "was ahead. Prometheus starts without it."
            )

    def _command(self) -> list[str]:
        program = require_program(prometheus_binary(), "prometheus")
        self._set_aside_future_data()
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
            f"--storage.tsdb.path={DATA}",
            "--storage.tsdb.retention.time=1d",
            "--storage.tsdb.retention.size=256MB",
            "--log.level=warn",
        ]
