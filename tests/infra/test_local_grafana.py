"""Grafana as `up` starts it, with a stand-in for the program: its arguments, environment and files."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.grafana.build import rendered
from infra.local.grafana import FOLDER, Grafana
from schemas.errors import BrokerError
from tests.infra.grafana_stand_in import install_grafana

# https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/: the sections and keys that we use.
SETTINGS = {
    "server": {"http_addr", "http_port"},
    "paths": {"data", "logs", "plugins", "provisioning"},
    "log": {"mode", "level"},
    "auth": {"disable_login_form"},
    "auth.anonymous": {"enabled", "org_role"},
    "security": {"disable_initial_admin_creation"},
    "analytics": {
        "reporting_enabled", "check_for_updates", "check_for_plugin_updates", "feedback_links_enabled",
    },
    "news": {"news_feed_enabled"},
    "plugins": {"preinstall_disabled"},
    "unified_alerting": {"enabled"},
}  # fmt: skip
PROVISIONING = FOLDER / "provisioning"
CONSOLE, PROMETHEUS = "http://127.0.0.1:4711", "http://127.0.0.1:4712"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GF_AUTH_ANONYMOUS_ORG_ROLE", "POINTILLIST_FLEET_SECRET"):
        monkeypatch.setenv(name, "Admin")
    return install_grafana(tmp_path, monkeypatch)


@pytest.fixture
def grafana(installed: Path, state_dir: Path) -> Iterator[Grafana]:
    server = Grafana(state_dir, prometheus=PROMETHEUS, console=CONSOLE)
    server.start()
    yield server
    server.stop()


def received(grafana: Grafana) -> Any:
    return json.loads(grafana.log.read_text().splitlines()[0])


def test_grafana_starts_with_its_own_home_and_without_the_user_s_variables(grafana: Grafana, installed: Path) -> None:
    words, environment = received(grafana)["words"], received(grafana)["environment"]
    assert words == ["server", f"--config={grafana.folder / 'grafana.ini'}", f"--homepath={installed.parent.parent}"]
    assert environment == {
        "POINTILLIST_PROMETHEUS_URL": PROMETHEUS,
        "POINTILLIST_CONSOLE_URL": CONSOLE,
        "POINTILLIST_DASHBOARDS": str(grafana.folder / "dashboards"),
    }


def test_its_settings_are_valid_and_read_only_for_visitors(grafana: Grafana) -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(grafana.folder / "grafana.ini")
    assert {section: set(settings[section]) for section in settings.sections()} == SETTINGS
    assert (settings["server"]["http_addr"], settings["auth.anonymous"]["org_role"]) == ("127.0.0.1", "Viewer")
    assert settings["paths"]["provisioning"] == str(PROVISIONING)


def test_the_dashboards_link_to_the_console_of_this_run(grafana: Grafana) -> None:
    files = sorted((grafana.folder / "dashboards").glob("*.json"))
    assert {file.name for file in files} == rendered().keys()
    for file in files:
        variables = {each["name"]: each for each in json.loads(file.read_text())["templating"]["list"]}
        assert variables["console"]["query"] == variables["console"]["current"]["value"] == CONSOLE
        assert "$" not in variables["console"]["query"]


def test_a_missing_program_is_named(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.grafana.grafana_binary", lambda: None)
    with pytest.raises(BrokerError, match="grafana is missing"):
        Grafana(state_dir, prometheus=PROMETHEUS).start()
