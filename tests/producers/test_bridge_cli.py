"""Invalid options of the command `bridge`."""

from __future__ import annotations

import pytest

from tests.commands import run_command


@pytest.mark.parametrize("name", ["a b", "a/b", "", "x" * 65])
def test_an_invalid_name_is_rejected_in_one_line(name: str) -> None:
    options = ["--name", name, "--mqtt", "127.0.0.1:1", "--kafka", "127.0.0.1:1"]
    done = run_command("bridge", *options)
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert line.startswith("error: --name: ")
    assert repr(name) in line
