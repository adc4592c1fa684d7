"""The script `infra/bootstrap.sh`, which installs only missing programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "infra" / "bootstrap.sh"
JAVA = """[ -z "$JAVA_TOOL_OPTIONS" ] || echo "Picked up JAVA_TOOL_OPTIONS: $JAVA_TOOL_OPTIONS" >&2
echo 'openjdk version "21.0.1" 2023-10-17' >&2"""
RUNS_COMMAND = """[ "$1" != -n ] || shift
"$@\""""


class Machine:
    """A machine with the programs of one folder. `requests` has the arguments of its package manager."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.requests = folder / "requests"
        for name in ("bash", "sed", "env", "cat"):
            (self.bin / name).parent.mkdir(exist_ok=True)
            (self.bin / name).symlink_to(shutil.which(name) or name)
        # These programs do nothing, so that the test writes no file of this machine.
        for name in ("tee", "chmod", "rm", "python3", "mosquitto", "mvn", "prometheus", "alertmanager"):
            self.add(name, "exit 0")
        self.add("sudo", RUNS_COMMAND)
        self.add("apt-get", f'echo "$*" >> {self.requests}; exit 100')

    def add(self, name: str, script: str, folder: Path | None = None) -> None:
        program = (folder or self.bin) / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!{shutil.which('sh')}\n{script}\n")
        program.chmod(0o755)

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "bash"), str(SCRIPT), "run"],
            env={"PATH": str(self.bin), **variables}, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_failed_package_manager_is_no_error_if_only_prometheus_is_missing(machine: Machine) -> None:
    machine.add("java", JAVA)
    (machine.bin / "prometheus").unlink()
    done = machine.run()
    assert (done.returncode, done.stderr) == (0, "going on without: prometheus\n")
    assert machine.requests.read_text().splitlines()[0] == "update -q"


def test_a_failed_package_manager_is_an_error_if_a_required_program_is_missing(machine: Machine) -> None:
    machine.add("java", JAVA)
    (machine.bin / "mvn").unlink()
    assert machine.run().returncode == 100


def test_a_java_that_first_reports_its_options_is_recognised(machine: Machine) -> None:
    machine.add("java", JAVA)
    assert machine.run(JAVA_TOOL_OPTIONS="-Xmx1g").returncode == 0
    assert not machine.requests.exists()


def test_the_java_of_java_home_is_accepted(machine: Machine, tmp_path: Path) -> None:
    machine.add("java", JAVA, tmp_path / "jdk" / "bin")
    assert machine.run(JAVA_HOME=str(tmp_path / "jdk")).returncode == 0
    assert not machine.requests.exists()
