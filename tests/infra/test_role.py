"""What every role does before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.role import begin_trace
from schemas.errors import ConfigError
from schemas.runtime import trace


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    trace.end()


def test_stamps_are_written_only_where_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POINTILLIST_TRACE", raising=False)
    begin_trace("bridge")
    assert not trace.on()
    monkeypatch.setenv("POINTILLIST_TRACE", str(tmp_path / "stamps"))
    begin_trace("bridge")
    assert trace.on()
    (file,) = (tmp_path / "stamps").iterdir()
    assert file.name.startswith("bridge-")


def test_a_trace_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POINTILLIST_TRACE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"POINTILLIST_TRACE: expected a folder to write to, .*file: File exists"):
        begin_trace("bridge")
