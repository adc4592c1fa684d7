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
SHOWN: dict[str, dict[str, Any]] = {
    f"{Path(name).stem}-{panel['title']}": panel
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
}

OF_EACH_MONITOR = {
    name
    for name, metric in CONTRACT.items()
    if re.match("pointillist_(audited|kafka|mqtt)_", name)
    and metric not in (metrics.KAFKA_DAMAGED, metrics.KAFKA_REPLICAS_MISSING, metrics.MQTT_REFUSALS)
}


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_the_json_in_the_repository_is_what_the_code_makes() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == rendered()


EACH_QUERY = [(panel, query) for panel in SHOWN.values() for query in queries(panel)]


@pytest.mark.parametrize("name", BOARDS)
def test_every_variable_that_a_query_names_is_one_of_its_dashboard_and_every_choice_is_used(name: str) -> None:
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


def test_what_has_a_camera_shows_the_chosen_ones() -> None:
    for _, query in EACH_QUERY:
        for name in metric_names(query):
            metric = family(name)
            if metric is not None and "camera_id" in metric.labels:
                selectors = re.findall(rf"{name}\{{([^}}]*)\}}", query)
                assert selectors
                assert all('camera_id=~"$site/$camera"' in found for found in selectors)


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_leads_to_the_others_and_to_the_console_with_its_alerts_and_rules(name: str) -> None:
    links = {link["title"]: link for link in BOARDS[name]["links"]}
    assert (links["Dashboards"]["type"], links["Dashboards"]["tags"]) == ("dashboards", BOARDS[name]["tags"])
    assert links["Dashboards"]["includeVars"]
    assert links["Dashboards"]["keepTime"]
    assert links["Console"]["url"].startswith("${console}")
    assert links["Alerts"]["url"] == "${console}/alerts"
    assert links["Rules"]["url"] == "${console}/rules"


def test_every_query_names_what_the_contract_has() -> None:
    found = {
        title: [each for query in queries(panel) for each in unknown_names(query)] for title, panel in SHOWN.items()
    }
    assert {title: each for title, each in found.items() if each} == {}


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for title, target in ((title, each) for title, panel in SHOWN.items() for each in panel["targets"]):
        legend = target.get("legendFormat", "")
        labels = [part.split("}}")[0].strip() for part in legend.split("{{")[1:]]
        assert [label for label in labels if label not in target["expr"]] == [], title


@pytest.mark.parametrize(
    ("expression", "stranger"),
    [
        ("sum(pointillist_camera_total)", "pointillist_camera_total"),
        ("rate(pointillist_stage_seconds[1m])", "pointillist_stage_seconds"),
        ("sum by (city) (pointillist_camera_tasks)", "city"),
        ('pointillist_camera_tasks{status="online"}', "pointillist_camera_tasks.status"),
        ('pointillist_camera_tasks{phase="asleep"}', "pointillist_camera_tasks.phase=asleep"),
    ],
)
def test_a_name_that_the_contract_lacks_is_noticed(expression: str, stranger: str) -> None:
    assert stranger in unknown_names(expression)


def test_every_metric_of_the_contract_is_on_a_dashboard() -> None:
    shown = {family(name) for panel in SHOWN.values() for query in queries(panel) for name in metric_names(query)}
    assert not {name for name, metric in CONTRACT.items() if metric not in shown}


def test_a_second_monitor_doubles_no_figure() -> None:
    """Every monitor measures the same brokers and audits the same frames."""
    for panel, query in EACH_QUERY:
        if metric_names(query) & OF_EACH_MONITOR:
            assert not re.search(r"\bsum\b(?! by \([^)]*\brole\b)", query), panel["title"]


def test_the_command_writes_the_dashboards_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "--out", str(tmp_path / "dashboards")])
    command.main()
    made = {file.name: file.read_text() for file in (tmp_path / "dashboards").iterdir()}
    assert made == rendered()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "dashboards" / name) for name in rendered()]


def test_the_command_writes_the_dashboards_with_links_to_the_console_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = "https://console.example"
    monkeypatch.setattr(sys, "argv", ["", "--console", f"{console}/", "--out", str(tmp_path)])
    command.main()
    assert {file.name for file in tmp_path.iterdir()} == BOARDS.keys()
    for name, board in BOARDS.items():
        made = json.loads((tmp_path / name).read_text())
        (variable,) = (each for each in made["templating"]["list"] if each["name"] == "console")
        assert (variable["query"], variable["current"]) == (console, {"text": console, "value": console})
        assert made | {"templating": None} == board | {"templating": None}
