"""The versions that `pyproject.toml` allows are those that are tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PRIVATE = ("aiokafka", "openvino", "paho-mqtt", "prometheus-client", "torch", "uvicorn")
"""Libraries whose private members we use: any release may change them."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for each in project["optional-dependencies"].values() for line in each)]
    return [each for each in map(Requirement, lines) if each.name != "pointillist"]


def locked() -> dict[str, list[Version]]:
    """The versions in the lock file, for each Python."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements/dev.txt").read_text(), re.M):
        found.setdefault(name, []).append(Version(version))
    return found


def test_a_library_has_a_lower_bound_and_its_locked_version_is_allowed() -> None:
    versions = locked()
    for each in requirements():
        assert ">=" in [bound.operator for bound in each.specifier], each.name
        assert all(each.specifier.contains(version) for version in versions[each.name]), each.name


@pytest.mark.parametrize("name", PRIVATE)
def test_a_library_whose_private_members_are_used_has_an_upper_bound_within_its_release_series(name: str) -> None:
    specifier = next(each.specifier for each in requirements() if each.name == name)
    (upper,) = [Version(each.version) for each in specifier if each.operator == "<"]
    (lower,) = [Version(each.version) for each in specifier if each.operator == ">="]
    assert (upper.major, upper.minor) == (lower.major, lower.minor + 1)


def test_no_starlette_is_allowed_that_builds_its_path_from_the_host_header() -> None:
    specifier = next(each.specifier for each in requirements() if each.name == "starlette")
    assert not specifier.contains("1.0.0")
