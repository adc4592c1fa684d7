"""The monitoring of a run: Prometheus, Alertmanager and Grafana, each if it is installed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from infra.alertmanager.receivers import configuration
from infra.local.alertmanager import Alertmanager
from infra.local.grafana import Grafana
from infra.local.ports import Ports
from infra.local.programs import alertmanager_binary, grafana_binary, prometheus_binary
from infra.local.prometheus import Prometheus
from infra.local.service import Service
from infra.state_folder import Layout
from infra.up.processes import Role
from infra.up.settings import UpSettings
from infra.up.system_state import PAGES
from schemas.errors import BrokerError, ConfigError


def check_receivers(settings: UpSettings) -> None:
    """Raise ConfigError when the file of receivers is invalid, or Prometheus or Alertmanager is off or missing."""
    if settings.receivers is None:
        return
    if not settings.prometheus:
        raise ConfigError("--receivers: expected a run with Prometheus, got --no-prometheus. Omit one of them.")
    if prometheus_binary() is None or alertmanager_binary() is None:
        raise ConfigError(
            "--receivers: expected the programs prometheus and alertmanager, got fewer. Install the Debian "
            "packages prometheus and prometheus-alertmanager."
        )
    configuration(settings.receivers)


class MonitoringServers:
    """Starts the monitoring servers in order: each gets the address of the one before."""

    def __init__(self, settings: UpSettings, layout: Layout, ports: Ports) -> None:
        self._settings = settings
        self._layout = layout
        self._ports = ports
        self._prometheus: Prometheus | None = None
        self._closing = False
        self.is_enabled = settings.prometheus and prometheus_binary() is not None
        """Whether Prometheus scrapes the roles' metrics."""
        self.alertmanager: str | None = None
        """URL of the Alertmanager that runs; None without one."""

    def start(self, begin: Callable[[Role], None], print_line: Callable[[str], None], console: str) -> None:
        """Start the installed servers by `begin`. `console` is the URL of the pages for people.

        The run continues without a server that cannot start, and a line names it. If the user has given receivers,
        Prometheus and Alertmanager must start: a failure raises BrokerError.
        """
        if not self.is_enabled:
            return
        folder, ports = self._layout.folder, self._ports

        def run(service: Service) -> None:
            begin(Role(service.role, service, lambda: service.listen, log=service.log, optional=True))

        def try_start(service: Service) -> bool:
            """Start a server that notifications need; return whether it runs."""
            try:
                run(service)
            except BrokerError as error:  # such as damaged files after a power cut
                if self._settings.receivers is not None:
                    raise
                print_line(f"going on without {service.role}: {str(error).removeprefix(f'{service.role}: ')}")
                return False
            return True

        alertmanager = Alertmanager(folder, ports, receivers=self._settings.receivers, console=console)
        if alertmanager_binary() is not None and try_start(alertmanager):
            self.alertmanager = alertmanager.url
        prometheus = self._prometheus = Prometheus(folder, ports, console=console, print_line=print_line)
        prometheus.set_alertmanager(alertmanager.listen if self.alertmanager is not None else None)
        # The targets of an earlier run are still in its file, and the cameras start last.
        self.scrape(())
        if try_start(prometheus) and grafana_binary() is not None:
            grafana = Grafana(folder, ports, prometheus=prometheus.url, console=console)

            def start_grafana() -> None:
                try:
                    run(grafana)
                    print_line(f"{PAGES[grafana.role]}: {grafana.url}/")
                except BrokerError as error:  # of any release
                    if not self._closing:
                        print_line(f"going on without dashboards: {error}")

            # Its first start takes longer than all others together: it creates a database.
            threading.Thread(target=start_grafana, name="grafana", daemon=True).start()

    def close(self) -> None:
        """Note the shutdown: servers that are still starting then fail silently."""
        self._closing = True

    def scrape(self, roles: Iterable[Role]) -> None:
        """Set the roles to scrape. The ports stay for the run, also after a restart."""
        if self._prometheus is not None:
            self._prometheus.scrape({role.name: {"metrics": role.metrics} for role in roles})
