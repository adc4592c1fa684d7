"""The command `pointillist teach`: import and export of labels, errors before a training, and the report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lab.teach.labelled
import lab.teach.train
from infra.bundling import taught as taught_module
from infra.cli import teach
from infra.state_folder import Layout
from infra.state_folder.console_database import opened_console_database
from lab.teach.report import Held
from schemas.runtime.json_files import write_json
from tests.consumers.console_rig import jpeg_scene
from tests.infra.command_line import refusal, run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Layout(tmp_path / "state").fleet_secret()
    return tmp_path / "state"


def test_labels_are_imported_into_a_console_and_exported_again(state: Path, tmp_path: Path) -> None:
    for name, numbers in (("car", (1, 2)), ("truck", (3,))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in numbers:
            (tmp_path / "pictures" / name / f"{number}.jpg").write_bytes(jpeg_scene(number))
    (tmp_path / "pictures" / "car" / "notes.txt").touch()
    done = run("teach", "import", tmp_path / "pictures", "--state", state)
    *lines, last = done.output.splitlines()
    assert lines == ["imported 3 labelled pictures", "car: 2", "truck: 1"]
    assert last == "skipped 1 without the ending of a picture, such as `.jpg`"
    assert (state / "quarantine" / "teach").is_dir()
    with opened_console_database(Layout(state).console_store) as store:
        (line,) = store.newest_operations()
    assert (line.what, line.subject, line.detail) == ("label", "3 frames", "imported: car, truck")
    done = run("teach", "export", tmp_path / "out", "--state", state)
    first, *others = done.output.splitlines()
    assert (first, sorted(others)) == ("exported 3 labelled pictures", ["car: 2", "truck: 1"])
    assert {each.name: len(list(each.iterdir())) for each in (tmp_path / "out").iterdir()} == {"car": 2, "truck": 1}
    elsewhere = ("--store", f"sqlite:///{tmp_path}/other.sqlite", "--kept-files", tmp_path / "kept")
    assert run("teach", "export", tmp_path / "none", "--state", state, *elsewhere).output.startswith("exported 0 ")


def test_labels_are_those_of_the_console_whose_database_and_files_settings_of_up_name(
    state: Path, tmp_path: Path
) -> None:
    (tmp_path / "pictures" / "car").mkdir(parents=True)
    (tmp_path / "pictures" / "car" / "1.jpg").write_bytes(jpeg_scene(1))
    own = {"store": f"sqlite:///{tmp_path}/own.sqlite", "kept_files": f"{tmp_path}/kept"}
    write_json(Layout(state).run, {"options": {"console": own}})
    run("teach", "import", tmp_path / "pictures", "--state", state)
    assert (tmp_path / "kept" / "teach").is_dir()
    of_console = ("--store", own["store"], "--kept-files", own["kept_files"])
    for number, options in enumerate(((), of_console)):
        done = run("teach", "export", tmp_path / f"out-{number}", "--state", state, *options)
        assert done.output.startswith("exported 1 ")


def test_a_console_s_database_that_is_named_but_cannot_be_used_is_one_line(state: Path, tmp_path: Path) -> None:
    for store, message in (
        (
            "env:POINTILLIST_OWN",
            "the console's database: expected its URL in the variable POINTILLIST_OWN, got no such",
        ),
        ("postgresql://me:hidden@127.0.0.1:9/own", "the console's database 127.0.0.1:9/own: expected a response, got "),
    ):
        write_json(Layout(state).run, {"options": {"console": {"store": store}}})
        line = refusal(run("teach", "export", tmp_path / "out", "--state", state))
        assert line.startswith(message)
        assert "hidden" not in line
    write_json(Layout(state).run, {"options": {"console": {"store": "env:POINTILLIST_OWN"}}})
    own = f"sqlite:///{tmp_path}/own.sqlite"
    done = run("teach", "export", tmp_path / "out", "--state", state, POINTILLIST_OWN=own)
    assert done.output.startswith("exported 0 ")
    assert (tmp_path / "own.sqlite").is_file()


def test_a_folder_with_other_contents_is_rejected(state: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name in ("full", "full/file"):
        line = refusal(run("teach", "export", tmp_path / name, "--state", state))
        assert line == f"{tmp_path / name}: expected an empty folder, or none. Choose another folder."
    line = refusal(run("teach", "import", tmp_path / "full" / "file", "--state", state))
    assert line.endswith("expected a folder with one sub-folder for each class. Correct the path.")
    line = refusal(run("teach", "import", tmp_path / "full", "--state", state))
    assert line.endswith("full: expected one sub-folder of pictures for each class, got none. Correct the path.")


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the training by one without work, whose network is right on three of four held-out labels."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.95, 0.05]])
    held = Held(("car", "truck"), ("a", "b", "c", "d"), np.array([0, 0, 1, 1]), probabilities, 0.75)
    training = SimpleNamespace(
        held=held, thorough=True, seconds=3.2, choice=SimpleNamespace(words="ridge"), document=lambda: {"head": "ridge"}
    )

    def train(general: object, labelled: object, settings: object, progress: Any) -> object:
        progress.phase("features", 4)
        progress.advance(4)
        return training

    def write(_: object, general: object, labelled: object, folder: Path, **options: Any) -> object:
        folder.mkdir(parents=True)
        (folder / "model.toml").write_text("new")
        return SimpleNamespace(model_id=f"{options['name']}@{options['version']}+1")

    def read(folder: Path, skipped: Any) -> object:
        skipped("broken.jpg", "no picture")
        return object()

    monkeypatch.setattr(teach, "_general", lambda _: object())
    monkeypatch.setattr(lab.teach.train, "teach", train)
    monkeypatch.setattr(lab.teach.labelled, "read_labelled", read)
    monkeypatch.setattr(taught_module, "write_taught", write)
    return training


def test_the_report_lists_accuracy_confusions_suspect_labels_and_the_next_command(taught: Any, tmp_path: Path) -> None:
    out, report = tmp_path / "made", tmp_path / "report.json"
    done = run("teach", "train", tmp_path, "--name", "desk", "--out", out, "--json", report, "--progress")
    lines = done.stdout.splitlines()
    assert [json.loads(line) for line in lines[:2]] == [
        {"phase": "features", "step": 0, "steps": 4}, {"phase": "features", "step": 4, "steps": 4},
    ]  # fmt: skip
    assert lines[2] == "head: ridge; upper blocks trained"
    assert lines[3].startswith("right on 4 held-out labels: 75.0% (")
    assert lines[3].endswith("25.0% unsure below 0.75")
    assert lines[4].startswith("the same labels chose the settings, so these shares are somewhat too good")
    assert [line.split() for line in lines[5:8]] == [
        ["|", "car", "truck", "unsure"], ["car", "|", "2", "0", "0"], ["truck", "|", "1", "0", "1"],
    ]  # fmt: skip
    assert lines[8] == "look at d: reads car, truck 5%"
    assert lines[-3:] == ["trained in 3 s", f"desk@1+1 in {out}", f"next: pointillist up --source URL --bundle {out}"]
    assert json.loads(report.read_text()) == {"head": "ridge", "bundle": "desk@1+1"}
    assert "skipped broken.jpg: no picture" in done.stderr


def test_an_earlier_bundle_is_replaced_only_with_an_option(
    taught: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "MADE", tmp_path / "bundles")
    old = tmp_path / "bundles" / "desk"
    old.mkdir(parents=True)
    (old / "model.toml").write_text("old")
    command = ("teach", "train", tmp_path, "--name", "desk")
    assert "expected an empty folder, got an earlier bundle. Give --replace." in refusal(run(*command))
    assert (old / "model.toml").read_text() == "old"
    done = run(*command, "--replace")
    assert done.output.splitlines()[-1] == "next: pointillist up --source URL --bundle desk"
    assert (old / "model.toml").read_text() == "new"
    assert [each.name for each in old.parent.iterdir()] == ["desk"]


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_the_name_of_a_shipped_network_needs_a_folder(
    taught: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(teach, "MADE", tmp_path / "bundles")
    monkeypatch.setattr("bundles.MADE", tmp_path / "bundles")
    command = ("teach", "train", tmp_path, "--name", name)
    assert f"got {name}. Choose another one, or give --out." in refusal(run(*command, "--replace"))
    assert not (tmp_path / "bundles").exists()
    assert run(*command, "--out", tmp_path / "made").exit_code == 0


def test_a_folder_of_other_files_is_not_replaced(taught: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    command = ("teach", "train", tmp_path, "--name", "desk", "--out", tmp_path, "--replace")
    assert "expected an empty folder, got other files. Choose another one." in refusal(run(*command))


@pytest.mark.parametrize("name", [b"unsure", b"caf\xe9", b"a\x7f", b"x" * 65])
def test_an_invalid_class_name_is_rejected_before_the_training(taught: Any, tmp_path: Path, name: bytes) -> None:
    for each in ("car", os.fsdecode(name)):
        (tmp_path / "labels" / each).mkdir(parents=True)
    line = refusal(run("teach", "train", tmp_path / "labels", "--name", "desk", "--out", tmp_path / "made"))
    assert line.startswith("class: expected at most 64 bytes of printable UTF-8")
    assert not (tmp_path / "made").exists()


def test_an_invalid_name_is_rejected_before_the_training(taught: Any, tmp_path: Path) -> None:
    line = refusal(run("teach", "train", tmp_path, "--out", tmp_path / "made", "--name", "a b"))
    assert "--name: expected at most 64 letters, digits, `.`, `_` and `-`, got 'a b'" in line
    assert not (tmp_path / "made").exists()
