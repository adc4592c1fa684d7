"""Charts of the system: from Prometheus, or from the recorder if Prometheus is unreachable, slow or invalid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from consumers.console.data import prometheus as prometheus_module
from consumers.console.data.prometheus import ASKED, POINTS, rows_of, to_charts
from consumers.console.settings import ConsoleSettings
from infra.monitor.alert_notifier import AlertNotifier
from schemas.errors import BrokerError
from tests.consumers.console_rig import ConsoleRig, raise_alert
from tests.consumers.prometheus_stand_in import PrometheusStandIn, running_prometheus
from tests.consumers.recorder_rig import Rig, verdict
from tests.waiting import PATIENCE_S, wait_until

HISTORY = "/system/history?range=hour"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise all time limits for slow machines, unless a test sets one."""
    for name in ("ANSWER_S", "ALL_S", "KEPT_S"):
        monkeypatch.setattr(prometheus_module, name, PATIENCE_S)


@contextmanager
def console_on(folder: Path, url: str) -> Iterator[ConsoleRig]:
    console = ConsoleRig(folder, prometheus=url)
    try:
        yield console
    finally:
        console.close()


def test_charts_are_queried_from_prometheus_by_the_console_only(tmp_path: Path, recorder: Rig) -> None:
    with running_prometheus() as server, console_on(tmp_path, server.url) as console:
        browser = console.browser()
        found = browser.get(HISTORY).json()
        assert (found["source"], found["note"]) == ("prometheus", "From Prometheus.")
        assert set(found["columns"]["rate"]) == {1.5, None} or set(found["columns"]["rate"]) == {1.5}
        assert [series for chart in found["charts"] if "CPU" in chart["title"] for series in chart["series"]] == [
            ["cpu bridge", "bridge"],
            ["cpu recorder", "recorder"],
        ]
        assert len(server.queries) == len(ASKED)
        assert browser.get("/api/v1/system/history?range=hour").json() == found
        assert len(server.queries) == len(ASKED)  # the answer is cached
        assert browser.get("/system/history?range=day").json()["source"] == "prometheus"
        points = [(int(each["end"][0]) - int(each["start"][0])) / int(each["step"][0]) for each in server.queries]
        assert max(points) <= POINTS
        assert browser.get("/system/history?range=year").status_code == 400


def _await_last_query(server: PrometheusStandIn) -> None:
    """Wait until no further query arrives. On a busy machine, one may still come."""
    counts = [-1]

    def unchanged() -> bool:
        counts.append(len(server.queries))
        return counts[-1] == counts[-2]

    wait_until(unchanged, every_s=0.3)


@pytest.mark.parametrize(
    ("mode", "within_s", "words"),
    [
        ("hangs", 0.2, "Prometheus: expected a response within 0.2 s, got none"),
        ("drips", 0.2, "Prometheus: expected a response within 0.2 s, got none"),
        ("nonsense", PATIENCE_S, "Prometheus: expected a response, got"),
        ("refuses", PATIENCE_S, "Prometheus: expected status 200, got 422"),
    ],
)
def test_an_unresponsive_prometheus_is_reported_and_delays_no_page(
    tmp_path: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch, mode: str, within_s: float, words: str
) -> None:
    monkeypatch.setattr(prometheus_module, "ANSWER_S", within_s)
    now_ns = time.time_ns() - 90 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    recorder.verdicts([verdict(0), verdict(1, flagged=True)])
    raise_alert(recorder)
    now_ns += 90 * 10**9
    recorder.verdicts([verdict(2)])  # in a minute that is not complete
    with running_prometheus(mode) as server, console_on(tmp_path, server.url) as console:
        browser = console.browser()
        assert browser.get("/system").status_code == 200
        assert server.queries == []
        found = browser.get(HISTORY).json()
        assert found["source"] == "recorder"
        assert found["note"].startswith(words)
        assert "recorder's own history" in found["note"]
        assert (found["columns"]["alerts"], found["columns"]["rate"]) == ([60], [0.033333])  # 2 in 60 s
        assert browser.get(HISTORY).json()["source"] == "recorder"
        _await_last_query(server)
        asked = [each["query"][0] for each in server.queries]
        assert len(asked) == len(set(asked))  # the failure is cached, too: nothing is asked again


