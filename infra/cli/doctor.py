"""`pointillist doctor`: a check of this machine against the needs of the system."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from infra.cli import app
from infra.cli.access import DEFAULT_STATE
from infra.cli.terminal import Console, Json, print_json
from infra.local.programs import alertmanager_binary, grafana_binary, prometheus_binary
from schemas.errors import UserError
from schemas.runtime.disk import free_bytes

FREE_DISK_BYTES = 4 * 2**30
LEAST_JAVA: Final = 17
_JAVA_VERSION: Final = re.compile(r'version "(\d+)')
"""The number of a release; up to Java 8 it is 1."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    found: str
    ok: bool
    needed: bool = True


def _finding(what: str, look: Callable[[], str], needed: bool = True) -> Finding:
    try:
        return Finding(what, look(), True, needed)
    except (UserError, OSError, ImportError, subprocess.SubprocessError) as error:
        return Finding(what, str(error), False, needed)


def _mosquitto() -> str:
    from infra.local.mosquitto import mosquitto_binary

    return mosquitto_binary()


def _java() -> str:
    from infra.local.kafka_jars import java_binary

    program = java_binary()
    said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    line = next((line for line in said.splitlines() if " version " in line), "no version")
    number = _JAVA_VERSION.search(line)
    if number is None or int(number[1]) < LEAST_JAVA:
        raise OSError(
            f"expected Java {LEAST_JAVA} or later, got {line} of {program}. Install the Debian package "
            "default-jre-headless."
        )
    return f"{program}: {line}"


def _kafka() -> str:
    from infra.local.kafka_jars import is_complete, jar_folder, kafka_version

    folder = jar_folder()
    if is_complete(folder):
        return f"Kafka {kafka_version()} in {folder}"
    if shutil.which("mvn") is None:
        raise OSError(f"expected jars in {folder}, or Maven, which fetches them. Install the Debian package maven.")
    return f"Kafka {kafka_version()}, to be fetched by Maven at the first start"


def _optional(name: str, program: str | None, without: str) -> Finding:
    """Return the finding about a program that `up` can do without; `without` has the effect and the remedy."""
    return Finding(name, program or f"not installed: {without}", program is not None, needed=False)


def _torch() -> str:
    try:
        import torch
    except ImportError as error:
        raise OSError(f"expected PyTorch, got {error}. Run `make setup`, or install `pointillist[server]`.") from None

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__} on {device}"


def _disk(state: Path) -> str:
    free = free_bytes(state)
    if not free >= FREE_DISK_BYTES:  # NaN too
        raise OSError(
            f"expected {FREE_DISK_BYTES / 2**30:.0f} GiB free in {state.resolve()}, got {free / 2**30:.1f} GiB. Free "
            "disk space, or choose another --state."
        )
    return f"{free / 2**30:.0f} GiB free in {state.resolve()}"


def _data() -> str:
    from infra.state_folder.environment import Environment

    folder = Environment().data
    if folder is None:
        raise OSError("POINTILLIST_DATA is not set: only the source cifar10 and the experiments of the lab need it")
    if not folder.is_dir():
        raise OSError(f"POINTILLIST_DATA: expected a folder, got {folder}. Correct it.")
    return str(folder)


def _bundles() -> str:
    from bundles import named_bundles

    found = named_bundles()
    if not found:
        raise OSError("expected the shipped model bundles, got none. Install pointillist again.")
    return ", ".join(found)


def _general_network() -> str:
    from bundles import GENERAL, named_bundles

    found = named_bundles().get(GENERAL)
    if found is None:
        raise OSError(
            "not made: a small network classifies real cameras, and its classes do not fit them. Run `pointillist "
            "bundle create --imagenet`."
        )
    return str(found)


@app.command()
def doctor(
    state: Annotated[Path, typer.Option(help="State folder that `up` will use.")] = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Report what is installed, what is missing, and how to install it. Exit status 2 when `up` cannot work."""
    findings = [
        _finding("mosquitto", _mosquitto),
        _finding("Java", _java),
        _finding("Kafka", _kafka),
        _finding("torch", _torch),
        _finding("model bundles", _bundles),
        _finding("general network", _general_network, needed=False),
        _finding("disk", lambda: _disk(state)),
        _optional(
            "Prometheus",
            prometheus_binary(),
            "`up` runs without alert rules, Alertmanager and Grafana. Install the Debian package prometheus.",
        ),
        _optional(
            "Alertmanager",
            alertmanager_binary(),
            "alerts are shown, and sent to nobody. Install the Debian package prometheus-alertmanager, and name the "
            "people with `up --receivers`.",
        ),
        _optional(
            "Grafana",
            grafana_binary(),
            "`up` runs without dashboards. Install grafana from Grafana's own repository.",
        ),
        _finding("data sets", _data, needed=False),
    ]
    ready = all(finding.ok or not finding.needed for finding in findings)
    if json:
        print_json({"ready": ready, "parts": [asdict(finding) for finding in findings]})
        raise typer.Exit(0 if ready else UserError.exit_code)
    table = Table("", "part", "found", title="doctor", title_justify="left")
    for finding in findings:
        mark = "ok" if finding.ok else ("MISSING" if finding.needed else "absent")
        table.add_row(mark, finding.what, Text(finding.found))
    Console(soft_wrap=True).print(table)
    if not ready:
        raise typer.Exit(UserError.exit_code)
