"""Monitoring of a healthy fleet: a real Prometheus answers all our queries. `test_up` uses the fleet afterwards."""

from __future__ import annotations

import contextlib
import math
import re
import time

import pytest

from benchmarks.harness.collector import ReceivedSpan
from infra.audit.report import attacked_by_camera
from infra.state_folder import Layout
from schemas import metrics as m
from tests.fetching import fetch, fetch_json
from tests.infra.alert_rules import ALERTS
from tests.system.monitored_fleet import ANSWER_S, BOARDS, VARIABLES, MonitoredFleet, interpolate
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(500)]
PANELS = {
    f"{name}: {panel['title']}: {target['expr']}": target["expr"]
    for name, board in BOARDS.items()
    for panel in board["panels"]
    for target in panel.get("targets", [])
    # These metrics need cameras with measure_codec (they compare one frame in a hundred), a rollout, and a bundle with
    # a reference for drift.
    if not any(metric.name in target["expr"] for metric in (m.CAMERA_COMPARED, m.ROLLOUT_OUTCOME, m.DRIFT))
}
SPEED = {"PointillistLatencyHigh", "PointillistProcessorLag", "PointillistRecorderLag", "PointillistSpoolAgeing"}
"""Alerts that a slow machine may raise."""
MARKS = {mark["name"]: mark["expr"] for mark in BOARDS["fleet.json"]["annotations"]["list"]}


def test_every_panel_shows_numbers(fleet: MonitoredFleet) -> None:
    fleet.await_answers({name: interpolate(expression) for name, expression in PANELS.items()})


def test_the_dashboard_variables_list_the_sites_cameras_and_roles(fleet: MonitoredFleet) -> None:
    assert fleet.variable_values("site") == ["local"]
    assert fleet.variable_values("camera", site="local") == [f"cam-{index}" for index in range(4)]
    assert fleet.variable_values("camera", site="elsewhere") == []
    assert fleet.variable_values("role") == sorted(fleet.roles_by_address().values())


def test_every_panel_query_is_answered_for_each_value_of_its_variables(fleet: MonitoredFleet) -> None:
    def unanswered() -> list[tuple[str, str, list[float]]]:
        return [each for name in VARIABLES for each in _unanswered(fleet, name)]

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not unanswered(), within_s=ANSWER_S, every_s=1.0)
    assert unanswered() == []


def _unanswered(fleet: MonitoredFleet, variable: str) -> list[tuple[str, str, list[float]]]:
    """Return the panel, the variable's value and the answer of each query without an answer of numbers only."""
    named = {title: expression for title, expression in PANELS.items() if f"${variable}" in expression}
    assert named
    answers = {
        (title, value): fleet.values(interpolate(expression, **{variable: value}))
        for value in fleet.variable_values(variable)
        for title, expression in named.items()
    }
    answered = {title for (title, _), answer in answers.items() if answer}
    return [
        (title, value, answer)
        for (title, value), answer in answers.items()
        # A role lacks the metrics of other roles. A camera has all metrics of cameras.
        if not all(map(math.isfinite, answer)) or not (answer or (variable == "role" and title in answered))
    ]


def test_the_annotations_of_the_panels_have_data(fleet: MonitoredFleet) -> None:
    wait_until(
        lambda: len(fleet.values(MARKS["Restarts"])) == len(fleet.roles_by_address()), within_s=ANSWER_S, every_s=0.5
    )
    started = fleet.values(MARKS["Restarts"])
    assert all(abs(value / 1000 - time.time()) < 3600 for value in started)
    changed = f"max_over_time(({MARKS['Model changes']})[10m:1s])"
    assert fleet.values(changed)
    fleet.values(MARKS["Alerts"])


def test_wrong_verdicts_have_their_frames_as_exemplars(fleet: MonitoredFleet) -> None:
    def frames() -> list[dict[str, str]]:
        now = time.time()
        query = (
            'pointillist_camera_truth_frames_total{result="wrong"} or pointillist_truth_frames_total{result="wrong"}'
        )
        found = fleet.ask("query_exemplars", query=query, start=f"{now - 600:.0f}", end=f"{now:.0f}")
        return [each["labels"] for series in found for each in series["exemplars"]]

    shown = frames()  # before the count, which may rise meanwhile
    wrong = fleet.values('sum(max_over_time(pointillist_truth_frames_total{result="wrong"}[1m]))')
    if wrong == [0.0]:  # without a wrong verdict there is no frame to show
        assert shown == []
        return
    wait_until(frames, "a frame", within_s=ANSWER_S, every_s=0.5)
    assert all(frame["camera_id"].startswith("local/cam-") for frame in frames())


def test_a_sampled_frame_is_one_trace_from_the_camera_to_the_recorder(fleet: MonitoredFleet) -> None:
    roles = ("camera", "bridge", "processor", "recorder")
    steps = {
        "camera": {"capture", "seal", "spool", "wait", "publish"},
        "bridge": {"wait", "publish"},
        "processor": {"wait", "classify", "strip", "publish"},
        "recorder": {"wait", "store"},
    }

    def is_clean(spans: list[ReceivedSpan]) -> bool:
        """Return whether each role has reported once, with all its steps. A repeated frame is traced again."""
        own = [span for span in spans if span.name in roles]
        within = {each.span_id: {span.name for span in spans if span.parent_id == each.span_id} for each in own}
        return sorted(span.name for span in own) == sorted(roles) and all(
            within[each.span_id] - {*roles} == steps[each.name] for each in own
        )

    def complete_trace() -> list[ReceivedSpan]:
        """Return the spans of a probe for which all roles have reported."""
        return next((spans for spans in fleet.collector.traces().values() if is_clean(spans)), [])

    wait_until(complete_trace, "the trace of a probe", within_s=ANSWER_S, every_s=0.5)
    spans = complete_trace()
    by_name = {span.name: span for span in spans if span.name in roles}
    path = [by_name[role] for role in roles]
    assert [span.parent_id for span in path] == ["", *(span.span_id for span in path[:-1])]
    assert [span.service for span in path] == [
        f"pointillist-{name}" for name in ("fleet", "bridge", "processor", "recorder")
    ]
    assert len({span.frame for span in spans}) == 1
    assert len({span.span_id for span in spans}) == len(spans)
    assert not any(span.incomplete for span in spans)
    for role in roles:
        own = by_name[role]
        within = [span for span in spans if span.parent_id == own.span_id and span.name not in roles]
        assert {span.name for span in within} == steps[role]
        assert all(own.began_ns <= span.began_ns <= span.ended_ns <= own.ended_ns for span in within)
    starts = [span.began_ns for span in path]
    assert starts == sorted(starts)
    assert path[0].frame.startswith("local/cam-")