def test_an_unreachable_prometheus_is_reported(tmp_path: Path, recorder: Rig) -> None:
    with console_on(tmp_path, "http://127.0.0.1:1") as console:
        assert "Connection refused" in console.browser().get(HISTORY).json()["note"]


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"status": "error"},
        {"status": "success", "data": {"resultType": "vector", "result": []}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}}]}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "x"]]}]}},
    ],
)
def test_an_invalid_answer_contains_no_series(document: object) -> None:
    with pytest.raises(ValueError, match=r"expected|could not convert"):
        rows_of(document, "role")


def test_only_the_busiest_roles_are_drawn_and_gaps_are_null() -> None:
    found: dict[str, dict[str, dict[int, float]]] = {each.name: {} for each in ASKED}
    found["cpu"] = {f"role-{n}": {0: float(n), 30: 1.0} for n in range(12)}
    made = to_charts(found, 0, 30, 15)
    roles = [name for name in made["columns"] if name.startswith("cpu ")]
    assert len(roles) == 8
    assert "cpu role-11" in roles
    assert made["columns"]["cpu role-11"] == [11.0, None, 1.0]
    assert to_charts({each.name: {} for each in ASKED}, 0, 30, 15)["columns"]["t"] == []


def test_drift_is_drawn_against_its_limit_and_only_where_it_is_measured() -> None:
    found: dict[str, dict[str, dict[int, float]]] = {each.name: {} for each in ASKED}
    found["rate"] = {"": {0: 1.0}}
    assert not [chart for chart in to_charts(found, 0, 30, 15)["charts"] if "limit" in chart]
    found["drift"] = {"pictures": {0: 0.4, 30: 1.2}, "answers": {15: 0.1}}
    made = to_charts(found, 0, 30, 15)
    (chart,) = [chart for chart in made["charts"] if "limit" in chart]
    assert (chart["limit"], chart["series"]) == (1, [["drift answers", "answers"], ["drift pictures", "pictures"]])
    assert made["columns"]["drift pictures"] == [0.4, None, 1.2]


def test_a_local_prometheus_or_alertmanager_is_reached_without_the_proxy(
    recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    prometheus_module._client.cache_clear()
    with running_prometheus("well") as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            assert prometheus_module._by_role(url, "up") != {}
            notifier = AlertNotifier(url, recorder.url)
            assert notifier._request("GET", "/silences").is_success
            notifier.close()
    prometheus_module._client.cache_clear()


@pytest.mark.parametrize("url", ["prometheus:9090", "file:///etc/passwd", "http://user:secret@host"])
def test_an_invalid_address_is_rejected(console: ConsoleRig, url: str) -> None:
    with pytest.raises(ValidationError):
        ConsoleSettings(**console.context.settings.model_dump() | {"prometheus": url})


@pytest.mark.parametrize(
    "document",
    [[], {"status": "error"}, {"status": "success", "data": {"resultType": "matrix", "result": []}}],
)
def test_an_answer_of_another_form_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, document: object) -> None:
    monkeypatch.setattr(prometheus_module, "fetch", lambda _: document)
    with pytest.raises(BrokerError, match=r"^Prometheus: expected a response of `query`, got another document$"):
        prometheus_module._by_role("http://127.0.0.1:1", "up")


def test_series_without_a_role_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    series = [{"metric": {"role": "bridge"}, "value": [1, "2.5"]}, {"metric": {}, "value": [1, "9"]}]
    document = {"status": "success", "data": {"resultType": "vector", "result": series}}
    monkeypatch.setattr(prometheus_module, "fetch", lambda _: document)
    assert prometheus_module._by_role("http://127.0.0.1:1", "up") == {"bridge": 2.5}
