"""The commands `user`, `token` and `key`, run in this process, and their files."""

from __future__ import annotations

import io
import os
import pwd
import sys
from pathlib import Path

import pytest

from consumers.console.access.users import read_users
from consumers.console.data.store import Store
from infra.cli import user
from infra.state_folder import Layout
from schemas.errors import ConfigError
from schemas.keys.roots import Role
from tests.infra.command_line import refusal, run


@pytest.mark.parametrize(("second", "added"), [("a long password", True), ("another password", False)])
def test_a_password_from_the_terminal_is_typed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, added: bool
) -> None:
    typed = {"password of anna: ": "a long password", "again: ": second}
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(user, "getpass", typed.__getitem__)
    file = tmp_path / "users"
    if added:
        user.add("anna", "operator", file)
        assert {name: str(each.roles) for name, each in read_users(file).items()} == {"anna": "operator"}
    else:
        with pytest.raises(ConfigError, match=r"^password: expected the same text twice, got two texts"):
            user.add("anna", "operator", file)
        assert not file.exists()


def test_users_and_tokens_are_in_the_default_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("user", "list"), ("token", "create", "ci")):
        assert refusal(run(*words)).startswith(
            f"--state: expected a state folder of `pointillist up`, got none in {tmp_path}/.pointillist. "
        )
    assert list(tmp_path.iterdir()) == []
    layout = Layout(tmp_path / ".pointillist")
    layout.folder.mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long password\n"))
    user.add("anna")
    assert run("user", "list").stdout == "anna viewer\n"
    assert run("token", "create", "ci").exit_code == 0
    assert run("token", "create", "elsewhere", "--file", tmp_path / "tokens").exit_code == 0
    assert run("token", "list").stdout.startswith("ci viewer")
    store = Store(layout.console_url)
    noted = [(each.what, each.subject) for each in store.newest_operations()]
    store.close()
    assert noted == [("token", "ci"), ("user", "anna")]


@pytest.mark.parametrize("words", [("user", "list"), ("token", "create", "ci"), ("token", "list")])
def test_standard_output_is_rejected_as_a_file_of_users_or_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(run(*words, "--file", "-")).startswith("-: expected the name of a file, got the sign of standard")
    assert list(tmp_path.iterdir()) == []


def test_a_new_state_folder_is_announced_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    for words in (("user", "list"), ("user", "remove", "anna"), ("token", "list"), ("token", "revoke", "ci")):
        line = refusal(run(*words, "--state", tmp_path / "typo"))
        assert line.startswith("--state: expected a state folder of `pointillist up`, got ")
    created = run("token", "create", "ci", "--state", tmp_path / "new")
    assert created.stderr.startswith(f"{tmp_path / 'new'}: the state folder is new. ")
    assert run("token", "create", "other", "--state", tmp_path / "new").stderr == ""
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("user", "add", "ada"),
        ("ca", "init"),
        ("key", "--scenario", "none"),
        ("up",),
        ("backup", "--to", "nowhere"),
        ("restore", "--from", __file__),
    ],
)
def test_root_runs_no_command_on_the_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Reject the command, because that user could not read private files written by root."""
    if os.geteuid() == 0:
        os.chown(tmp_path, pwd.getpwnam("nobody").pw_uid, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    owner = tmp_path.owner()
    assert refusal(run(*words, "--state", tmp_path)) == (
        f"--state: expected a folder of root, got {tmp_path} of {owner}. Run `runuser -u {owner} -- pointillist …`."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_users_file_is_one_error_line(tmp_path: Path) -> None:
    line = refusal(run("user", "list", "--file", tmp_path))
    assert line.startswith(f"{tmp_path}: expected a file of users, got Is a directory. Add a user by")


def test_the_secrets_of_all_roles_are_written_by_one_command_for_their_owner_only(tmp_path: Path) -> None:
    Layout(tmp_path / "state").fleet_secret()
    done = run("key", "--roles", tmp_path / "roles", "--state", tmp_path / "state")
    assert done.exit_code == 0, done.output
    files = [file for file in (tmp_path / "roles").rglob("*") if file.is_file()]
    assert len(files) >= len(Role) - 1
    assert {file.stat().st_mode & 0o077 for file in files} == {0}
