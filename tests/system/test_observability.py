"""A fleet from its start to Ctrl-C: a real Prometheus answers every query of ours, and every frame is recorded."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import yaml

from benchmarks.harness.system import RunningSystem, audit
from infra.audit.report import attacked_by_camera
from infra.grafana.build import FOLDER
from infra.local.prometheus import prometheus_binary
from infra.pki.roles import SHARE_FILE
from infra.state_folder import Layout
from schemas import metrics as m
from schemas.runtime.trace import STAMPS
from tests.infra.alert_rules import ALERTS
from tests.producers.stand_in_generator import write_generator
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(500)]
READY_S = 240.0
SCRAPES = 15
"""A second apart."""
ANSWER_S = 45.0

BOARDS = {file.name: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
PANELS = {
    f"{name}: {panel['title']}: {target['expr']}": target["expr"]
    for name, board in BOARDS.items()
    for panel in board["panels"]
    for target in panel.get("targets", [])
    # The first needs cameras with measure_codec, which compare one frame in a hundred; the second needs a rollout; the
    # third a bundle with a reference for drift.
    if not any(metric.name in target["expr"] for metric in (m.CAMERA_COMPARED, m.ROLLOUT_OUTCOME, m.DRIFT))
}
VARIABLES = {
    variable["name"]: variable
    for board in BOARDS.values()
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
}
MARKS = {mark["name"]: mark["expr"] for mark in BOARDS["fleet.json"]["annotations"]["list"]}
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

    def __init__(self, system: RunningSystem) -> None:
        self.system = system
        self.state = system.state
        self.stamps = system.state.with_name("stamps")

    def scraped(self) -> dict[str, str]:
        """Role by metrics address."""
        return {entry["metrics"]: role for role, entry in self.system.roles().items() if entry["metrics"]}

    def address(self, role: str) -> str:
        return str(self.system.roles()[role]["listen"])

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address('prometheus')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
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


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Four cameras, one frame in five checked by STRIP, scraped long enough that every rate has its samples.

    One of them is attacked, by one grey level that no network minds.
    """
    assert prometheus_binary(), "prometheus is missing: install the Debian package prometheus"
    folder = tmp_path_factory.mktemp("watched")
    weak = str(write_generator(folder / "generator", classes=12))
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI)
    tool.chmod(0o755)
    attack = {"kind": "attack", "camera": "cam-1", "at_s": 1, "for_s": 3600, "generator": weak, "eps": 1 / 255}
    cameras = {"name": "cam-{index}", "count": 4, "fps": 5, "probe_share": 0.2}
    scenario = folder / "fleet.yaml"
    scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [cameras], "faults": [attack]}))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
        patched.setenv("POINTILLIST_TRACE", str(folder / "stamps"))
        running = RunningSystem(folder / "state", "--scenario", scenario)
    with running as system:
        for role in ("prometheus", "recorder", "fleet"):
            system.await_role(role)
        run = Watched(system)

        def well_scraped() -> bool:
            assert system.process.poll() is None, system.output()
            return _well_scraped(run)

        wait_until(well_scraped, f"{SCRAPES} scrapes of every role", READY_S, every_s=0.5)
        yield run


def _well_scraped(run: Watched) -> bool:
    counts = run.values(f"min(count_over_time(up{{job='pointillist'}}[1m])) >= {SCRAPES}")
    roles = run.values("count(up{job='pointillist'})")
    frames = run.values("sum(pointillist_recorded_frames_total{outcome='recorded'}) > 100")
    return bool(counts and frames) and roles == [len(run.scraped())]


def test_every_panel_shows_numbers(watched: Watched) -> None:
    watched.await_answers({name: interpolated(expression) for name, expression in PANELS.items()})


def test_the_variables_offer_the_sites_the_cameras_and_the_roles_that_there_are(watched: Watched) -> None:
    assert watched.choices("site") == ["local"]
    assert watched.choices("camera", site="local") == [f"cam-{index}" for index in range(4)]
    assert watched.choices("camera", site="elsewhere") == []
    assert watched.choices("role") == sorted(watched.scraped().values())


def test_every_panel_is_answered_for_each_value_of_its_variables_and_of_cameras_with_numbers(
    watched: Watched,
) -> None:
    for name in VARIABLES:
        named = {title: expression for title, expression in PANELS.items() if f"${name}" in expression}
        assert named
        empty = set(named)
        for value in watched.choices(name):
            for title, expression in named.items():
                answer = watched.values(interpolated(expression, **{name: value}))
                assert all(map(math.isfinite, answer)), (title, value, answer)
                empty -= {title} if answer else set()
                # A role has what it has; of each camera there is all.
                assert answer or name == "role", (title, value)
        assert not empty


def test_what_is_marked_in_the_panels_is_there_to_be_marked(watched: Watched) -> None:
    started = watched.values(MARKS["Restarts"])
    assert len(started) == len(watched.scraped())
    assert all(abs(value / 1000 - time.time()) < 3600 for value in started)
    changed = f"max_over_time(({MARKS['Model changes']})[10m:1s])"
    assert watched.values(changed)
    watched.values(MARKS["Alerts"])


