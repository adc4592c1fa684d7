"""`pointillist lab preprocessing` and `qusecnets`: what cannot be done is refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.cli import main
from schemas.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("preprocessing", "--subject", "imagenet"), "--subject: expected cifar10 or scene128, got 'imagenet'"),
        (("preprocessing", "--part", "table"), "--part: expected standard or bpda"),
        (("preprocessing",), "expected POINTILLIST_DATA"),
        (("qusecnets", "--network", "mnist"), "--network: expected mnist-plain or"),
        (("qusecnets",), "expected POINTILLIST_DATA"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTILLIST_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["pointillist", "lab", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == UserError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {said}")
    assert not list(tmp_path.iterdir())
