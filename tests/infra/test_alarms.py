"""From a metric to a person: real Prometheus, real Alertmanager, a real receiver of webhooks."""

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

from benchmarks.harness.webhook import Webhook
from consumers.recorder.metrics import Meters, places_of
from infra.local.alertmanager import Alertmanager
from infra.local.ports import free_port
from infra.local.prometheus import Prometheus
from infra.process.metrics_server import role_registry, serve
from infra.prometheus.runbooks import PAGE
from schemas.runtime.health import Health
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import CAMERA, Rig, verdict
from tests.waiting import wait_until

pytestmark = pytest.mark.brokers
CONSOLE = "http://watch.example:4711"
WITHIN_S = 30.0
"""From the sticker to the person."""


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
    made = Alertmanager(folder, receivers=file, console=console)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def test_an_alert_arrives_at_a_webhook_within_half_a_minute_of_the_first_frame_with_a_sticker(
    tmp_path: Path, webhook: Webhook
) -> None:
    rig = Rig(tmp_path, f"sqlite:///{tmp_path / 'recorder.sqlite'}")
    registry = role_registry("recorder")
    meters = Meters(registry, places_of(rig.settings))
    address = ("127.0.0.1", free_port())
    server = serve(registry, Health(), address)
    pages = ConsoleRig(tmp_path)
    pages.context.runbooks = PAGE
    prometheus = Prometheus(tmp_path, console=CONSOLE)
    try:
        with alertmanager(tmp_path, receivers(tmp_path, webhook), CONSOLE) as told:
            prometheus.tell(told.listen)
            prometheus.scrape({"recorder": {"metrics": f"{address[0]}:{address[1]}"}})
            prometheus.start()
            meters.take(rig.verdicts(verdict(seq, flagged=False) for seq in range(40)))
            scraped = f"{prometheus.url}/api/v1/query?query=pointillist_recorded_frames_total%3E=40"
            wait_until(lambda: ask(scraped)["data"]["result"], "a scrape before the sticker")
            stuck_s = time.time()
            meters.take(rig.verdicts(verdict(seq, flagged=True) for seq in range(40, 52)))
            wait_until(lambda: "PointillistBackdoor" in webhook.names(), "the alert", WITHIN_S)
            [arrived_s, *_] = [at for at, document in webhook.received if "Backdoor" in json.dumps(document)]
            assert arrived_s - stuck_s <= WITHIN_S
            (alert,) = (each for each in webhook.alerts() if each["labels"]["alertname"] == "PointillistBackdoor")
            assert alert["labels"]["camera_id"] == CAMERA
            assert not {"runbooks", "console"} & alert["labels"].keys()
            assert opened(pages, alert["annotations"]["console_url"]).url.query == f"camera={CAMERA}".encode()
            runbook = alert["annotations"]["runbook_url"]
            assert f'<h3 id="{runbook.partition("#")[2]}">PointillistBackdoor</h3>' in opened(pages, runbook).text
            for _, document in webhook.received:
                opened(pages, document["externalURL"])
                opened(pages, document["alerts"][0]["generatorURL"])
    finally:
        pages.close()
        prometheus.stop()
        server.shutdown()
        server.server_close()
        rig.close()


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
    urllib.request.urlopen(request, timeout=5).close()


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
        wait_until(lambda: {"PointillistRoleDown", "PointillistFramesShed"} <= set(webhook.names()), "what is told")
        states = {
            (each["labels"]["alertname"], each["labels"].get("camera_id")): each["status"]["state"]
            for each in ask(f"{told.url}/api/v2/alerts")
        }
    silent = {("PointillistSpoolAgeing", None), ("PointillistCameraSuspect", "site/door")}
    assert {alert for alert, state in states.items() if state == "suppressed"} == silent
    assert {(each["labels"]["alertname"], each["labels"].get("camera_id")) for each in webhook.alerts()} == (
        states.keys() - silent
    )
