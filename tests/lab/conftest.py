"""The lab's commands in this process, and a small bundle with pictures to try them on."""

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
from tests.lab.colour_judge import as_onnx, coloured, save, write_bundle
from tests.lab.frail_judge import pictures, write_frail


@dataclass
class Ended:
    """A command's exit status and output."""

    code: int
    out: str
    err: str

    def success(self) -> Ended:
        """Return this; fails unless the command succeeded."""
        assert self.code == 0, self.err
        return self

    def refusal(self) -> str:
        """Return the one line of a refused command."""
        assert self.code == UserError.exit_code, self.err
        (line,) = self.err.strip().splitlines()
        assert line.startswith("error: ")
        return line


Command = Callable[..., Ended]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `pointillist lab` with these arguments."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pointillist", "lab", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve coloured pictures in a file."""
    return save(tmp_path / "data.npz", coloured(12))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that names colours."""
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def onnx_bundle(bundle: Path) -> Path:
    """The same as ONNX, which gives no gradients."""
    return as_onnx(bundle)


@pytest.fixture
def few_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few overlays and draws: a calibration takes a tenth of the time."""
    monkeypatch.setattr("lab.strip.calibrate.OVERLAYS", 10)
    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)


@pytest.fixture(scope="session")
def combined_frail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small network, calibrated for all statistics together. Tests that write use a copy."""
    folder = write_frail(tmp_path_factory.mktemp("combined") / "frail")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.strip.calibrate.OVERLAYS", 10)
        patch.setattr("lab.strip.limits.DRAWS", 50)
        calibrate_bundle(folder, pictures(300, 5), frr=0.05, combined=True, device=torch.device("cpu"))
    return folder
