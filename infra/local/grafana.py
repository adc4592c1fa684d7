"""Grafana on a loopback port, with the shipped dashboards on the run's Prometheus. Optional."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from infra.grafana.shipped import linked
from infra.local.http_service import HttpService
from infra.local.ports import Ports
from infra.local.programs import grafana_binary
from infra.local.service import INFRA, fill
from schemas.errors import BrokerError
from schemas.runtime.atomic_file import write_text

FOLDER: Final = INFRA / "grafana"
TEMPLATE: Final = FOLDER / "grafana.ini.in"
_DEBIAN_HOME: Final = Path("/usr/share/grafana")


class Grafana(HttpService):
    """One Grafana without accounts: every client of its port may read, and none can change anything."""

    role = "grafana"
    port_names = ("grafana",)
    ready_path = "/api/health"

    def __init__(
        self,
        state: Path,
        ports: Ports | None = None,
        *,
        prometheus: str,
        console: str | None = None,
    ) -> None:
        """URLs of its data source and of the pages that its dashboards link to; the first start makes its database."""
        super().__init__(state, ports, ready_s=90.0)
        self._prometheus = prometheus
        self._console = console

    def _environment(self) -> dict[str, str]:
        # The user's own `GF_` variables are not inherited: they would override the file.
        return super()._environment() | {
            "POINTILLIST_PROMETHEUS_URL": self._prometheus,
            "POINTILLIST_CONSOLE_URL": self._console or "",
            "POINTILLIST_DASHBOARDS": str(self.folder / "dashboards"),
        }

    def _command(self) -> list[str]:
        program = grafana_binary()
        if program is None:
            raise BrokerError(
                "grafana is missing: expected the program on PATH. Install it from Grafana's Debian repository."
            )
        for name in ("data", "plugins"):
            (self.folder / name).mkdir(exist_ok=True)
        for name, text in linked(self._console).items():
            write_text(self.folder / "dashboards" / name, text)
        fill(
            TEMPLATE,
            self.folder / "grafana.ini",
            HOST=self.host,
            PORT=self.port,
            FOLDER=self.folder,
            PROVISIONING=FOLDER / "provisioning",
        )
        home = _home(Path(program))
        at = [f"--homepath={home}"] if home is not None else []
        return [program, "server", f"--config={self.folder / 'grafana.ini'}", *at]


def _home(program: Path) -> Path | None:
    """Return the folder of Grafana's own pages; None when it has to find it by itself."""
    prefix = program.resolve().parent.parent
    return next((home for home in (prefix, _DEBIAN_HOME) if (home / "conf" / "defaults.ini").is_file()), None)
