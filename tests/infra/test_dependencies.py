"""The versions that `pyproject.toml` allows, and the libraries that each installation needs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks.harness.videos import shades, write_video
from infra.cli import OWN_PACKAGES
from infra.process.exit_status import FLEET_DRAINED, FLEET_PENDING
from infra.reference.architecture import imported, modules
from schemas.identity import CameraId
from tests.infra.secure import enroll_camera, make_fleet

ROOT = Path(__file__).parents[2]
PRIVATE = ("aiokafka", "openvino", "paho-mqtt", "prometheus-client", "torch", "uvicorn")
"""Libraries whose private members we use: any release may change them."""
LAB_COMMANDS = ("red_team.py",)
"""Modules of commands that need the extra `lab`."""
HIDING = """
import sys

class Hidden:
    names = set(sys.argv[1].split(","))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
IMPORTS = f"""{HIDING}
from importlib import import_module

for name in sys.argv[2].split(","):
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        print(f"{{name}} needs {{error.name}}")
"""
COMMANDS = f"""{HIDING}
import json
import os
from infra.cli import main, register

register()
for words in json.loads(sys.argv[2]):
    if os.fork() == 0:
        sys.argv = ["pointillist", *words]
        main()
    print(words[:2], os.waitstatus_to_exitcode(os.wait()[1]), file=sys.stderr)
"""
CAMERAS_FILE = """
site: site
enrolments: .
cameras:
  - {name: door, source: {address: film.mp4}}
"""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for each in project["optional-dependencies"].values() for line in each)]
    return [each for each in map(Requirement, lines) if each.name != "pointillist"]


def locked(extra: str = "dev") -> dict[str, list[Version]]:
    """Return the versions in the lock file of an extra, for each Python."""
    found: dict[str, list[Version]] = {}
    text = (ROOT / f"requirements/{extra}.txt").read_text()
    for name, version in re.findall(r"^([a-z0-9-]+)(?:\[[^]]+])?==([^ ;\\]+)", text, re.M):
        found.setdefault(name, []).append(Version(version))
    return found


def module_of(name: str) -> str:
    """Return the module for the full name of a module or of a member of it."""
    file = ROOT / name.replace(".", "/")
    return name if file.is_dir() or file.with_suffix(".py").is_file() else name.rpartition(".")[0]


def missing_modules(extra: str) -> str:
    """Return the modules here that an installation of an extra lacks."""
    absent = locked("dev").keys() - locked(extra).keys()
    owned = packages_distributions().items()
    return ",".join(module for module, owners in owned if set(map(canonicalize_name, owners)) <= absent)


def test_every_library_has_a_lower_bound_and_allows_its_locked_version() -> None:
    versions = locked()
    for each in requirements():
        assert ">=" in [bound.operator for bound in each.specifier], each.name
        assert all(each.specifier.contains(version) for version in versions[each.name]), each.name


@pytest.mark.parametrize("name", PRIVATE)
def test_a_library_with_used_private_members_is_bound_to_its_release_series(name: str) -> None:
    specifier = next(each.specifier for each in requirements() if each.name == name)
    (upper,) = [Version(each.version) for each in specifier if each.operator == "<"]
    (lower,) = [Version(each.version) for each in specifier if each.operator == ">="]
    assert (upper.major, upper.minor) == (lower.major, lower.minor + 1)


def test_a_starlette_that_builds_its_path_from_the_host_header_is_not_allowed() -> None:
    specifier = next(each.specifier for each in requirements() if each.name == "starlette")
    assert not specifier.contains("1.0.0")


@pytest.mark.xdist_group("architecture")  # whose tests parse the same imports
def test_the_commands_need_only_libraries_that_make_up_installs() -> None:
    assert {"foolbox", "pytest"} <= locked("dev").keys() - locked("server").keys()
    commands = [file for file in modules("infra.cli") if file.name not in LAB_COMMANDS]
    names = {module_of(name) for file in commands for name in imported(file) if name.partition(".")[0] in OWN_PACKAGES}
    assert {"lab.repair.run", "lab.repair.scan", "lab.hardening.run", "lab.teach.train", "infra.up.run"} <= names
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, missing_modules("server"), ",".join(sorted(names))],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == ""


def test_the_program_and_its_cameras_run_with_the_libraries_of_a_device(tmp_path: Path) -> None:
    layout = make_fleet(tmp_path / "fleet")
    enroll_camera(layout, "site/door")
    layout.enrolment(CameraId("site/door")).rename(tmp_path / "door.enrolment")
    (tmp_path / "cameras.yaml").write_text(CAMERAS_FILE)
    write_video(tmp_path / "film.mp4", shades(20, 48, 32))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = ["--mqtt", f"127.0.0.1:{silent.getsockname()[1]}", "--spool", "spool"]
        options += ["--connect-timeout-s", "0", "--seconds", ".5", "--drain-s", ".1"]
        attach = ["camera", "attach", "film.mp4", "--enrolment", "door.enrolment", *options]
        commands = [["--help"], ["--version"], attach, ["camera", "run", "cameras.yaml", *options]]
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, missing_modules("edge"), json.dumps(commands)],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert lines[:2] == ["['--help'] 0", "['--version'] 0"]
    for line, name in zip(lines[2:], ("attach", "run"), strict=True):
        assert line in [f"['camera', '{name}'] {status}" for status in (FLEET_DRAINED, FLEET_PENDING)], done.stderr
