"""A healthy fleet that a Prometheus scrapes: its options, and the dashboards' queries as Grafana sends them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness.collector import Collector
from benchmarks.harness.prometheus import Prometheus
from benchmarks.harness.system import RunningSystem
from infra.grafana.shipped import FOLDER
from tests.waiting import wait_until

READY_S = 240.0
"""Timeout of the fleet's start, in seconds."""
SCRAPES = 15
"""Scrapes of every role before the tests, one a second."""
ANSWER_S = 45.0
"""Timeout of a wait for an expected answer, in seconds."""

BOARDS = {file.name: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
VARIABLES = {
    variable["name"]: variable
    for board in BOARDS.values()
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
}
INTERVAL = "15s"
"""Grafana's `$__rate_interval` for one scrape a second, in a panel whose resolution does not raise it."""
SMI = "#!/bin/sh\necho '0, 42, 1024, 3072, 61, 70.5'\n"


def interpolate(expression: str, **values: str) -> str:
    """Return a query as Grafana sends it: variables that are not given have their value for *all*."""
    values = {name: variable["allValue"] for name, variable in VARIABLES.items()} | values
    for name, value in {**values, "__rate_interval": INTERVAL}.items():
        expression = re.sub(rf"\$\{{?{name}\b\}}?", lambda _, value=value: value, expression)  # type: ignore[misc]
    assert "$" not in expression
    return expression


class MonitoredFleet:
    """The roles of a running fleet, and the Prometheus that scrapes them."""

    def __init__(self, system: RunningSystem, collector: Collector) -> None:
        self.system = system
        self.collector = collector
        """The receiver of the spans of sampled frames."""
        self.state = system.state

    def roles_by_address(self) -> dict[str, str]:
        """Return the roles by the addresses of their metrics."""
        return {entry["metrics"]: role for role, entry in self.system.roles().items() if entry["metrics"]}

    def address(self, role: str) -> str:
        return str(self.system.roles()[role]["listen"])

    def ask(self, path: str, **parameters: str) -> Any:
        return Prometheus(self.address("prometheus")).ask(path, **parameters)

    def values(self, expression: str) -> list[float]:
        data = self.ask("query", query=expression)
        assert data["resultType"] == "vector"
        return [float(sample["value"][1]) for sample in data["result"]]

    def variable_values(self, name: str, **chosen: str) -> list[str]:
        """Return the values of a dashboard's variable by its query, like Grafana."""
        variable = VARIABLES[name]
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert found
        series, label = interpolate(found[1], **chosen), found[2]
        values = self.ask(f"label/{label}/values", **{"match[]": series})
        pattern = re.compile(variable["regex"][1:-1] or "(.+)")
        return sorted({match[1] for value in values if (match := pattern.search(value))})

    def await_answers(self, expressions: dict[str, str]) -> None:
        """Wait until each query returns samples with finite values only. After `ANSWER_S`, fail with the others."""
        bad: dict[str, list[float]] = {}

        def answered() -> bool:
            answers = {name: self.values(expression) for name, expression in expressions.items()}
            bad.clear()
            bad.update({name: got for name, got in answers.items() if not got or not all(map(math.isfinite, got))})
            return not bad

        with contextlib.suppress(AssertionError):
            wait_until(answered, within_s=ANSWER_S, every_s=1.0)
        assert bad == {}


def has_enough_samples(fleet: MonitoredFleet) -> bool:
    """Return whether Prometheus has scraped every role `SCRAPES` times and frames are being recorded."""
    counts = fleet.values(f"min(count_over_time(up{{job='pointillist'}}[1m])) >= {SCRAPES}")
    roles = fleet.values("count(up{job='pointillist'})")
    frames = fleet.values("sum(pointillist_recorded_frames_total{outcome='recorded'}) > 100")
    return bool(counts and frames) and roles == [len(fleet.roles_by_address())]


def options_of_fleet(folder: Path, drop_ratio: float, *faults: dict[str, object]) -> tuple[object, ...]:
    """Write the scenario of four cameras with these faults; return the options of an `up` with it."""
    cameras = {"name": "cam-{index}", "count": 4, "fps": 2, "probe_share": 0.2, "drop_ratio": drop_ratio}
    scenario, config = folder / "fleet.yaml", folder / "up.toml"
    scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [cameras], "faults": [*faults]}))
    # `test_doc_commands` tries all backends. The high limits keep frames and checks on a busy machine. With
    # fewer windows, a certificate takes fewer passes of the network.
    limits = "camera_queue_s = 1000\nstrip_wait_s = 1000\ncertify_wait_s = 1000\ncertify_windows = 2\n"
    config.write_text(f'[processor]\nbackend = "torch"\n{limits}')
    return "--scenario", scenario, "--config", config
