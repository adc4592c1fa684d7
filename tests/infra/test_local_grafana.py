"""Grafana as `up` starts it, with a stand-in for the program: the files that it is given have the documented form."""

from __future__ import annotations

import configparser
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.grafana.build import rendered
from infra.local.grafana import FOLDER, Grafana, grafana_binary, leading_to
from schemas.errors import BrokerError
from tests.infra.grafana_stand_in import install_grafana

# https://grafana.com/docs/grafana/latest/administration/provisioning/
DATASOURCES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "datasources"],
    "properties": {
        "apiVersion": {"const": 1},
        "prune": {"type": "boolean"},
        "deleteDatasources": {"type": "array"},
        "datasources": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type", "url"],
                "properties": {
                    "name": {"type": "string"},
                    "type": {"const": "prometheus"},
                    "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
                    "access": {"enum": ["proxy", "direct"]},
                    "orgId": {"type": "integer"},
                    "url": {"type": "string"},
                    "isDefault": {"type": "boolean"},
                    "editable": {"type": "boolean"},
                    "jsonData": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "timeInterval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                            "httpMethod": {"enum": ["GET", "POST"]},
                            "exemplarTraceIdDestinations": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["name"],
                                    "properties": {
                                        "name": {"type": "string"},
                                        "url": {"type": "string"},
                                        "urlDisplayLabel": {"type": "string"},
                                        "datasourceUid": {"type": "string"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
DASHBOARDS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "providers"],
    "properties": {
        "apiVersion": {"const": 1},
        "providers": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type", "options"],
                "properties": {
                    "name": {"type": "string"},
                    "orgId": {"type": "integer"},
                    "folder": {"type": "string"},
                    "folderUid": {"type": "string"},
                    "type": {"const": "file"},
                    "disableDeletion": {"type": "boolean"},
                    "updateIntervalSeconds": {"type": "integer"},
                    "allowUiUpdates": {"type": "boolean"},
                    "options": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["path"],
                        "properties": {"path": {"type": "string"}, "foldersFromFilesStructure": {"type": "boolean"}},
                    },
                },
            },
        },
    },
}
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
    monkeypatch.setenv("GF_AUTH_ANONYMOUS_ORG_ROLE", "Admin")
    return install_grafana(tmp_path, monkeypatch)


@pytest.fixture
def grafana(installed: Path, state_dir: Path) -> Iterator[Grafana]:
    made = Grafana(state_dir, prometheus=PROMETHEUS, console=CONSOLE)
    made.start()
    yield made
    made.stop()


def given(grafana: Grafana) -> Any:
    return json.loads(grafana.log.read_text().splitlines()[0])


def test_it_is_started_on_a_free_port_with_its_own_home_and_none_of_the_persons_settings(
    grafana: Grafana, installed: Path
) -> None:
    words, environment = given(grafana)["words"], given(grafana)["environment"]
    assert words == ["server", f"--config={grafana.folder / 'grafana.ini'}", f"--homepath={installed.parent.parent}"]
    assert environment == {
        "POINTILLIST_PROMETHEUS_URL": PROMETHEUS,
        "POINTILLIST_CONSOLE_URL": CONSOLE,
        "POINTILLIST_DASHBOARDS": str(grafana.folder / "dashboards"),
        **{name: value for name, value in os.environ.items() if name.startswith("POINTILLIST_")},
    }


def test_its_settings_are_grafanas_own_and_let_nobody_change_anything(grafana: Grafana) -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(grafana.folder / "grafana.ini")
    assert {section: set(settings[section]) for section in settings.sections()} == SETTINGS
    assert (settings["server"]["http_addr"], settings["auth.anonymous"]["org_role"]) == ("127.0.0.1", "Viewer")
    assert settings["paths"]["provisioning"] == str(PROVISIONING)


def test_the_dashboards_lead_to_the_console_of_this_run(grafana: Grafana) -> None:
    files = sorted((grafana.folder / "dashboards").glob("*.json"))
    assert {file.name for file in files} == rendered().keys()
    for file in files:
        variables = {each["name"]: each for each in json.loads(file.read_text())["templating"]["list"]}
        assert variables["console"]["query"] == variables["console"]["current"]["value"] == CONSOLE
        assert "$" not in variables["console"]["query"]


def test_an_address_that_nobody_gave_stays_what_it_was() -> None:
    for text in rendered().values():
        assert json.loads(leading_to(text, {"console": None})) == json.loads(text)


def test_what_provisions_it_has_the_documented_form_and_names_variables_that_it_is_given() -> None:
    names = set()
    for folder, schema in (("datasources", DATASOURCES), ("dashboards", DASHBOARDS)):
        (file,) = (PROVISIONING / folder).iterdir()
        jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(file.read_text()))
        names |= set(re.findall(r"(?<!\$)\$\{?(\w+)", file.read_text()))
    assert names == {"POINTILLIST_PROMETHEUS_URL", "POINTILLIST_CONSOLE_URL", "POINTILLIST_DASHBOARDS"}
    compose = yaml.safe_load((FOLDER.parents[1] / "compose.yaml").read_text())["services"]["grafana"]["environment"]
    assert names <= compose.keys()


def test_without_the_program_that_is_said(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.grafana.grafana_binary", lambda: None)
    with pytest.raises(BrokerError, match="expected the program grafana"):
        Grafana(state_dir, prometheus=PROMETHEUS).start()


def test_it_is_found_where_debian_puts_it(installed: Path) -> None:
    assert grafana_binary() == str(installed)
