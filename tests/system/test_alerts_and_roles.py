"""The sticker drill as an operator meets it: one alert, a message that leads to the console, and a role that hangs."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from benchmarks.harness.system import RunningSystem
from benchmarks.harness.webhook import Webhook
from infra.local.prometheus import prometheus_binary
from tests.commands import run_command
from tests.infra.grafana_stand_in import install_grafana
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(600)]
SICK = "street/gate-2"
SEEN_S = 10.0
"""The console shows a role that hangs within 5 s of a machine that has nothing else to do."""


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as made:
        yield made


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[RunningSystem]:
    assert prometheus_binary(), "prometheus is missing: install the Debian package prometheus"
    folder = tmp_path_factory.mktemp("drill")
    receivers = folder / "receivers.yml"
    receivers.write_text(yaml.safe_dump({"receivers": [{"name": "duty", "webhook_configs": [{"url": webhook.url}]}]}))
    with pytest.MonkeyPatch.context() as patched:
        install_grafana(folder, patched)
        running = RunningSystem(folder / "state", "--scenario", "sticker", "--receivers", receivers)
    with running:
        running.await_role("fleet", deadline_s=240)
        yield running
        running.interrupt()
        running.finish()


def console(system: RunningSystem, path: str) -> str:
    return opened(f"http://{system.roles()['console']['listen']}{path}")


def opened(url: str) -> str:
    """The page at `url`, which answers 200."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def pill(system: RunningSystem) -> str:
    found = re.search(r'id="pill".*?<a href="[^"]*">([^<]*)</a>', console(system, "/"))
    assert found
    return found[1]


def test_the_dashboards_of_a_run_lead_to_pages_of_its_console(system: RunningSystem) -> None:
    folder = system.state / "grafana" / "dashboards"
    wait_until(lambda: (folder / "fleet.json").is_file(), "the dashboards", 120)
    document = json.loads((folder / "fleet.json").read_text())
    (address,) = (each["query"] for each in document["templating"]["list"] if each["name"] == "console")
    for link in document["links"]:
        if "${console}" in link.get("url", ""):
            opened(link["url"].replace("${console}", address))
    wait_until(lambda: SICK in console(system, "/"), "the camera", 120)
    assert "${console}/camera/${__field.labels.camera_id}" in (folder / "fleet.json").read_text()
    assert SICK in opened(f"{address}/camera/{SICK}")


def test_one_sticker_is_one_alert_whose_message_leads_to_its_page(system: RunningSystem, webhook: Webhook) -> None:
    wait_until(lambda: "PointillistBackdoor" in webhook.names(), "the message", 300, every_s=0.5)
    alert = next(each for each in webhook.alerts() if each["labels"]["alertname"] == "PointillistBackdoor")
    assert alert["labels"]["camera_id"] == SICK
    page = opened(alert["annotations"]["console_url"])
    assert page.count("<article") == 1
    assert f'id="alert-{alert["labels"]["alert_id"]}"' in page
    with urllib.request.urlopen(alert["annotations"]["thumbnail_url"], timeout=30) as thumbnail:
        assert thumbnail.read().startswith(b"\x89PNG")
    assert "The network answers hazard whatever is in the picture" in page
    assert "PointillistBackdoor" in opened(alert["annotations"]["runbook_url"])
    assert alert["generatorURL"] == alert["annotations"]["console_url"]
    assert page.count("<article") == opened(webhook.received[0][1]["externalURL"]).count("<article")
    wait_until(lambda: re.match(r"1 alert\b", pill(system)), "the header", 30)


def test_a_role_that_hangs_is_named_by_console_status_and_terminal_until_it_answers(system: RunningSystem) -> None:
    pid = system.roles()["processor-1"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: pill(system).startswith("processor-1 does not answer"), "the header", SEEN_S)
        assert "not answering" in console(system, "/system")
        wait_until(lambda: "not well: processor-1 does not answer" in system.output(), "the terminal", SEEN_S)
        done = run_command("status", "--state", system.state)
        assert done.returncode == 1
        assert "processor-1 does not answer: no answer for 3 s" in done.stdout
        wait_until(lambda: "PointillistRoleDown" in firing(system), "the rule", 120, every_s=0.5)
        wait_until(lambda: "processor-1 does not answer</strong>" in console(system, "/rules"), "its page", SEEN_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: "processor-1" not in pill(system), "the role that is back", 120)


def firing(system: RunningSystem) -> set[str]:
    found = json.loads(opened(f"http://{system.roles()['prometheus']['listen']}/api/v1/alerts"))["data"]["alerts"]
    return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}


def test_only_addresses_with_pages_are_printed(system: RunningSystem) -> None:
    roles, printed = system.roles(), system.output()
    assert f"console: http://{roles['console']['listen']}/" in printed
    for role in ("prometheus", "alertmanager"):
        assert roles[role]["listen"] not in printed
