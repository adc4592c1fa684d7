"""Files that are read again when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from schemas.runtime.followed_file import FollowedFile, file_version


def text_of(file: Path) -> str:
    return file.read_text()


def test_a_file_is_read_once_after_each_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("first")
    followed = FollowedFile(file, text_of)
    assert (followed.changed(), followed.changed()) == ("first", None)
    os.utime(file, ns=(1, 1))
    assert (followed.changed(), followed.changed()) == ("first", None)
    fresh = tmp_path / "fresh"
    fresh.write_text("other")
    os.utime(fresh, ns=(1, 1))
    fresh.replace(file)
    assert (followed.changed(), followed.changed()) == ("other", None)


def test_a_file_of_a_known_version_is_not_read_at_first(tmp_path: Path) -> None:
    file = tmp_path / "file"
    missing = FollowedFile(file, text_of, version=None)
    assert (missing.changed(), missing.failure) == (None, "")
    file.write_text("first")
    known = FollowedFile(file, text_of, version=file_version(file))
    assert (missing.changed(), known.changed()) == ("first", None)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("a defect")])
def test_a_failed_read_is_logged_once_and_repeated_without_a_change(tmp_path: Path, error: Exception) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    failures: list[Exception] = [ValueError("another"), error, error]

    def fails_at_first(file: Path) -> str:
        if failures:
            raise failures.pop()
        return text_of(file)

    followed = FollowedFile(file, fails_at_first)
    with capture_logs() as logs:
        assert [followed.changed() for _ in range(3)] == [None, None, None]
    assert [(each["event"], each["error"]) for each in logs] == [
        ("file_not_read", str(error)),
        ("file_not_read", "another"),
    ]
    assert (followed.failure, followed.changed(), followed.failure) == ("another", "content", "")


def test_a_file_that_comes_back_unchanged_is_read_again(tmp_path: Path) -> None:
    file, away = tmp_path / "file", tmp_path / "away"
    file.write_text("content")
    followed = FollowedFile(file, text_of)
    assert followed.changed() == "content"
    file.rename(away)
    assert followed.changed() is None
    assert "No such file" in followed.failure
    away.rename(file)
    assert (followed.changed(), followed.failure) == ("content", "")
