"""Fixtures of the lab: its commands in this process, and small bundles with pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from infra.cli import main
from lab.strip.table import calibrate_bundle
from schemas.errors import UserError
from tests.infra.command_line import root_command
from tests.lab.colour_classifier import coloured_pictures, convert_to_onnx, save_pictures, write_bundle
from tests.lab.nonrobust_network import pictures, write_nonrobust_bundle


@dataclass
class CommandResult:
    """A command's exit status and output."""

    code: int
    out: str
    err: str

    def success(self) -> CommandResult:
        """Return this result. Fail if the command did not succeed."""
        assert self.code == 0, self.err
        return self

    def refusal(self) -> str:
        """Return the error of a command that rejected its input in one line."""
        assert self.code == UserError.exit_code, self.err
        (line,) = self.err.strip().splitlines()
        assert line.startswith("error: ")
        return line


Command = Callable[..., CommandResult]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `pointillist lab` with its arguments."""
    command = root_command()
    # Otherwise typer would build the command again for each run.
    monkeypatch.setattr("typer.main.get_command", lambda _: command)

    def run(*arguments: object) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["pointillist", "lab", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return CommandResult(code, printed.out, printed.err)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a file with twelve coloured pictures."""
    return save_pictures(tmp_path / "data.npz", coloured_pictures(12))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return the bundle of the colour classifier."""
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def onnx_bundle(bundle: Path) -> Path:
    """Return the bundle of the colour classifier as ONNX, which has no gradients."""
    return convert_to_onnx(bundle)


@pytest.fixture
def few_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the overlays and draws of a calibration, which then takes a tenth of the time."""
    monkeypatch.setattr("lab.strip.calibrate.OVERLAYS", 10)
    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)


@pytest.fixture(scope="session")
def combined_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of a small network, calibrated for all statistics together. Tests that write use a copy."""
    folder = write_nonrobust_bundle(tmp_path_factory.mktemp("combined") / "nonrobust")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.strip.calibrate.OVERLAYS", 10)
        patch.setattr("lab.strip.limits.DRAWS", 50)
        calibrate_bundle(folder, pictures(300, 5), frr=0.05, combined=True, device=torch.device("cpu"))
    return folder
