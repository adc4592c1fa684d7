"""Atomic replacement of a file: any reader finds the old or the new content, whatever fails."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from schemas.runtime.atomic_file import replacing, try_replacing, write_durably, write_text


def test_a_reader_finds_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")
    with replacing(file) as replacement:
        replacement.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_failed_writer_leaves_only_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")

    def interrupt() -> None:
        with replacing(file) as replacement:
            replacement.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "model.toml"
    file.write_text("old")
    file.chmod(0o640)
    with replacing(file) as replacement:
        replacement.write_text("new")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_private_file_is_readable_only_by_its_owner_from_the_first_byte(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with replacing(file, private=True) as replacement:
        replacement.write_text("secret")
        assert replacement.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_private_file_is_not_written_through_a_file_or_a_link_of_another_user(tmp_path: Path) -> None:
    target, other = tmp_path / "secret", tmp_path / "other"
    for made in ("file", "link"):
        with replacing(target, private=True) as fresh:
            pass
        if made == "file":
            fresh.touch(0o666)
        else:
            other.touch()
            fresh.symlink_to(other)
        with fresh.open("rb") as theirs:
            write_text(target, "key", private=True)
            assert not theirs.read()
        assert target.stat().st_mode & 0o777 == 0o600
        assert not target.is_symlink()
        target.unlink()


def test_concurrent_writers_never_mix_their_content(tmp_path: Path) -> None:
    file, texts = tmp_path / "state.json", [letter * 50_000 for letter in "abcd"]

    def write(text: str) -> None:
        for _ in range(20):
            with replacing(file) as replacement:
                replacement.write_text(text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not file.exists() or file.read_text() in texts
    for writer in writers:
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_trial_changes_nothing_and_raises_if_the_file_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("kept")
    try_replacing(file, 100)
    try_replacing(tmp_path / "new", 100)
    for impossible in (tmp_path, tmp_path / "none" / "new", tmp_path / ("x" * 254)):
        with pytest.raises(OSError):
            try_replacing(impossible, 100)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert file.read_text() == "kept"


def test_a_durable_file_is_on_the_disk_before_it_has_its_name_and_its_folder_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def noted(opened: int) -> None:
        place = Path(f"/proc/self/fd/{opened}").resolve()
        synced.append((place.name if place.is_dir() else place.read_text(), (tmp_path / "new" / "file").exists()))
        fsync(opened)

    monkeypatch.setattr(os, "fsync", noted)
    write_durably(tmp_path / "new" / "file", "text", private=True)
    assert synced[0] == ("text", False)
    assert sorted(synced[1:]) == [("new", True), (tmp_path.name, True)]  # the new folder, and the folder with its name
    assert ((tmp_path / "new" / "file").read_text(), (tmp_path / "new" / "file").stat().st_mode & 0o777) == (
        "text",
        0o600,
    )
