from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.pki.validity import ROLE_DAYS
from infra.settings.load import SettingsSources, load
from infra.up.settings import UpSettings

UNITS = Path(__file__).resolve().parents[2] / "infra" / "systemd"
UNIT_FILES = sorted(UNITS.glob("*.service"))
PROGRAM = "/usr/local/bin/pointillist"


@pytest.mark.parametrize("unit", [*UNIT_FILES, *UNITS.glob("*.timer")], ids=lambda unit: unit.name)
def test_systemd_verifies_every_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = unit.read_text()
    (tmp_path / unit.name.replace("@", "@door")).write_text(text.replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name.replace("@", "@door"))],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    about_us = [line for line in done.stderr.splitlines() if unit.name.partition(".")[0].rstrip("@") in line]
    assert not about_us
    assert "SYSTEMD" not in done.stderr


@pytest.mark.parametrize("unit", UNIT_FILES, ids=lambda unit: unit.name)
def test_a_unit_uses_options_of_its_command(unit: Path) -> None:
    from infra.cli import camera, camera_run, pki, up  # noqa: F401  # the imports register the commands

    [start] = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    program, *words = shlex.split(start.removeprefix("ExecStart="))
    assert program == PROGRAM
    command = list(itertools.takewhile(str.isalpha, words))
    help_text = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout
    for option in (argument for argument in words if argument.startswith("--")):
        assert option in help_text


def test_the_service_of_a_whole_system_allows_decoders_without_a_network() -> None:
    assert "RestrictNamespaces=user net\n" in (UNITS / "pointillist.service").read_text()


@pytest.mark.parametrize("unit", ["pointillist.service", "pointillist-cameras.service"])
def test_a_service_with_several_processes_survives_the_kill_of_one_for_lack_of_memory(unit: str) -> None:
    assert "\nOOMPolicy=continue\n" in (UNITS / unit).read_text()


def test_the_metrics_of_cameras_are_at_the_documented_address_outside_the_ports_of_exporters() -> None:
    """Check that the port is none of 9100 to 9999, which Prometheus reserves: 9100 is that of node_exporter."""
    [metrics] = re.findall(r"--metrics (\S+)", (UNITS / "pointillist-cameras.service").read_text())
    assert f"`{metrics}`" in (UNITS.parents[1] / "docs/cameras.md").read_text()
    assert not 9100 <= int(metrics.rpartition(":")[2]) <= 9999


@pytest.mark.parametrize("unit", ["pointillist-cameras.service", "pointillist-camera@.service"])
def test_a_service_of_cameras_allows_their_devices_and_hardware_decoders(unit: str) -> None:
    allowed = re.findall(r"(?m)^DeviceAllow=(\S+) rw$", (UNITS / unit).read_text())
    assert allowed == ["char-video4linux", "char-drm", "char-nvidia"]


def test_the_documented_options_of_the_service_are_valid_for_up(tmp_path: Path) -> None:
    """Load the TOML block of docs/operations/running.md and compare its state folder with the unit's."""
    page = (UNITS.parents[1] / "docs/operations/running.md").read_text()
    [block] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "up.toml"
    file.write_text(block)
    settings = load(UpSettings, SettingsSources("up", file))
    assert settings.state == Path("/var/lib/pointillist")
    assert "StateDirectory=pointillist\n" in (UNITS / "pointillist.service").read_text()


def test_the_timer_renews_certificates_several_times_before_half_of_their_life() -> None:
    (timer,) = UNITS.glob("*.timer")
    assert timer.with_suffix(".service") in UNIT_FILES
    (hours,) = re.findall(r"(?m)^OnCalendar=\*-\*-\* ([0-9,]+):00:00$", timer.read_text())
    assert len(hours.split(",")) * ROLE_DAYS / 2 >= 4
    assert "Persistent=yes" in timer.read_text()
