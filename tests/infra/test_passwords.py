from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.cli.passwords import hidden, revealed
from infra.local.process import COMMAND
from infra.settings.variable import resolve
from tests.waiting import wait_until

URLS = [
    "rtsp://user:secret@host/x",
    "http://cam/video?user=a&pwd=secret",
    "rtsp://u:sec/ret@h/x",
    "rtsp://secret@h/x",
    "postgresql+psycopg://u:secret@db/pointillist",
    "cache:http://u:secret@h/a b\nc",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("option", ["", "--database=", "--connect-timeout-s="])
def test_urls_are_moved_from_the_arguments_to_variables_and_restored(url: str, option: str) -> None:
    arguments = ["camera", "attach", f"{option}{url}", "--name", "lab/door", f"{option}{url}"]
    shown, variables = hidden(arguments, {})
    assert "://" not in " ".join(shown)
    assert shown[2].startswith(f"{option}env:")
    assert len(variables) == 2
    assert revealed(shown, variables) == arguments
    assert resolve("env:NOT_SET") == "env:NOT_SET"


def test_existing_variables_and_references_to_them_are_kept() -> None:
    taken = {"POINTILLIST_URL_1": "sqlite://", "MY_URL": "sqlite://"}
    arguments = ["record", "--database", "env:MY_URL", "--quarantine", "s3://bucket"]
    shown, variables = hidden(arguments, taken)
    assert shown[:4] == arguments[:4]
    assert variables == {"POINTILLIST_URL_2": "s3://bucket"}
    assert revealed(shown, taken | variables) == arguments


def test_a_restarted_command_gets_its_original_options() -> None:
    command = [*COMMAND, "topics", "--kafka=tcp://nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "host:port" in done.stderr
    assert "'tcp://nowhere'" in done.stderr


def test_a_running_command_hides_its_urls_from_other_users(tmp_path: Path) -> None:
    command = [*COMMAND, "camera", "attach", "rtsp://u:sec/ret@127.0.0.1:9/x"]
    options = ["--name", "lab/door", "--mqtt", "127.0.0.1:9", "--spool", str(tmp_path), "--connect-timeout-s", "0"]
    environment = os.environ | {"POINTILLIST_CAMERA_KEY": f"0:{'00' * 64}"}
    child = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        arguments = Path(f"/proc/{child.pid}/cmdline")

        def has_restarted() -> bool:
            assert child.poll() is None
            return "env:POINTILLIST_URL_1" in arguments.read_text()

        wait_until(has_restarted, "the command to start again")
        assert "ret@" not in arguments.read_text()
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 2
    assert errors.splitlines()[-1].startswith("error: rtsp://")  # the address has arrived
    assert "sec/ret" not in errors
