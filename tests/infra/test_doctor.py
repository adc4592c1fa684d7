"""The command `doctor`: the missing parts that it names, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import bundles
from infra.cli import doctor
from infra.local import kafka_jars
from tests.infra.command_line import run


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a machine with Grafana and without Maven, Kafka, Prometheus, Alertmanager and disk space."""
    monkeypatch.setattr(kafka_jars, "jar_folder", lambda: tmp_path / "jars")
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "mvn" else f"/bin/{name}")
    monkeypatch.setattr(doctor, "prometheus_binary", lambda: None)
    monkeypatch.setattr(doctor, "alertmanager_binary", lambda: None)
    monkeypatch.setattr(doctor, "grafana_binary", lambda: "/opt/grafana")
    monkeypatch.setattr(doctor, "FREE_DISK_BYTES", 2**60)
    monkeypatch.setattr(doctor, "_torch", lambda: "torch")
    monkeypatch.setattr(doctor, "_java", lambda: "java")
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path / "none"))
    return tmp_path


def test_missing_parts_are_named_and_only_required_ones_fail_the_command(bare_machine: Path) -> None:
    done = run("doctor", "--state", bare_machine, "--json")
    found = {part["what"]: (part["ok"], part["needed"], part["found"]) for part in json.loads(done.stdout)["parts"]}
    assert done.exit_code == 2
    assert found["Kafka"][:2] == (False, True)
    assert "Debian package maven" in found["Kafka"][2]
    assert found["disk"][:2] == (False, True)
    assert found["disk"][2].startswith(f"expected 1073741824 GiB free in {bare_machine}, got ")
    assert found["Prometheus"][:2] == found["Alertmanager"][:2] == (False, False)
    assert found["Grafana"] == (True, False, "/opt/grafana")
    assert found["data sets"][2] == f"POINTILLIST_DATA: expected a folder, got {bare_machine / 'none'}. Correct it."


def test_the_disk_of_a_new_state_folder_is_that_of_its_nearest_parent(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Mock(wraps=shutil.disk_usage)
    monkeypatch.setattr(shutil, "disk_usage", measured)
    done = run("doctor", "--state", bare_machine / "new" / "state", "--json")
    (disk,) = (part for part in json.loads(done.stdout)["parts"] if part["what"] == "disk")
    measured.assert_called_once_with(bare_machine)
    assert disk["found"].startswith(f"expected 1073741824 GiB free in {bare_machine / 'new' / 'state'}, got ")


def test_the_table_accepts_a_missing_folder_of_jars_that_maven_can_fill(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/bin/{name}")
    done = run("doctor", "--state", bare_machine, COLUMNS="300")
    words = {
        cells[1]: cells[0]
        for line in done.output.splitlines()
        if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) == 3
    }
    assert done.exit_code == 2
    assert (words["Kafka"], words["disk"], words["Prometheus"]) == ("ok", "MISSING", "absent")
    assert "to be fetched by Maven at the first start" in done.output


def part(what: str, state: Path) -> dict[str, Any]:
    """Return one part of the doctor's report."""
    parts: list[dict[str, Any]] = json.loads(run("doctor", "--state", state, "--json").stdout)["parts"]
    return next(each for each in parts if each["what"] == what)


def test_a_folder_with_missing_jars_is_reported(bare_machine: Path) -> None:
    (bare_machine / "jars").mkdir()
    assert not part("Kafka", bare_machine)["ok"]
    for name in kafka_jars.read_digests():
        if "aarch" not in name:
            (bare_machine / "jars" / name).touch()
    assert part("Kafka", bare_machine)["ok"]


def test_the_general_network_is_absent_until_it_is_made(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MADE", bare_machine / "made")
    absent = part("general network", bare_machine)
    assert (absent["ok"], absent["needed"]) == (False, False)
    assert "Run `pointillist bundle create --imagenet`" in absent["found"]
    folder = bare_machine / "made" / "imagenet"
    folder.mkdir(parents=True)
    (folder / "model.toml").touch()
    assert (part("general network", bare_machine)["ok"], part("general network", bare_machine)["found"]) == (
        True, str(folder)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "ok"),
    [
        ('openjdk version "17.0.13" 2024-10-15', True),
        ('openjdk version "25" 2025-09-16', True),
        ('openjdk version "11.0.22" 2024-01-16', False),
        ('java version "1.8.0_412"', False),
    ],
)
def test_a_java_too_old_for_kafka_is_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, ok: bool
) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2\necho '{line}' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "_torch", lambda: "torch")
    java = part("Java", tmp_path)
    assert java["ok"] is ok
    assert line in java["found"]
