"""The printed lines of `pointillist cameras`, `logs` and `down`."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.cli import status  # the import registers the commands
from infra.local import role_table
from infra.local.process import ProcessId
from infra.state_folder import Layout
from infra.state_folder.backup import write_backup
from tests.infra.command_line import refusal, run
from tests.infra.test_system_state import report, write_database


@pytest.mark.parametrize(("options", "line"), [((), "no camera yet\n"), (("--broken",), "no camera is broken\n")])
def test_without_a_camera_one_line_is_printed(tmp_path: Path, options: tuple[str, ...], line: str) -> None:
    done = run("cameras", "--state", tmp_path, *options)
    assert (done.exit_code, done.output) == (0, line)


def test_a_camera_has_its_age_its_size_and_its_rate(tmp_path: Path) -> None:
    write_database(Layout(tmp_path), [report("a/door")], {"a/door": 1})
    done = run("cameras", "--state", tmp_path, COLUMNS="200")
    (row,) = (line for line in done.output.splitlines() if "a/door" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[0] == "a/door"
    assert cells[3].endswith(" s ago")
    assert cells[4] == "64×48 2/s"


def test_logs_follow_appended_lines_and_a_truncated_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = tmp_path / "logs" / "recorder.log"
    log.parent.mkdir()
    log.write_text("first\n")
    following = [(log, "first\nsecond\n"), (log, "cut\n")]

    def write_next(_: float) -> None:
        if not following:
            raise KeyboardInterrupt
        file, text = following.pop(0)
        file.write_text(text)

    monkeypatch.setattr(status, "time", SimpleNamespace(sleep=write_next))
    status.logs("recorder", tmp_path, lines=1, follow=True)
    assert capfdbinary.readouterr().out == b"first\nsecond\ncut\n"


def test_logs_follow_a_log_cut_to_its_tail_without_repeating_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = tmp_path / "logs" / "recorder.log"
    log.parent.mkdir()
    old = "".join(f"line {number}\n" for number in range(2000))
    log.write_text(old)
    kept = f"{old}second\nthird\n"[-8192:]
    following = [f"{old}second\n", "", kept, f"{kept}fourth\n"]

    def write_next(_: float) -> None:
        if not following:
            raise KeyboardInterrupt
        log.write_text(following.pop(0))

    monkeypatch.setattr(status, "time", SimpleNamespace(sleep=write_next))
    status.logs("recorder", tmp_path, lines=1, follow=True)
    assert capfdbinary.readouterr().out == b"line 1999\nsecond\nthird\nfourth\n"


class SlowSystem:
    """A supervisor that needs more than a second to end."""

    pid = 7

    def __init__(self) -> None:
        self.signals: list[signal.Signals] = []

    def send(self, signum: signal.Signals) -> bool:
        self.signals.append(signum)
        return True

    def wait_gone(self, deadline_s: float) -> bool:
        return deadline_s > 1


@pytest.mark.parametrize(
    ("wait_s", "code", "line"), [(0.5, 1, "still stopping after 0.5 s, as pid 7"), (2, 0, "stopped")]
)
def test_down_waits_up_to_its_limit_and_its_status_tells_whether_the_system_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_s: float, code: int, line: str
) -> None:
    system: Any = SlowSystem()
    monkeypatch.setattr(role_table, "supervisor", lambda _: system)
    done = run("down", "--state", tmp_path, "--wait", wait_s)
    assert (done.exit_code, done.output.splitlines()[-1]) == (code, line)
    assert system.signals == [signal.SIGINT]


def test_down_does_not_interrupt_a_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, signals, refused = Layout(tmp_path / "state"), [], []
    layout.fleet_secret()
    write_backup(layout, str(tmp_path / "to"), "1")

    def restore_nothing(fresh: Layout, *_: object, **__: object) -> None:
        refused.append(refusal(run("down", "--state", fresh.folder)))
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessId, "send", lambda _, signum: signals.append(signum))
    monkeypatch.setattr("infra.state_folder.restore.restore_backup", restore_nothing)
    run("restore", "--from", tmp_path / "to", "--state", tmp_path / "fresh")
    assert (len(refused), signals) == (1, [])
    assert "expected a running system, got none" in refused[0]
