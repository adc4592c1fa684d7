"""A short fleet, watched by a real Prometheus: every query of ours is asked, and must be answered with numbers."""

from __future__ import annotations

import contextlib
import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from infra.grafana.build import rendered
from infra.layout import Layout
from infra.local.prometheus import RULES, prometheus_binary
from infra.report import attacked_by_camera
from infra.up.background import RunningSystem
from tests.producers.stand_in_generator import write_generator
from tests.waiting import wait_until

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

    def __init__(self, system: RunningSystem) -> None:
        self._system = system
        self.state = system.state

    def scraped(self) -> dict[str, str]:
        """Role by metrics address."""
        return {entry["metrics"]: role for role, entry in self._system.roles().items() if entry["metrics"]}

    def ask(self, path: str, **parameters: str) -> Any:
        address = self._system.roles()["prometheus"]["listen"]
        url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        return document["data"]

    def values(self, expression: str) -> list[float]:
        data = self.ask("query", query=expression)
        assert data["resultType"] == "vector"
        return [float(sample["value"][1]) for sample in data["result"]]

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


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Four cameras, one frame in five checked by STRIP, scraped long enough that every rate has its samples.

    One of them is attacked, by one grey level that no network minds.
    """
    assert prometheus_binary(), "prometheus is missing: install the Debian package prometheus"
    folder = tmp_path_factory.mktemp("watched")
    weak = str(write_generator(folder / "generator", classes=12))
    attack = {"kind": "attack", "camera": "cam-1", "at_s": 1, "for_s": 3600, "generator": weak, "eps": 1 / 255}
    cameras = {"name": "cam-{index}", "count": 4, "fps": 5, "probe_share": 0.2}
    scenario = folder / "fleet.yaml"
    scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [cameras], "faults": [attack]}))
    with RunningSystem(folder / "state", "--scenario", scenario) as system:
        for role in ("prometheus", "recorder", "fleet"):
            system.await_role(role)
        run = Watched(system)

        def well_scraped() -> bool:
            assert system.process.poll() is None, system.output()
            return _well_scraped(run)

        wait_until(well_scraped, f"{SCRAPES} scrapes of every role", READY_S, every_s=0.5)
        yield run
        system.interrupt()
        system.finish(120)


def _well_scraped(run: Watched) -> bool:
    counts = run.values(f"min(count_over_time(up{{job='pointillist'}}[1m])) >= {SCRAPES}")
    roles = run.values("count(up{job='pointillist'})")
    frames = run.values("sum(pointillist_recorded_frames_total{outcome='recorded'}) > 100")
    return bool(counts and frames) and roles == [len(run.scraped())]


def test_every_panel_shows_numbers(watched: Watched) -> None:
    watched.await_answers(PANELS)


def test_what_every_alert_compares_is_a_number(watched: Watched) -> None:
    found = {name: re.fullmatch(r"(.+) [<>] [0-9.]+", expression) for name, expression in ALERTS.items()}
    left = {name: match[1] for name, match in found.items() if match}
    assert left.keys() == ALERTS.keys()
    watched.await_answers(left)


def test_accuracy_under_attack_stands_beside_the_clean_one_of_the_attacked_camera_alone(watched: Watched) -> None:
    def frames() -> dict[tuple[str, str], float]:
        found = watched.ask("query", query='pointillist_camera_truth_frames_total{result="correct"}')["result"]
        return {(each["metric"]["camera_id"], each["metric"]["picture"]): float(each["value"][1]) for each in found}

    camera = "local/cam-1"
    wait_until(lambda: frames().get((camera, "attacked"), 0) >= 20, within_s=ANSWER_S, every_s=0.5)
    assert frames().keys() == {(camera, "attacked"), (camera, "clean")}
    (recorded,) = (attacked_by_camera(Layout(watched.state).database_url) or {}).values()
    assert (recorded["frames"] or 0) >= 20
    assert (recorded["accuracy"] or 0) >= 0.9


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
