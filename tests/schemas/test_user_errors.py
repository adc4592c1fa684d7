"""Commands of modules: an error that the user can correct is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from schemas.errors import ConfigError
from schemas.runtime.user_errors import run_command

LAB = Path(__file__).parents[2] / "lab"


def test_an_error_of_the_user_or_of_a_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structlog, "is_configured", lambda: False)

    def refuse() -> None:
        raise ConfigError("expected data, got none")

    with pytest.raises(SystemExit) as ended:
        run_command(refuse)
    assert ended.value.code == ConfigError.exit_code
    assert capsys.readouterr().err == "error: expected data, got none\n"
    with pytest.raises(SystemExit):
        run_command((tmp_path / "cifar10.npz").read_bytes)
    output = capsys.readouterr().err
    assert output.startswith(f"error: {tmp_path / 'cifar10.npz'}: expected")
    assert output.count("\n") == 1


def test_an_unexpected_exception_keeps_its_traceback() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(fail)


def test_every_command_of_the_lab_reports_user_errors_in_one_line() -> None:
    commands = [text for file in LAB.rglob("*.py") if '\nif __name__ == "__main__":\n' in (text := file.read_text())]
    assert commands
    assert all("run_command(main)" in text for text in commands)
