"""The way of an alert or a metric to a webhook, with a real Prometheus and a real Alertmanager."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from httpx2 import Response

from benchmarks.harness.services import started
from benchmarks.harness.webhook import Webhook
from infra.local.alertmanager import Alertmanager
from infra.local.ports import free_port
from infra.local.prometheus import Prometheus
from infra.monitor.alert_notifier import ALERT_NAME, REPEAT_S, AlertNotifier
from infra.process.metrics_server import role_registry, serve
from infra.prometheus.runbooks import PAGE
from schemas import metrics
from schemas.errors import BrokerError
from schemas.runtime.health import Health
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import CAMERA, PNG, Rig, verdict
from tests.fetching import fetch, fetch_json
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.brokers
CONSOLE = "http://watch.example:4711"
WITHIN_S = PATIENCE_S
"""Longest delay from an alert to its webhook, on a busy machine."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as receiver:
        yield receiver


def receivers(folder: Path, webhook: Webhook) -> Path:
    file = folder / "receivers.yml"
    file.write_text(yaml.safe_dump({"receivers": [{"name": "duty", "webhook_configs": [{"url": webhook.url}]}]}))
    return file


@contextmanager
def alertmanager(folder: Path, file: Path, console: str | None = None) -> Iterator[Alertmanager]:
    with started(Alertmanager(folder, receivers=file, console=console)) as manager:
        yield manager


def posted(webhook: Webhook, status: str, name: str = ALERT_NAME) -> list[dict[str, Any]]:
    """Return the alerts of one name and status from all messages, oldest first."""
    return [
        alert
        for _, document in list(webhook.received)
        for alert in document["alerts"]
        if (alert["labels"]["alertname"], alert["status"]) == (name, status)
    ]


def open_alerts(manager: Alertmanager) -> set[str]:
    """Return the ids of the backdoor alerts that are active in Alertmanager."""
    return {each["labels"]["alert_id"] for each in fetch_json(f"{manager.url}/api/v2/alerts")}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    found = Rig(tmp_path, f"sqlite:///{tmp_path / 'records.sqlite'}")
    yield found
    found.close()


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[ConsoleRig]:
    console = ConsoleRig(tmp_path)
    console.context.runbooks = PAGE
    yield console
    console.close()


@contextmanager
def notifier(manager: Alertmanager, rig: Rig, reviews: str = "") -> Iterator[AlertNotifier]:
    sender = AlertNotifier(manager.url, rig.url, console=CONSOLE, reviews=reviews)
    try:
        yield sender
    finally:
        sender.close()


def raise_alert(rig: Rig, camera: str = CAMERA) -> str:
    """Record flagged verdicts of a camera and return the id of their alert."""
    [alert] = rig.verdicts([verdict(seq, flagged=seq >= 40) for seq in range(52)], camera).alerts
    return alert.alert_id


def test_an_alert_reaches_a_webhook_with_its_links_and_ends_when_it_is_closed(
    tmp_path: Path, webhook: Webhook, rig: Rig, pages: ConsoleRig
) -> None:
    with (
        alertmanager(tmp_path, receivers(tmp_path, webhook), CONSOLE) as manager,
        notifier(manager, rig, pages.context.settings.store) as sender,
    ):
        sender.notify()
        alert_id = raise_alert(rig)
        for _ in range(3):  # repeated posts count as one alert
            sender.notify()
        wait_until(lambda: posted(webhook, "firing"), "the alert", WITHIN_S)
        [alert] = posted(webhook, "firing")
        assert alert["labels"] == {
            "alertname": ALERT_NAME, "severity": "critical", "camera_id": CAMERA, "site": "lab", "kind": "strip",
            "alert_id": alert_id,
        }  # fmt: skip
        notes = alert["annotations"]
        assert notes["summary"].startswith(f"{CAMERA}: The network answers the same")
        page = open_page(pages, notes["console_url"]).text
        assert (page.count("<article"), page.count(f'id="alert-{alert_id}"')) == (1, 1)
        assert open_page(pages, notes["thumbnail_url"]).content == PNG
        assert (
            f'<h3 id="{notes["runbook_url"].partition("#")[2]}">{ALERT_NAME}</h3>'
            in open_page(pages, notes["runbook_url"]).text
        )
        assert alert["generatorURL"] == notes["console_url"]
        for _, document in webhook.received:
            open_page(pages, document["externalURL"])
        fields = {"csrf": pages.csrf(), "mute": "1h", "reason": "repairs"}
        for fields["mute"], state in (("1h", "suppressed"), ("end", "active")):
            assert pages.browser().post(f"/alerts/{alert_id}", data=fields).status_code == 303
            sender.notify()
            assert [each["status"]["state"] for each in fetch_json(f"{manager.url}/api/v2/alerts")] == [state]
        fields = {"csrf": pages.csrf(), "state": "closed"}
        assert pages.browser().post(f"/alerts/{alert_id}", data=fields).status_code == 303
        sender.notify()
        wait_until(lambda: posted(webhook, "resolved"), "the end of the alert", WITHIN_S)
        assert [each["labels"]["alert_id"] for each in posted(webhook, "resolved")] == [alert_id]
        assert "closed" in open_page(pages, notes["console_url"]).text


