"""Small JSON files: the content that a strict reader accepts, and its errors for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import StateError
from schemas.runtime.json_files import read_json, read_object, write_json


def numbers(document: dict[str, object]) -> dict[str, int]:
    return {name: int(str(value)) for name, value in document.items()}


def test_an_object_is_parsed_and_a_missing_file_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    assert read_object(file, "numbers", numbers) == {}
    for durably in (False, True):
        write_json(file, {"b": 2, "a": 1}, durably=durably)
        assert read_object(file, "numbers", numbers) == {"a": 1, "b": 2}


@pytest.mark.parametrize("content", [b"[1]", b"{", b'{"a": "x"}', b"\xff\xfe"])
def test_any_other_content_is_named_with_the_file_and_the_remedy(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "numbers.json"
    file.write_bytes(content)
    with pytest.raises(StateError, match=rf"^{file}: expected (numbers|JSON), got .*\. Delete it\.$"):
        read_object(file, "numbers", numbers, "Delete it.")


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff"])
def test_the_lenient_reader_takes_damage_as_an_empty_object(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "numbers.json"
    file.write_bytes(content)
    assert read_json(file) == {}
