from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.grafana import __main__ as command
from infra.grafana.build import rendered
from infra.grafana.shipped import FOLDER
from schemas import metrics
from tests.infra.promql_names import CONTRACT, family, metric_names, unknown_names

BOARDS = {file.name: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
PANELS: dict[str, dict[str, Any]] = {
    f"{Path(name).stem}-{panel['title']}": panel
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
}

MEASURED_BY_EACH_MONITOR = {
    name
    for name, metric in CONTRACT.items()
    if re.match("pointillist_(audited|kafka|mqtt)_", name)
    and metric not in (metrics.KAFKA_DAMAGED, metrics.KAFKA_REPLICAS_MISSING, metrics.MQTT_REFUSALS)
}


MEASURED_BY_EACH_RECORDER = {metrics.STORE_BYTES.name, metrics.ALERTS_UNPUBLISHED.name}
"""Metrics of the database that all recorders share."""


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_the_json_in_the_repository_equals_the_generated_json() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == rendered()


EACH_QUERY = [(panel, query) for panel in PANELS.values() for query in queries(panel)]


@pytest.mark.parametrize("name", BOARDS)
def test_queries_use_exactly_the_variables_of_their_dashboard(name: str) -> None:
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    text = json.dumps([*board["panels"], *board["links"], *board["annotations"]["list"]])
    named = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__field"}
    assert named <= variables.keys()
    assert variables.keys() <= named
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert (variable["multi"], variable["includeAll"]) == (True, True)
            assert re.fullmatch(variable["allValue"], "lab-2")


def test_all_cameras_include_those_that_a_metric_counts_together() -> None:
    site, camera = (
        next(each["allValue"] for each in BOARDS["fleet.json"]["templating"]["list"] if each["name"] == name)
        for name in ("site", "camera")
    )
    every, ours = f"{site}/{camera}", f"lab/{camera}"
    assert [bool(re.fullmatch(every, name)) for name in ("lab/door", "other", "lab")] == [True, True, False]
    assert [bool(re.fullmatch(ours, name)) for name in ("lab/door", "other", "north/door")] == [True, True, False]
    assert not re.fullmatch(f"{site}/(door|gate)", "other")


def test_queries_of_camera_metrics_select_the_chosen_cameras() -> None:
    for _, query in EACH_QUERY:
        for name in metric_names(query):
            metric = family(name)
            if metric is not None and "camera_id" in metric.labels:
                selectors = re.findall(rf"{name}\{{([^}}]*)\}}", query)
                assert selectors
                assert all('camera_id=~"$site/$camera"' in found for found in selectors)


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_links_to_the_others_and_to_the_console_s_pages(name: str) -> None:
    links = {link["title"]: link for link in BOARDS[name]["links"]}
    assert (links["Dashboards"]["type"], links["Dashboards"]["tags"]) == ("dashboards", BOARDS[name]["tags"])
    assert links["Dashboards"]["includeVars"]
    assert links["Dashboards"]["keepTime"]
    assert links["Console"]["url"].startswith("${console}")
    assert links["Alerts"]["url"] == "${console}/alerts"
    assert links["Rules"]["url"] == "${console}/rules"


def test_every_query_uses_metrics_and_labels_of_the_contract() -> None:
    found = {
        title: [each for query in queries(panel) for each in unknown_names(query)] for title, panel in PANELS.items()
    }
    assert {title: each for title, each in found.items() if each} == {}


def test_a_legend_uses_labels_that_its_query_keeps() -> None:
    for title, target in ((title, each) for title, panel in PANELS.items() for each in panel["targets"]):
        legend = target.get("legendFormat", "")
        labels = [part.split("}}")[0].strip() for part in legend.split("{{")[1:]]
        assert [label for label in labels if label not in target["expr"]] == [], title


@pytest.mark.parametrize(
    ("expression", "unknown_name"),
    [
        ("sum(pointillist_camera_total)", "pointillist_camera_total"),
        ("rate(pointillist_stage_seconds[1m])", "pointillist_stage_seconds"),
        ("sum by (city) (pointillist_camera_tasks)", "city"),
        ('pointillist_camera_tasks{status="online"}', "pointillist_camera_tasks.status"),
        ('pointillist_camera_tasks{phase="asleep"}', "pointillist_camera_tasks.phase=asleep"),
    ],
)
def test_a_name_outside_the_contract_is_found(expression: str, unknown_name: str) -> None:
    assert unknown_name in unknown_names(expression)


def test_every_metric_of_the_contract_is_on_a_dashboard() -> None:
    shown = {family(name) for panel in PANELS.values() for query in queries(panel) for name in metric_names(query)}
    assert not {name for name, metric in CONTRACT.items() if metric not in shown}


def test_a_second_monitor_does_not_double_a_figure() -> None:
    """Keep metrics that each monitor measures, of the same brokers and frames, out of sums."""
    for panel, query in EACH_QUERY:
        if metric_names(query) & MEASURED_BY_EACH_MONITOR:
            assert not re.search(r"\bsum\b(?! by \([^)]*\brole\b)", query), panel["title"]


def test_a_second_recorder_on_one_database_does_not_double_a_figure() -> None:
    shown = [query for _, query in EACH_QUERY if metric_names(query) & MEASURED_BY_EACH_RECORDER]
    assert shown
    assert not [query for query in shown if "sum" in query]


def test_the_command_writes_the_dashboards_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "--out", str(tmp_path / "dashboards")])
    command.main()
    written = {file.name: file.read_text() for file in (tmp_path / "dashboards").iterdir()}
    assert written == rendered()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "dashboards" / name) for name in rendered()]


def test_the_command_writes_the_dashboards_with_links_to_the_given_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = "https://console.example"
    monkeypatch.setattr(sys, "argv", ["", "--console", f"{console}/", "--out", str(tmp_path)])
    command.main()
    assert {file.name for file in tmp_path.iterdir()} == BOARDS.keys()
    for name, board in BOARDS.items():
        written = json.loads((tmp_path / name).read_text())
        (variable,) = (each for each in written["templating"]["list"] if each["name"] == "console")
        assert (variable["query"], variable["current"]) == (console, {"text": console, "value": console})
        assert written | {"templating": None} == board | {"templating": None}
