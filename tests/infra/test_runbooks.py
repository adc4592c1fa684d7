from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from consumers.console import pages
from infra.monitor.alert_notifier import ALERT_NAME, SIGHTING_NAME
from infra.prometheus import operator_rules, runbooks
from infra.prometheus.operator_rules import MANIFEST
from infra.prometheus.runbooks import PAGE, SOURCE, rendered
from tests.infra.alert_rules import ALERTS
from tests.infra.test_access_options import COMMANDS

USE_DEFAULT_STATE = {"audit", "down", "topics", "user add"}
"""Printed commands that use the folder .pointillist if none is named."""


def test_the_page_in_the_repository_equals_the_generated_page() -> None:
    assert PAGE.read_text() == rendered(SOURCE.read_text())


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    titles = re.findall(r"(?m)^### (\w+)$", SOURCE.read_text())
    assert len(set(titles)) == len(titles)
    assert set(titles) == ALERTS.keys() | {ALERT_NAME, SIGHTING_NAME}


def test_the_runbook_url_of_an_alert_links_to_its_heading() -> None:
    page = PAGE.read_text()
    for name, alert in ALERTS.items():
        base, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert base == "{{ $externalLabels.runbooks }}", name
        assert f'<h3 id="{anchor}">{name}</h3>' in page


def test_every_printed_command_has_valid_options_and_names_its_brokers() -> None:
    """Check the commands of pages whose readers may use any state folder."""
    grid = Path(pages.__file__).parents[1] / "templates" / "grid.html"
    rules = [text for alert in ALERTS.values() for text in alert["annotations"].values()]
    texts = [SOURCE.read_text(), grid.read_text(), *rules]
    printed = {command for text in texts for command in re.findall(r"[`>]pointillist ([^`<>]+)[`<]", text)}
    assert len(printed) > 10
    for command in printed:
        options = set(re.findall(r"--[a-z-]+", command))
        for name in COMMANDS:
            if f"{command} ".startswith(f"{name} "):
                assert options <= COMMANDS[name], command
                needed = {"--state", "--kafka"} & COMMANDS[name] and name not in USE_DEFAULT_STATE
                assert not needed or options & {"--state", "--kafka"}, command


def test_the_page_has_no_relative_link_and_no_template() -> None:
    assert not re.search(r'(href|src)="(?!https?:)', PAGE.read_text())
    assert "{{" not in PAGE.read_text()  # Prometheus would evaluate it


def test_the_command_writes_the_page_and_the_manifest_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "consoles" / "runbooks.html"
    rules = tmp_path / "prometheusrule.yaml"
    monkeypatch.setattr(runbooks, "PAGE", page)
    monkeypatch.setattr(operator_rules, "MANIFEST", rules)
    runpy.run_module("infra.prometheus.__main__")
    assert page.read_text() == PAGE.read_text()
    assert rules.read_text() == MANIFEST.read_text()
    assert capsys.readouterr().out == f"{page}\n{rules}\n"
