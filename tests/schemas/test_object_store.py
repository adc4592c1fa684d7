"""Object stores: folders, URLs, and missing packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.registry import known_implementations  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import create_engine

from consumers.console.data.quarantined import frame_of
from consumers.console.data.sealed_files import SealedFiles
from consumers.evidence.quarantine import Quarantine
from infra.state_folder.restore import find_backup
from processors.models.store import ModelStore
from schemas.errors import ConfigError
from schemas.keys.keys import KeyRing
from schemas.keys.sealing import PreviewBox
from schemas.transport.object_store import open_store

URL = "absent://user:hidden@bucket/prefix"
BOX = PreviewBox(bytes(32))


@pytest.fixture(autouse=True)
def _package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a scheme whose package is not installed, like `s3` without s3fs."""
    known = {"class": "absentfs.AbsentFileSystem", "err": "Install absentfs to access Absent"}
    monkeypatch.setitem(known_implementations, "absent", known)


def test_a_folder_and_a_url_are_opened(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}"):
        system, root = open_store("the store", url)
        system.pipe_file(f"{root}/file", b"content")
        assert (tmp_path / "file").read_bytes() == b"content"


def test_a_scheme_whose_package_is_missing_names_the_package_and_no_password() -> None:
    with pytest.raises(ConfigError) as refused:
        open_store("the store", URL)
    assert str(refused.value) == (
        "the store: expected a folder or a URL whose package is installed, got absent://. "
        "Install absentfs to access Absent."
    )


def test_an_unknown_scheme_is_rejected_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"expected a folder or a URL that fsspec opens, got nonsense://\. Correct it"
    ):
        open_store("the store", "nonsense://place")


@pytest.mark.parametrize(
    "opened",
    [
        pytest.param(lambda: Quarantine(URL, create_engine("sqlite://"), BOX), id="quarantine"),
        pytest.param(lambda: frame_of(URL, "site/door/1", KeyRing(bytes(32))), id="a quarantined frame"),
        pytest.param(lambda: SealedFiles(URL, "clips", BOX, "clip"), id="kept files"),
        pytest.param(lambda: ModelStore("absent://bucket"), id="models"),
        pytest.param(lambda: find_backup(URL), id="a backup"),
    ],
)
def test_each_kind_of_store_names_the_missing_package(opened: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"got absent://\. Install absentfs to access Absent\.$"):
        opened()