def test_a_second_notifier_adds_no_alert_and_a_restarted_alertmanager_gets_it_again(
    tmp_path: Path, webhook: Webhook, rig: Rig
) -> None:
    now_s = 0.0
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager:
        with notifier(manager, rig) as first, notifier(manager, rig) as second:
            alert_id = raise_alert(rig)
            first.notify()
            second.notify()
            assert open_alerts(manager) == {alert_id}
        third = AlertNotifier(manager.url, rig.url, clock_s=lambda: now_s)
        third.notify()
    now_s += REPEAT_S
    with pytest.raises(BrokerError, match="Alertmanager: expected an answer"):
        third.notify()
    manager.start()
    try:
        third.notify()
        assert open_alerts(manager) == {alert_id}
    finally:
        third.close()
        manager.stop()


def test_an_alert_without_decisions_of_the_console_ends_after_its_episode(
    tmp_path: Path, webhook: Webhook, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager, notifier(manager, rig) as sender:
        sender.notify()
        alert_id = raise_alert(rig)
        sender.notify()
        assert open_alerts(manager) == {alert_id}
        monkeypatch.setattr("infra.monitor.alert_notifier.EPISODE_MS", 0)
        sender.notify()
        assert open_alerts(manager) == set()


def test_an_alert_of_a_recorder_with_a_fast_clock_is_posted_and_ended(
    tmp_path: Path, webhook: Webhook, rig: Rig, pages: ConsoleRig
) -> None:
    reviews = pages.context.settings.store
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager, notifier(manager, rig, reviews) as sender:
        ahead_ns = time.time_ns() + 2 * 3600 * 10**9
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(time, "time_ns", lambda: ahead_ns)
            alert_id = raise_alert(rig)
        sender.notify()
        assert open_alerts(manager) == {alert_id}
        pages.context.store.review([alert_id], "closed", "anna")
        sender.notify()
        assert open_alerts(manager) == set()


def test_a_firing_rule_of_prometheus_reaches_a_webhook_with_its_links(
    tmp_path: Path, webhook: Webhook, pages: ConsoleRig
) -> None:
    registry, address = role_registry("recorder"), ("127.0.0.1", free_port())
    server = serve(registry, Health(), address)
    prometheus = Prometheus(tmp_path, console=CONSOLE)
    name = "PointillistCameraSuspect"
    try:
        with alertmanager(tmp_path, receivers(tmp_path, webhook), CONSOLE) as manager:
            prometheus.set_alertmanager(manager.listen)
            prometheus.scrape({"recorder": {"metrics": f"{address[0]}:{address[1]}"}})
            prometheus.start()
            metrics.CAMERA_EVIDENCE.on(registry).labels(CAMERA).set(1)
            wait_until(lambda: posted(webhook, "firing", name), "the alert", WITHIN_S)
            alert = posted(webhook, "firing", name)[0]
            assert alert["labels"]["camera_id"] == CAMERA
            assert not {"runbooks", "console"} & alert["labels"].keys()
            assert open_page(pages, alert["annotations"]["console_url"]).url.query == f"camera={CAMERA}".encode()
            runbook = alert["annotations"]["runbook_url"]
            assert f'<h3 id="{runbook.partition("#")[2]}">{name}</h3>' in open_page(pages, runbook).text
            for _, document in webhook.received:
                open_page(pages, document["externalURL"])
                open_page(pages, document["alerts"][0]["generatorURL"])
    finally:
        prometheus.stop()
        server.shutdown()
        server.server_close()


def open_page(pages: ConsoleRig, url: str) -> Response:
    """Open the page of the console that a message links to."""
    assert url.startswith(CONSOLE)
    answer = pages.browser().get(url.removeprefix(CONSOLE), follow_redirects=True)
    assert answer.status_code == 200, url
    return answer


def firing_alert(name: str, **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "severity": "critical", **labels}, "annotations": {"summary": name}}


def post(manager: Alertmanager, *alerts: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{manager.url}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
    )
    fetch(request)


def test_alerts_that_follow_from_a_role_that_is_down_are_suppressed_and_lost_frames_are_not(
    tmp_path: Path, webhook: Webhook
) -> None:
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager:
        post(
            manager,
            firing_alert("PointillistRoleDown", role="bridge-2"),
            firing_alert("PointillistSpoolAgeing", role="fleet"),
            firing_alert("PointillistFramesShed", role="fleet"),
            firing_alert("PointillistBackdoor", camera_id="site/door"),
            firing_alert("PointillistCameraSuspect", camera_id="site/door"),
            firing_alert("PointillistCameraSuspect", camera_id="site/gate"),
        )
        wait_until(
            lambda: (
                {each["labels"].get("camera_id") for each in webhook.alerts()} >= {"site/door", "site/gate"}
                and {"PointillistRoleDown", "PointillistFramesShed"} <= set(webhook.names())
            ),
            "the alerts that are not suppressed",
        )
        states = {
            (each["labels"]["alertname"], each["labels"].get("camera_id")): each["status"]["state"]
            for each in fetch_json(f"{manager.url}/api/v2/alerts")
        }
    suppressed = {("PointillistSpoolAgeing", None), ("PointillistCameraSuspect", "site/door")}
    assert {alert for alert, state in states.items() if state == "suppressed"} == suppressed
    assert {(each["labels"]["alertname"], each["labels"].get("camera_id")) for each in webhook.alerts()} == (
        states.keys() - suppressed
    )
