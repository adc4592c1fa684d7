"""What watches a run: Prometheus, Alertmanager and Grafana, each where it is installed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from infra.alertmanager.receivers import configuration
from infra.layout import Layout
from infra.local.alertmanager import Alertmanager, alertmanager_binary
from infra.local.grafana import Grafana, grafana_binary
from infra.local.ports import Ports
from infra.local.prometheus import Prometheus, prometheus_binary
from infra.local.service import Service
from infra.up.processes import Role
from infra.up.settings import UpSettings
from infra.up.system_state import PAGES
from schemas.errors import BrokerError, ConfigError


def check_receivers(settings: UpSettings) -> None:
    """ConfigError when the file of receivers is none, or nobody is there to use it."""
    if settings.receivers is None:
        return
    if not settings.prometheus or prometheus_binary() is None or alertmanager_binary() is None:
        raise ConfigError(
            "--receivers: expected Prometheus and Alertmanager to tell them: install the Debian packages prometheus "
            "and prometheus-alertmanager"
        )
    configuration(settings.receivers)


class Watching:
    """Starts them one after the other: each is told where the one before listens."""

    def __init__(self, settings: UpSettings, layout: Layout, ports: Ports) -> None:
        self._settings = settings
        self._layout = layout
        self._ports = ports
        self._prometheus: Prometheus | None = None
        self._closing = False
        self.wanted = settings.prometheus and prometheus_binary() is not None
        """Whether anybody looks at the roles' metrics."""

    def start(self, begin: Callable[[Role], None], say: Callable[[str], None], console: str) -> None:
        """Start what is installed with `begin`. `console` is the URL of the pages for people."""
        if not self.wanted:
            return
        folder, ports = self._layout.folder, self._ports

        def run(service: Service, *, optional: bool = False) -> None:
            begin(Role(service.role, service, lambda: service.listen, log=service.log, optional=optional))

        alertmanager = None
        if alertmanager_binary() is not None:
            alertmanager = Alertmanager(folder, ports, receivers=self._settings.receivers, console=console)
            run(alertmanager)
        prometheus = self._prometheus = Prometheus(folder, ports, console=console)
        prometheus.tell(alertmanager.listen if alertmanager is not None else None)
        run(prometheus)
        if grafana_binary() is not None:
            grafana = Grafana(folder, ports, prometheus=prometheus.url, console=console)

            def beside() -> None:
                try:
                    run(grafana, optional=True)
                    say(f"{PAGES[grafana.role]}: {grafana.url}/")
                except BrokerError as error:  # of whatever release it is
                    if not self._closing:
                        say(f"going on without dashboards: {error}")

            # Its first start takes longer than all others together: it makes a database.
            threading.Thread(target=beside, name="grafana", daemon=True).start()

    def close(self) -> None:
        """They are stopped: what is still starting ends without a word."""
        self._closing = True

    def scrape(self, roles: Iterable[Role]) -> None:
        """Scrape these from now on. Ports stay for the run, so it is what is scraped after any restart."""
        if self._prometheus is not None:
            self._prometheus.scrape({role.name: {"metrics": role.metrics} for role in roles})
