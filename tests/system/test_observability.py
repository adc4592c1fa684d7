"""A short fleet, watched by a real Prometheus: every query of ours is asked, and must be answered with numbers."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.grafana.build import rendered
from infra.local.prometheus import RULES, prometheus_binary

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(500)]
READY_S = 240.0
SCRAPES = 15
"""A second apart."""
ANSWER_S = 45.0

PANELS = {
    f"{board}: {panel['title']}: {target['expr']}": target["expr"]
    for board, text in rendered().items()
    for panel in json.loads(text)["panels"]
    for target in panel["targets"]
}
ALERTS = {
    rule["alert"]: rule["expr"]
    for file in RULES.glob("*.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
}


class Watched:
    """The roles of a running fleet, and the Prometheus that scrapes them."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def roles(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._state / "roles.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def scraped(self) -> dict[str, str]:
        """Role by metrics address."""
        return {entry["metrics"]: role for role, entry in self.roles().items() if entry["metrics"]}

    def ask(self, path: str, **parameters: str) -> Any:
        address = self.roles()["prometheus"]["listen"]
        url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        return document["data"]

    def values(self, expression: str) -> list[float]:
        data = self.ask("query", query=expression)
        assert data["resultType"] == "vector"
        return [float(sample["value"][1]) for sample in data["result"]]

    def unanswered(self, expressions: dict[str, str]) -> dict[str, list[float]]:
        """Those that give no sample, or one that is no number, for as long as `ANSWER_S`."""
        end = time.monotonic() + ANSWER_S
        while True:
            answers = {name: self.values(expression) for name, expression in expressions.items()}
            bad = {name: got for name, got in answers.items() if not got or not all(map(math.isfinite, got))}
            if not bad or time.monotonic() > end:
                return bad
            time.sleep(1)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Four cameras, one frame in five checked by STRIP, scraped long enough that every rate has its samples."""
    assert prometheus_binary(), "prometheus is missing: install the Debian package prometheus"
    folder = tmp_path_factory.mktemp("watched")
    options = ["--cameras", "4", "--fps", "5", "--strip-rate", "0.2", "--state", str(folder / "state")]
    log = folder / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen([sys.executable, "-m", "infra.cli", "up", *options], stdout=output, stderr=output)
    run = Watched(folder / "state")
    try:
        end = time.monotonic() + READY_S
        while not _well_scraped(run):
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        yield run
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=120) == 0, log.read_text()
    finally:
        if up.poll() is None:
            up.kill()
            up.wait()


def _well_scraped(run: Watched) -> bool:
    if not {"prometheus", "fleet", "recorder"} <= run.roles().keys():
        return False
    counts = run.values(f"min(count_over_time(up{{job='pointillist'}}[1m])) >= {SCRAPES}")
    roles = run.values("count(up{job='pointillist'})")
    frames = run.values("sum(pointillist_recorded_frames_total{outcome='recorded'}) > 100")
    return bool(counts and frames) and roles == [len(run.scraped())]


def test_every_panel_shows_numbers(watched: Watched) -> None:
    assert watched.unanswered(PANELS) == {}


def test_what_every_alert_compares_is_a_number(watched: Watched) -> None:
    found = {name: re.fullmatch(r"(.+) [<>] [0-9.]+", expression) for name, expression in ALERTS.items()}
    left = {name: match[1] for name, match in found.items() if match}
    assert left.keys() == ALERTS.keys()
    assert watched.unanswered(left) == {}


def test_all_rules_are_loaded_and_none_fails(watched: Watched) -> None:
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == ALERTS.keys()
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


def test_every_role_is_a_target_and_answers(watched: Watched) -> None:
    targets = watched.ask("targets", state="active")["activeTargets"]
    labels = {target["labels"]["instance"]: target["labels"]["role"] for target in targets}
    assert labels == watched.scraped()
    assert {target["labels"]["role"]: target["lastError"] for target in targets if target["health"] != "up"} == {}


def test_no_alert_fires_for_a_healthy_fleet(watched: Watched) -> None:
    alerts = watched.ask("alerts")["alerts"]
    assert [alert["labels"] for alert in alerts if alert["state"] == "firing"] == []