def test_only_a_share_of_the_frames_is_traced(fleet: MonitoredFleet) -> None:
    recorded = sum(fleet.values("sum(max_over_time(pointillist_recorded_frames_total{outcome='recorded'}[1m]))"))
    traced = sum(span.name == "recorder" for span in list(fleet.collector.received))
    assert 0 < traced < recorded / 2


def test_the_compared_expression_of_every_alert_has_numbers(fleet: MonitoredFleet) -> None:
    found = {name: re.fullmatch(r"(.+) [<>] [0-9.]+", rule["expr"]) for name, rule in ALERTS.items()}
    left = {name: match[1] for name, match in found.items() if match}
    assert left.keys() == ALERTS.keys()
    # The first metric needs a bundle with a reference for drift. The second compares only in a cluster of pods.
    not_applicable = (m.DRIFT.name, 'pod!=""')
    fleet.await_answers(
        {
            name: expression
            for name, expression in left.items()
            if not any(each in expression for each in not_applicable)
        }
    )


def test_only_the_attacked_camera_has_an_accuracy_under_attack(fleet: MonitoredFleet) -> None:
    def frames() -> dict[tuple[str, str], float]:
        found = fleet.ask("query", query='pointillist_camera_truth_frames_total{result="correct"}')["result"]
        return {(each["metric"]["camera_id"], each["metric"]["picture"]): float(each["value"][1]) for each in found}

    camera = "local/cam-1"
    expected = {(camera, "attacked"), (camera, "clean")}
    wait_until(
        lambda: frames().keys() == expected and frames().get((camera, "attacked"), 0) >= 20,
        "attacked and clean pictures of the attacked camera alone", within_s=ANSWER_S, every_s=0.5,
    )  # fmt: skip
    (recorded,) = (attacked_by_camera(Layout(fleet.state).database_url) or {}).values()
    assert (recorded["frames"] or 0) >= 20
    assert (recorded["accuracy"] or 0) >= 0.9


def test_all_rules_are_loaded_and_none_fails(fleet: MonitoredFleet) -> None:
    rules = [rule for group in fleet.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == ALERTS.keys()
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


def test_every_role_is_a_target_and_answers(fleet: MonitoredFleet) -> None:
    found: dict[str, str] = {}

    def all_up() -> bool:
        targets = fleet.ask("targets", state="active")["activeTargets"]
        found.clear()
        found.update({target["labels"]["role"]: target["lastError"] for target in targets if target["health"] != "up"})
        labels = {target["labels"]["instance"]: target["labels"]["role"] for target in targets}
        return labels == fleet.roles_by_address() and not found

    with contextlib.suppress(AssertionError):
        wait_until(all_up, within_s=ANSWER_S, every_s=0.5)
    assert all_up(), found


def test_the_console_draws_its_charts_from_this_prometheus(fleet: MonitoredFleet) -> None:
    address = f"http://{fleet.address('console')}/system/history?range=hour"
    expected = {"rate", "p50", "p99", "lag", "recorder_lag", "saved", "accuracy", "cpu fleet", "cpu processor-1"}
    drawn: set[str] = set()

    def has_all_columns() -> bool:
        found = fetch_json(address)
        if found["source"] != "prometheus":  # the console first waits a few seconds for Prometheus
            return False
        drawn.update(name for name, column in found["columns"].items() if any(value is not None for value in column))
        return drawn >= expected

    with contextlib.suppress(AssertionError):
        wait_until(has_all_columns, within_s=ANSWER_S, every_s=2.0)
    assert expected - drawn == set()


def test_prometheus_sends_alerts_to_the_alertmanager_of_the_run(fleet: MonitoredFleet) -> None:
    address = fleet.address("alertmanager")
    wait_until(
        lambda: (
            [each["url"] for each in fleet.ask("alertmanagers")["activeAlertmanagers"]]
            == [f"http://{address}/api/v2/alerts"]
        ),
        within_s=ANSWER_S,
        every_s=0.5,
    )


def test_no_alert_fires_for_a_healthy_fleet(fleet: MonitoredFleet) -> None:
    alerts = fleet.ask("alerts")["alerts"]
    firing = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
    assert [labels for labels in firing if labels["alertname"] not in SPEED] == []


def test_the_console_shows_every_camera_and_its_picture(fleet: MonitoredFleet) -> None:
    console = f"http://{fleet.address('console')}"
    names = {card["name"] for card in fetch_json(f"{console}/api/v1/cameras")["cameras"]}
    assert names == {f"local/cam-{index}" for index in range(4)}
    assert fetch(f"{console}/picture/local/cam-0.jpg").startswith(b"\xff\xd8")
    assert fleet.system.roles()["recorder"]["listen"] is None  # the recorder serves metrics only
