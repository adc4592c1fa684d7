from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.grafana.build import FOLDER, rendered
from tests.infra.promql_names import CONTRACT, family, named_metrics, strangers

PROVISIONING = FOLDER.parent / "provisioning"
COLUMNS = 24
BOARDS = {name: json.loads(text) for name, text in rendered().items()}
SHOWN: dict[str, dict[str, Any]] = {
    f"{Path(name).stem}-{panel['title']}": panel for name, board in BOARDS.items() for panel in board["panels"]
}
PANELS = [pytest.param(panel, id=title) for title, panel in SHOWN.items()]


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_the_json_in_the_repository_is_what_the_code_makes() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == rendered()


def test_there_are_the_three_dashboards_each_with_its_own_uid() -> None:
    assert {board["uid"] for board in BOARDS.values()} == {
        "pointillist-fleet", "pointillist-stages", "pointillist-resources",
    }  # fmt: skip
    assert all(board["title"] and board["description"] and board["panels"] for board in BOARDS.values())


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert queries(panel)
    assert all(queries(panel))


@pytest.mark.parametrize("panel", PANELS)
def test_the_queries_of_a_panel_have_letters_of_their_own_and_the_provisioned_source(panel: dict[str, Any]) -> None:
    provisioned = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    sources = [{"type": source["type"], "uid": source["uid"]} for source in provisioned]
    letters = [target["refId"] for target in panel["targets"]]
    assert all(letters)
    assert len(set(letters)) == len(letters)
    assert panel["datasource"] in sources
    assert all(target["datasource"] in sources for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_every_query_names_what_the_contract_has(panel: dict[str, Any]) -> None:
    assert [stranger for query in queries(panel) for stranger in strangers(query)] == []


@pytest.mark.parametrize("panel", PANELS)
def test_a_legend_names_labels_that_its_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        legend = target.get("legendFormat", "")
        labels = [part.split("}}")[0].strip() for part in legend.split("{{")[1:]]
        assert all(label in target["expr"] for label in labels)


@pytest.mark.parametrize(
    ("expression", "stranger"),
    [
        ("sum(pointillist_camera_total)", "pointillist_camera_total"),
        ("rate(pointillist_stage_seconds[1m])", "pointillist_stage_seconds"),
        ("sum by (city) (pointillist_cameras)", "city"),
        ('pointillist_cameras{status="online"}', "pointillist_cameras.status"),
        ('pointillist_cameras{state="asleep"}', "pointillist_cameras.state=asleep"),
    ],
)
def test_a_name_that_the_contract_lacks_is_noticed(expression: str, stranger: str) -> None:
    assert stranger in strangers(expression)


def test_every_metric_of_the_contract_is_on_a_dashboard() -> None:
    shown = {family(name) for panel in SHOWN.values() for query in queries(panel) for name in named_metrics(query)}
    assert [name for name, metric in CONTRACT.items() if metric not in shown] == []


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_their_own_ids_and_neither_overlap_nor_leave_gaps_in_a_row(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= COLUMNS for at in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart
    for y in {at["y"] for at in places}:
        assert sum(at["w"] for at in places if at["y"] == y) == COLUMNS


def test_the_provisioned_folder_is_read_only_as_the_dashboards_are() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "pointillist.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
    assert not any(board["editable"] for board in BOARDS.values())
