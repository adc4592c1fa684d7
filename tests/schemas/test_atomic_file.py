"""A file that is written anew is the old one or the new one, whoever reads it and whatever happens."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from schemas.runtime.atomic_file import replacing, try_replacing


def test_a_reader_finds_the_old_file_until_all_of_the_new_one_is_written(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")
    with replacing(file) as fresh:
        fresh.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")

    def killed() -> None:
        with replacing(file) as fresh:
            fresh.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_file_keeps_who_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "model.toml"
    file.write_text("old")
    file.chmod(0o640)
    with replacing(file) as fresh:
        fresh.write_text("new")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_private_file_is_its_owners_alone_from_the_first_byte(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with replacing(file, private=True) as fresh:
        fresh.write_text("secret")
        assert fresh.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_mode & 0o777 == 0o600


def test_threads_that_write_the_same_file_do_not_mix(tmp_path: Path) -> None:
    file, texts = tmp_path / "state.json", [letter * 50_000 for letter in "abcd"]

    def write(text: str) -> None:
        for _ in range(20):
            with replacing(file) as fresh:
                fresh.write_text(text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not file.exists() or file.read_text() in texts
    for writer in writers:
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_trial_changes_nothing_and_finds_what_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("kept")
    try_replacing(file, 100)
    try_replacing(tmp_path / "new", 100)
    for impossible in (tmp_path, tmp_path / "none" / "new", tmp_path / ("x" * 254)):
        with pytest.raises(OSError):
            try_replacing(impossible, 100)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert file.read_text() == "kept"