def test_frames_stand_beside_the_wrong_verdicts(watched: Watched) -> None:
    def frames() -> list[dict[str, str]]:
        now = time.time()
        query = (
            'pointillist_camera_truth_frames_total{result="wrong"} or pointillist_truth_frames_total{result="wrong"}'
        )
        found = watched.ask("query_exemplars", query=query, start=f"{now - 600:.0f}", end=f"{now:.0f}")
        return [each["labels"] for series in found for each in series["exemplars"]]

    wrong = watched.values('sum(pointillist_truth_frames_total{result="wrong"})')
    if wrong == [0.0]:  # the network was right all along, so that there is no frame to show
        assert frames() == []
        return
    wait_until(frames, "a frame", within_s=ANSWER_S, every_s=0.5)
    assert all(frame["camera_id"].startswith("local/cam-") for frame in frames())


def test_what_every_alert_compares_is_a_number(watched: Watched) -> None:
    found = {name: re.fullmatch(r"(.+) [<>] [0-9.]+", rule["expr"]) for name, rule in ALERTS.items()}
    left = {name: match[1] for name, match in found.items() if match}
    assert left.keys() == ALERTS.keys()
    # The metric is there once a bundle has a reference for drift.
    watched.await_answers({name: expression for name, expression in left.items() if m.DRIFT.name not in expression})


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


def test_the_console_draws_its_charts_from_this_prometheus(watched: Watched) -> None:
    address = f"http://{watched.address('console')}/system/history?range=hour"
    wanted = {"rate", "p50", "p99", "lag", "recorder_lag", "saved", "accuracy", "cpu fleet", "cpu processor-1"}
    drawn: set[str] = set()

    def asked() -> bool:
        with urllib.request.urlopen(address, timeout=10) as answer:
            found = json.load(answer)
        assert found["source"] == "prometheus", found["note"]
        drawn.update(name for name, column in found["columns"].items() if any(value is not None for value in column))
        return drawn >= wanted

    with contextlib.suppress(AssertionError):
        wait_until(asked, within_s=ANSWER_S, every_s=2.0)
    assert wanted - drawn == set()


def test_prometheus_knows_the_alertmanager_of_the_run(watched: Watched) -> None:
    address = watched.address("alertmanager")
    wait_until(
        lambda: (
            [each["url"] for each in watched.ask("alertmanagers")["activeAlertmanagers"]]
            == [f"http://{address}/api/v2/alerts"]
        ),
        within_s=ANSWER_S,
        every_s=0.5,
    )


def test_no_alert_fires_for_a_healthy_fleet(watched: Watched) -> None:
    alerts = watched.ask("alerts")["alerts"]
    assert [alert["labels"] for alert in alerts if alert["state"] == "firing"] == []


def test_the_console_shows_every_camera_and_its_picture(watched: Watched) -> None:
    def answer(path: str) -> bytes:
        with urllib.request.urlopen(f"http://{watched.address('console')}{path}", timeout=10) as found:
            return bytes(found.read())

    names = {card["name"] for card in json.loads(answer("/api/v1/cameras"))["cameras"]}
    assert names == {f"local/cam-{index}" for index in range(4)}
    assert answer("/picture/local/cam-0.jpg").startswith(b"\xff\xd8")
    assert watched.system.roles()["recorder"]["listen"] is None  # it serves metrics only


def test_ctrl_c_drains_and_every_frame_is_recorded_and_stamped_on_its_way(watched: Watched) -> None:
    """The last test of this system: it ends here."""
    pids = [entry["pid"] for entry in watched.system.roles().values()]
    said = [" ".join(psutil.Process(pid).cmdline()) for pid in pids]
    watched.system.interrupt()
    report = watched.system.finish(120)
    assert report["frames_recorded"] == report["frames_published"] > 100
    assert report["frames_lost"] == report["frames_pending"] == report["frames_shed"] == 0
    assert report["frames_foreign"] == report["frames_dead_lettered"] == 0
    assert report["accuracy"] >= 0.9
    assert report["wire_overhead_bytes_per_frame"] <= 44
    # A quarter is dropped, but new cameras send up to half of their first frames whole, until STRIP has a baseline.
    assert report["bytes_sent"] <= 0.92 * report["bytes_raw"]
    assert report["strip_checked"] + report["strip_shed"] >= report["frames_published"] // 10 - 4
    assert set(report["latency_s"]) == {"p50", "p95", "p99"}
    status, counts = audit(watched.state)
    assert (status, counts["frames_lost"]) == (0, 0)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    layout = Layout(watched.state)
    said += [file.read_text() for file in (*(layout.folder / "logs").iterdir(), *layout.folder.glob("*.json"))]
    secrets = [layout.secret_file, layout.pki / SHARE_FILE, *layout.keys.rglob("*.key")]
    assert len(secrets) == 6
    assert not [file for file in secrets for text in said if file.read_text().strip().rpartition(":")[2] in text]
    stamped = {what: set[str]() for what in STAMPS}
    for file in watched.stamps.iterdir():
        for line in file.read_text().splitlines():
            _, what, frame = line.split("\t")
            stamped[what].add(frame)
    assert len(stamped["spooled"]) == report["frames_published"]
    assert stamped["captured"] >= stamped["spooled"]  # Ctrl-C may come between the two
    others = stamped.keys() - {"captured", "checked", "gathered"}
    assert all(stamped[what] == stamped["spooled"] for what in others)
    assert 0 < len(stamped["checked"]) == report["strip_checked"]
    assert stamped["gathered"] >= stamped["spooled"]  # the recorder gathers other events too
