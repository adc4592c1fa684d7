"""From an alert or a metric to a person: real Prometheus, real Alertmanager, a real receiver of webhooks."""

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
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.brokers
CONSOLE = "http://watch.example:4711"
WITHIN_S = PATIENCE_S
"""Longest delay from a sticker to a person, on a busy machine."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as made:
        yield made


def receivers(folder: Path, webhook: Webhook) -> Path:
    file = folder / "receivers.yml"
    file.write_text(yaml.safe_dump({"receivers": [{"name": "duty", "webhook_configs": [{"url": webhook.url}]}]}))
    return file


@contextmanager
def alertmanager(folder: Path, file: Path, console: str | None = None) -> Iterator[Alertmanager]:
    with started(Alertmanager(folder, receivers=file, console=console)) as made:
        yield made


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def posted(webhook: Webhook, status: str, name: str = ALERT_NAME) -> list[dict[str, Any]]:
    """The alerts of one name and status in all messages, oldest first."""
    return [
        alert
        for _, document in list(webhook.received)
        for alert in document["alerts"]
        if (alert["labels"]["alertname"], alert["status"]) == (name, status)
    ]


def open_alerts(manager: Alertmanager) -> set[str]:
    """The ids of the backdoor alerts that are active in Alertmanager."""
    return {each["labels"]["alert_id"] for each in ask(f"{manager.url}/api/v2/alerts")}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, f"sqlite:///{tmp_path / 'records.sqlite'}")
    yield made
    made.close()


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[ConsoleRig]:
    made = ConsoleRig(tmp_path)
    made.context.runbooks = PAGE
    yield made
    made.close()


@contextmanager
def notifier(manager: Alertmanager, rig: Rig, reviews: str = "") -> Iterator[AlertNotifier]:
    made = AlertNotifier(manager.url, rig.url, console=CONSOLE, reviews=reviews)
    try:
        yield made
    finally:
        made.close()


def stick(rig: Rig, camera: str = CAMERA) -> str:
    """Put a sticker in front of a camera. Return the id of its alert."""
    [alert] = rig.verdicts([verdict(seq, flagged=seq >= 40) for seq in range(52)], camera).alerts
    return alert.alert_id


def test_an_alert_reaches_a_webhook_with_its_id_its_page_and_its_thumbnail_and_ends_when_it_is_closed(
    tmp_path: Path, webhook: Webhook, rig: Rig, pages: ConsoleRig
) -> None:
    with (
        alertmanager(tmp_path, receivers(tmp_path, webhook), CONSOLE) as manager,
        notifier(manager, rig, pages.context.settings.store) as notifies,
    ):
        notifies.notify()
        alert_id = stick(rig)
        for _ in range(3):  # repeated posts are one alert
            notifies.notify()
        wait_until(lambda: posted(webhook, "firing"), "the alert", WITHIN_S)
        [alert] = posted(webhook, "firing")
        assert alert["labels"] == {
            "alertname": ALERT_NAME, "severity": "critical", "camera_id": CAMERA, "site": "lab", "kind": "strip",
            "alert_id": alert_id,
        }  # fmt: skip
        notes = alert["annotations"]
        assert notes["summary"].startswith(f"{CAMERA}: The network answers the same")
        page = opened(pages, notes["console_url"]).text
        assert (page.count("<article"), page.count(f'id="alert-{alert_id}"')) == (1, 1)
        assert opened(pages, notes["thumbnail_url"]).content == PNG
        assert (
            f'<h3 id="{notes["runbook_url"].partition("#")[2]}">{ALERT_NAME}</h3>'
            in opened(pages, notes["runbook_url"]).text
        )
        assert alert["generatorURL"] == notes["console_url"]
        for _, document in webhook.received:
            opened(pages, document["externalURL"])
        fields = {"csrf": pages.csrf(), "mute": "1h", "reason": "repairs"}
        for fields["mute"], state in (("1h", "suppressed"), ("end", "active")):
            assert pages.browser().post(f"/alerts/{alert_id}", data=fields).status_code == 303
            notifies.notify()
            assert [each["status"]["state"] for each in ask(f"{manager.url}/api/v2/alerts")] == [state]
        fields = {"csrf": pages.csrf(), "state": "closed"}
        assert pages.browser().post(f"/alerts/{alert_id}", data=fields).status_code == 303
        notifies.notify()
        wait_until(lambda: posted(webhook, "resolved"), "the end of the alert", WITHIN_S)
        assert [each["labels"]["alert_id"] for each in posted(webhook, "resolved")] == [alert_id]
        assert "closed" in opened(pages, notes["console_url"]).text


def test_another_notifier_posts_the_same_alert_and_an_alertmanager_that_restarts_gets_it_again(
    tmp_path: Path, webhook: Webhook, rig: Rig
) -> None:
    now_s = 0.0
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager:
        with notifier(manager, rig) as first, notifier(manager, rig) as second:
            alert_id = stick(rig)
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


def test_without_the_consoles_decisions_an_alert_ends_by_itself(
    tmp_path: Path, webhook: Webhook, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager, notifier(manager, rig) as notifies:
        notifies.notify()
        alert_id = stick(rig)
        notifies.notify()
        assert open_alerts(manager) == {alert_id}
        monkeypatch.setattr("infra.monitor.alert_notifier.EPISODE_MS", 0)
        notifies.notify()
        assert open_alerts(manager) == set()


def test_an_alert_of_a_recorder_whose_clock_is_ahead_is_posted_and_ended(
    tmp_path: Path, webhook: Webhook, rig: Rig, pages: ConsoleRig
) -> None:
    reviews = pages.context.settings.store
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as manager, notifier(manager, rig, reviews) as notifies:
        ahead_ns = time.time_ns() + 2 * 3600 * 10**9
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(time, "time_ns", lambda: ahead_ns)
            alert_id = stick(rig)
        notifies.notify()
        assert open_alerts(manager) == {alert_id}
        pages.context.store.review([alert_id], "closed", "anna")
        notifies.notify()
        assert open_alerts(manager) == set()


def test_a_rule_that_fires_leads_from_prometheus_to_a_webhook(
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
            assert opened(pages, alert["annotations"]["console_url"]).url.query == f"camera={CAMERA}".encode()
            runbook = alert["annotations"]["runbook_url"]
            assert f'<h3 id="{runbook.partition("#")[2]}">{name}</h3>' in opened(pages, runbook).text
            for _, document in webhook.received:
                opened(pages, document["externalURL"])
                opened(pages, document["alerts"][0]["generatorURL"])
    finally:
        prometheus.stop()
        server.shutdown()
        server.server_close()


def opened(pages: ConsoleRig, url: str) -> Response:
    """The page of the console to which a message leads."""
    assert url.startswith(CONSOLE)
    answer = pages.browser().get(url.removeprefix(CONSOLE), follow_redirects=True)
    assert answer.status_code == 200, url
    return answer


def raised(name: str, **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "severity": "critical", **labels}, "annotations": {"summary": name}}


def post(told: Alertmanager, *alerts: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{told.url}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()


def test_what_follows_from_a_role_that_is_down_is_not_told_and_what_is_lost_is(
    tmp_path: Path, webhook: Webhook
) -> None:
    with alertmanager(tmp_path, receivers(tmp_path, webhook)) as told:
        post(
            told,
            raised("PointillistRoleDown", role="bridge-2"),
            raised("PointillistSpoolAgeing", role="fleet"),
            raised("PointillistFramesShed", role="fleet"),
            raised("PointillistBackdoor", camera_id="site/door"),
            raised("PointillistCameraSuspect", camera_id="site/door"),
            raised("PointillistCameraSuspect", camera_id="site/gate"),
        )
        wait_until(
            lambda: (
                {each["labels"].get("camera_id") for each in webhook.alerts()} >= {"site/door", "site/gate"}
                and {"PointillistRoleDown", "PointillistFramesShed"} <= set(webhook.names())
            ),
            "what is told",
        )
        states = {
            (each["labels"]["alertname"], each["labels"].get("camera_id")): each["status"]["state"]
            for each in ask(f"{told.url}/api/v2/alerts")
        }
    silent = {("PointillistSpoolAgeing", None), ("PointillistCameraSuspect", "site/door")}
    assert {alert for alert, state in states.items() if state == "suppressed"} == silent
    assert {(each["labels"]["alertname"], each["labels"].get("camera_id")) for each in webhook.alerts()} == (
        states.keys() - silent
    )
