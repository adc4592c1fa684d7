"""Restores that fail or are killed: the state folder is as before, or no command uses it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from infra.state_folder import Layout, restore
from infra.state_folder.backup import write_backup
from infra.state_folder.restore import restore_backup
from infra.up.identities import prepare_identities
from infra.up.settings import UpSettings
from schemas.errors import StateError
from tests.infra.command_line import refusal, run
from tests.infra.test_backup import fill_state


@pytest.fixture
def system(tmp_path: Path) -> Layout:
    return fill_state(Layout(tmp_path / "state"))


@pytest.fixture
def saved(system: Layout, tmp_path: Path) -> str:
    """Write a backup and return its file."""
    return write_backup(system, str(tmp_path / "to"), "1")[0]


@pytest.fixture
def fresh(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "fresh")
    layout.folder.mkdir()
    return layout


def fail_at_rename(patch: pytest.MonkeyPatch, name: str, error: OSError) -> list[str]:
    """Raise `error` when the entry `name` moves into the state folder; return the list of the entries before it."""
    rename, moved = Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        if target.parent.name == "fresh":
            if target.name == name:
                raise error
            moved.append(target.name)
        return rename(self, target)

    patch.setattr(Path, "rename", failing)
    return moved


def test_a_restore_that_cannot_drop_the_offsets_leaves_no_files_and_can_be_repeated(
    system: Layout, saved: str, fresh: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StateError("the database: expected one that answers, got none. Check the free space.")

    with monkeypatch.context() as patch:
        patch.setattr(restore, "forget_kafka", fail)
        with pytest.raises(StateError, match=r"^the database: "):
            restore_backup(fresh, saved, new_kafka=True)
    assert list(fresh.folder.iterdir()) == []
    restore_backup(fresh, saved, new_kafka=True)
    assert fresh.signer().export() == system.signer().export()
    with sqlite3.connect(fresh.database) as connection:
        assert connection.execute("select * from offsets").fetchall() == []


@pytest.mark.parametrize("name", ["fleet.secret", "settings", "console.sqlite", "pointillist.sqlite"])
def test_a_restore_that_fails_while_entries_move_takes_them_back(
    system: Layout, saved: str, fresh: Layout, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (fresh.folder / "spool").mkdir()
    with monkeypatch.context() as patch:
        fail_at_rename(patch, name, OSError(5, "Input/output error"))
        with pytest.raises(StateError, match="Input/output error"):
            restore_backup(fresh, saved)
    assert [entry.name for entry in fresh.folder.iterdir()] == ["spool"]
    restore_backup(fresh, saved)
    assert fresh.signer().export() == system.signer().export()


def test_the_identities_are_restored_first_and_the_database_last(
    system: Layout, saved: str, fresh: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = fail_at_rename(monkeypatch, "nothing", OSError())
    restore_backup(fresh, saved)
    identities = {"fleet.secret", "keys", "signer.key", "trusted-signers"}
    assert set(moved[: len(identities)]) == identities
    assert moved[-1] == "pointillist.sqlite"


def test_no_command_uses_a_folder_whose_restore_was_killed(
    system: Layout, saved: str, fresh: Layout, tmp_path: Path
) -> None:
    staged, placed = fresh.folder / ".restoring", fresh.keys
    for folder in (staged / "state", placed):
        folder.mkdir(parents=True)
    with pytest.raises(StateError, match=rf"^--state: expected a folder without an unfinished restore, got {staged}"):
        prepare_identities(fresh, [], UpSettings())
    assert "unfinished restore" in refusal(run("ca", "init", "--state", fresh.folder))
    assert "unfinished restore" in refusal(run("backup", "--state", fresh.folder, "--to", tmp_path / "second"))
    assert not fresh.secret_file.exists()
    # Another restore is refused too, and the folder stays unusable.
    assert "expected a folder without keys" in refusal(run("restore", "--from", saved, "--state", fresh.folder))
    assert staged.is_dir()
    placed.rename(tmp_path / "away")
    restore_backup(fresh, saved)
    assert not staged.exists()
    prepare_identities(fresh, [], UpSettings())
    assert fresh.fleet_secret() == system.fleet_secret()
