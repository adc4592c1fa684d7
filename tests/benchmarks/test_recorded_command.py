"""The command in a document of results, which equals the command line of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness.command_line import Option, command_line
from benchmarks.scale import recorder


def test_the_command_has_every_option_but_no_folder_of_another_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--rounds", "5", "--name", "two words", "--baseline", "../other"]
    monkeypatch.setattr("sys.argv", ["bench.py", *arguments])
    found = command_line("Test.", rounds=3, name="", seconds=1.0, baseline=Option(Path))
    assert found.command.startswith("python -m ")
    assert found.command.endswith(" --rounds 5 --name 'two words' --baseline CHECKOUT")
    monkeypatch.setattr("sys.argv", ["bench.py", "--name=a=b", "--baseline=../other"])
    assert command_line("Test.", name="", baseline=Option(Path)).command.endswith(" --name=a=b --baseline=CHECKOUT")


def test_a_document_names_the_options_that_differ_from_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("direct", "restart"):
        monkeypatch.setattr(recorder, part, lambda *_: {})
    file = tmp_path / "recorder.json"
    monkeypatch.setattr("sys.argv", ["recorder.py", "--boots", "2", "--without-kafka", "--json", str(file)])
    recorder.main()
    assert " --boots 2 --without-kafka " in json.loads(file.read_text())["command"]
