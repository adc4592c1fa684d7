"""Unreadable and unwritable files: one error line with the file and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import infra.cli
from infra.bundling.contact_sheet import write_sheet
from infra.bundling.folder import appearing
from infra.cli import signer
from infra.cli.lab.shared import lab_extra, write_json
from infra.pki.enrolment import Enrolment
from infra.pki.role_generations import GENERATIONS_FILE, role_generations
from infra.state_folder.environment import read_secret
from processors.stages.preprocess.contract import Place
from processors.stages.preprocess.dct_quantisation import read_table
from processors.stages.preprocess.quantisation import read_parameters
from producers.sources.login import LoginPlace
from schemas.errors import UserError
from schemas.runtime.user_errors import run_command

PLACE: Any = Place


def _folder(out: Path) -> None:
    with appearing(out):
        pytest.fail("expected an error before any work")


def _generations(file: Path) -> None:
    file.rename(file.with_name(GENERATIONS_FILE))
    role_generations(file.parent)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda out: write_sheet([], out), "--sheet: expected a writable file, got "),
        (_folder, "--out: expected a folder that can be made, got "),
        (lambda out: signer.init("me", out), "--folder: expected a writable folder, got "),
        (lambda out: write_json(out, {}), "--json: expected a writable file, got "),
    ],
)
def test_an_unwritable_place_is_one_error_line(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        write(tmp_path / "file" / "out")
    assert str(caught.value).startswith(message)
    assert str(tmp_path / "file" / "out") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_contact_sheet_keeps_a_link_and_rejects_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").touch()
    (tmp_path / "link").symlink_to("sheet.png")
    write_sheet([], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "sheet.png").stat().st_size
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: expected a regular file"):
        write_sheet([], tmp_path / "pipe")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (Enrolment.read, "{file}: expected an enrolment, got bytes that are no text."),
        (_generations, f"{{folder}}/{GENERATIONS_FILE}: expected JSON, got something else."),
        (read_table, "binary: expected a readable text file with a table of steps, got "),
        (lambda file: read_parameters(file, PLACE), "binary: expected a safetensors file, got "),
        (lambda file: LoginPlace(file=file).read(), "login: expected user:password in the file {file}: it is not text"),
        (
            lambda file: read_secret(None, file / "none", "the key", "KEY"),
            "the key: expected a readable file, got {file}/none: Not a directory. Correct KEY_FILE.",
        ),
    ],
)
def test_a_file_in_another_format_is_one_error_line(
    tmp_path: Path, read: Callable[[Path], object], message: str
) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe\x00" * 9)
    with pytest.raises(UserError) as caught:
        read(file)
    assert str(caught.value).startswith(message.format(file=file, folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_secret_comes_from_its_variable_before_its_file() -> None:
    assert read_secret(SecretStr(" given\n"), Path("none"), "the key", "KEY") == "given"


@pytest.mark.parametrize(("name", "is_reported"), [("openvino", True), ("schemas.gone", False), (None, False)])
def test_a_missing_library_is_named_with_its_remedy_and_a_missing_module_of_ours_is_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str | None, is_reported: bool
) -> None:
    def importing() -> None:
        raise ModuleNotFoundError("none", name=name)

    monkeypatch.setattr(infra.cli, "app", importing)
    with pytest.raises(SystemExit if is_reported else ModuleNotFoundError):
        run_command(infra.cli._run)
    remedy = "Install pointillist[server], or run `make setup-dev` in a checkout."
    line = f"error: openvino is missing: this command needs it. {remedy}\n"
    assert capsys.readouterr().err == (line if is_reported else "")
    with pytest.raises(UserError if is_reported else ModuleNotFoundError), lab_extra():
        importing()
