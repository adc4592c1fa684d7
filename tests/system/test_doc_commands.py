"""Commands of README, tutorial and how-to pages: each command of a block runs as printed, or is parsed for a reason."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Final

import pytest
import yaml

from benchmarks.harness.rtsp import RtspServer
from infra.process.exit_status import FLEET_PENDING
from infra.state_folder import Layout
from infra.up.system_state import CameraState, camera_states
from schemas.errors import StateError
from tests.infra.command_line import options_of
from tests.system.doc_commands import (
    PAGES,
    ROOT,
    TEMPLATES,
    Command,
    block_commands,
    check_mentions,
    check_parses,
    named_options,
    span_commands,
)
from tests.waiting import wait_until

STREAM: Final = "rtsp://192.168.0.7/stream"
SECOND: Final = "rtsp://192.168.0.8/stream"
SYSTEM: Final = f".venv/bin/pointillist up --source {STREAM}"
"""The command that starts the system. The other commands use this system."""

RUN: Final = {
    re.escape(SYSTEM): (),
    rf".venv/bin/pointillist camera test {STREAM}( --picture look\.png)?": ("--seconds", "0.5"),
    rf".venv/bin/pointillist camera attach {SECOND} --state \.pointillist --name door --fps 2": (),
    r".venv/bin/pointillist camera test --cameras cameras\.yaml home/door": ("--seconds", "0.5"),
    r".venv/bin/pointillist audit --state \.pointillist": (),
}
"""Commands that run here, with options that limit their run time."""

ENDLESS: Final = {" camera attach ": "local/door"}
"""Commands that run until Ctrl-C, with their cameras. The test sends Ctrl-C when frames of the camera are recorded."""

PARSED: Final = {
    r"cd pointillist": "the clone is the working directory of this test",
    r"make up": "test_up.py runs a system of simulated cameras",
    r"make up 'ARGS=--scenario red-team --state red-team-drill'": "test_attacked_cameras.py runs attacks of one camera",
    r"make up 'ARGS=--scenario sticker --state sticker-drill'": "test_console.py runs the drill",
    r".venv/bin/pointillist up --cameras 0 --listen 10\.0\.0\.7": "test_access.py listens on another loopback address",
    r".venv/bin/pointillist enroll site/door --out door\.enrolment": "test_access.py enrols by that listener",
    r".venv/bin/pointillist up --cameras-file cameras\.yaml": "it runs what test_camera_run.py runs; see "
    "test_up_listed.py",
    rf".venv/bin/pointillist up --source {STREAM} --bundle (street|desk)": "test_bundle_command.py runs its own bundle",
    r".venv/bin/pointillist teach train labels/ --name desk": "test_teach.py trains on pictures of its own",
    r"make test": "it would run this test",
    r".venv/bin/pointillist bundle (create|check) .*": "test_bundle_command.py runs both on a network of its own",
    r"make setup": "the tests run by what it installs",
    r"make wheel": "`make release-check` builds and installs the wheel",
    r"pipx install \./pointillist-.*\.whl": "`make release-check` builds and installs the wheel",
    rf"pointillist camera attach {STREAM} --enrolment door\.enrolment": "its broker is another machine; "
    "test_secure_mosquitto.py attaches by an enrolment",
}
"""Commands that are only parsed, with the reason why they do not run here."""

COMMANDS: Final = [command for page in PAGES for command in block_commands(page)]
SPANS: Final = list(dict.fromkeys(command for page in (*PAGES, *TEMPLATES) for command in span_commands(page)))


def rules_of(command: Command) -> list[str]:
    return [rule for rule in (*RUN, *PARSED) if re.fullmatch(rule, str(command))]


def test_every_command_has_one_rule_and_every_rule_a_command() -> None:
    assert len(COMMANDS) > 15
    without = [f"{command.page}: {command}" for command in COMMANDS if len(rules_of(command)) != 1]
    assert without == []
    used = {rule for command in COMMANDS for rule in rules_of(command)}
    assert used == {*RUN, *PARSED}
    named = {name for reason in PARSED.values() for name in re.findall(r"test_\w+\.py", reason)}
    assert named <= {file.name for file in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS), ids=str)
def test_every_command_parses_and_names_existing_files_and_options(command: Command) -> None:
    check_parses(command)


@pytest.mark.parametrize("command", SPANS, ids=str)
def test_every_command_in_the_text_names_a_subcommand_and_options_that_exist(command: Command) -> None:
    check_mentions(command)


def test_every_option_in_the_consoles_pages_is_an_option_of_the_console() -> None:
    named = {option for template in TEMPLATES for option in named_options(template)}
    assert named
    assert named <= options_of("console")


@pytest.mark.brokers
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_run_as_printed_on_one_system(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    layout = Layout(tmp_path / ".pointillist")

    def camera(name: str) -> CameraState | None:
        with suppress(StateError):  # the recorder is creating its tables
            return {each.name: each for each in camera_states(layout)}.get(name) if layout.folder.is_dir() else None
        return None

    def sends(name: str) -> bool:
        found = camera(name)
        return found is not None and found.frames > 0

    with RtspServer("--counted", 160, 96, 5) as server, (tmp_path / "up.log").open("w+") as log:
        address = server.address("counted")
        door = {"name": "door", "source": {"address": address}}
        (tmp_path / "cameras.yaml").write_text(yaml.safe_dump({"site": "home", "cameras": [door]}))

        def with_local_stream(command: Command) -> list[str]:
            return [word.replace(STREAM, address).replace(SECOND, address) for word in command.words]

        commands = list(dict.fromkeys(COMMANDS_TO_RUN))
        [first] = [command for command in commands if str(command) == SYSTEM]

        def run_to_its_end(command: Command) -> None:
            """Run a command that uses the system until it ends. If it runs until Ctrl-C, send that after frames."""
            [rule] = [rule for rule in RUN if re.fullmatch(rule, str(command))]
            line = [*with_local_stream(command), *RUN[rule]]
            camera_name = next((name for part, name in ENDLESS.items() if part in str(command)), None)
            with (
                tempfile.TemporaryFile("w+") as printed,
                subprocess.Popen(line, cwd=tmp_path, stdout=printed, stderr=STDOUT, text=True) as ran,
            ):
                try:
                    if camera_name is not None:
                        wait_until(partial(sends, camera_name), f"frames of {camera_name}", within_s=180, every_s=0.5)
                        ran.send_signal(signal.SIGINT)
                    status = ran.wait(200)
                finally:
                    ran.kill()
                printed.seek(0)
                # A stopped camera waits a few seconds for confirmations, then leaves unconfirmed frames in its spool.
                assert status in ((0, FLEET_PENDING) if camera_name else (0,)), f"{command}: {printed.read()}"

        down_result = None
        with subprocess.Popen(with_local_stream(first), cwd=tmp_path, stdout=log, stderr=STDOUT, text=True) as up:

            def recorded() -> bool:
                assert up.poll() is None, Path(log.name).read_text()
                return sends("local/camera")

            try:
                wait_until(recorded, "frames of the camera of the first command", within_s=120, every_s=0.5)
                with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                    list(pool.map(run_to_its_end, [command for command in commands if command != first]))
                assert (tmp_path / "look.png").is_file()
            finally:
                down = [".venv/bin/pointillist", "down", "--state", ".pointillist"]
                with suppress(subprocess.TimeoutExpired):
                    down_result = subprocess.run(down, cwd=tmp_path, check=False, timeout=240, stdout=PIPE, text=True)
                    up.wait(60)
                up.kill()
        last = Path(log.name).read_text().splitlines()[-1]
        assert up.returncode == 0, Path(log.name).read_text()
        assert down_result is not None, "`pointillist down` has not ended"
        assert down_result.stdout.splitlines()[-1] == "stopped"
        assert re.fullmatch(r"([\d,]+) published = \1 recorded\. Nothing lost\. .*Report: .*report\.json", last), last


COMMANDS_TO_RUN: Final = [
    Command("", command.words) for command in COMMANDS if any(re.fullmatch(rule, str(command)) for rule in RUN)
]
