"""A healthy fleet under a Prometheus: its options, and the queries of the dashboards as Grafana asks them."""

from __future__ import annotations

import contextlib
import json
import math
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness.collector import Collector
from benchmarks.harness.system import RunningSystem
from infra.grafana.shipped import FOLDER
from tests.waiting import wait_until

READY_S = 240.0
SCRAPES = 15
"""A second apart."""
ANSWER_S = 45.0

BOARDS = {file.name: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
VARIABLES = {
    variable["name"]: variable
    for board in BOARDS.values()
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
}
INTERVAL = "15s"
"""What `$__rate_interval` is where a scrape comes each second, and a panel is as wide as its minutes allow."""
SMI = "#!/bin/sh\necho '0, 42, 1024, 3072, 61, 70.5'\n"


def interpolated(expression: str, **values: str) -> str:
    """A query as Grafana asks it: several values of a variable are alternatives, all of them what it says itself."""
    values = {name: variable["allValue"] for name, variable in VARIABLES.items()} | values
    for name, value in {**values, "__rate_interval": INTERVAL}.items():
        expression = re.sub(rf"\$\{{?{name}\b\}}?", lambda _, value=value: value, expression)  # type: ignore[misc]
    assert "$" not in expression
    return expression


class Watched:
    """The roles of a running fleet, and the Prometheus that scrapes them."""

    def __init__(self, system: RunningSystem, collector: Collector) -> None:
        self.system = system
        self.collector = collector
        """The receiver of its sampled frames' spans."""
        self.state = system.state

    def scraped(self) -> dict[str, str]:
        """Role by metrics address."""
        return {entry["metrics"]: role for role, entry in self.system.roles().items() if entry["metrics"]}

    def address(self, role: str) -> str:
        return str(self.system.roles()[role]["listen"])

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address('prometheus')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        return document["data"]

    def values(self, expression: str) -> list[float]:
        data = self.ask("query", query=expression)
        assert data["resultType"] == "vector"
        return [float(sample["value"][1]) for sample in data["result"]]

    def choices(self, name: str, **chosen: str) -> list[str]:
        """The values of a dashboard's variable, as Grafana finds them by its query."""
        variable = VARIABLES[name]
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert found
        series, label = interpolated(found[1], **chosen), found[2]
        values = self.ask(f"label/{label}/values", **{"match[]": series})
        pattern = re.compile(variable["regex"][1:-1] or "(.+)")
        return sorted({match[1] for value in values if (match := pattern.search(value))})

    def await_answers(self, expressions: dict[str, str]) -> None:
        """Wait until each gives samples, and numbers only; fails, with those that do not, after `ANSWER_S`."""
        bad: dict[str, list[float]] = {}

        def answered() -> bool:
            answers = {name: self.values(expression) for name, expression in expressions.items()}
            bad.clear()
            bad.update({name: got for name, got in answers.items() if not got or not all(map(math.isfinite, got))})
            return not bad

        with contextlib.suppress(AssertionError):
            wait_until(answered, within_s=ANSWER_S, every_s=1.0)
        assert bad == {}


def well_scraped(run: Watched) -> bool:
    counts = run.values(f"min(count_over_time(up{{job='pointillist'}}[1m])) >= {SCRAPES}")
    roles = run.values("count(up{job='pointillist'})")
    frames = run.values("sum(pointillist_recorded_frames_total{outcome='recorded'}) > 100")
    return bool(counts and frames) and roles == [len(run.scraped())]


def options_of_fleet(folder: Path, drop_ratio: float, *faults: dict[str, object]) -> tuple[object, ...]:
    """Write the scenario of four cameras with these faults; return the options of an `up` with it."""
    cameras = {"name": "cam-{index}", "count": 4, "fps": 5, "probe_share": 0.2, "drop_ratio": drop_ratio}
    scenario, config = folder / "fleet.yaml", folder / "up.toml"
    scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [cameras], "faults": [*faults]}))
    # `test_doc_commands` tries all backends; a busy machine must not cost frames or checks.
    limits = "camera_queue_s = 1000\nstrip_wait_s = 1000\ncertify_wait_s = 1000\n"
    config.write_text(f'[processor]\nbackend = "torch"\n{limits}')
    return "--scenario", scenario, "--config", config
