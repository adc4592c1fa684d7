"""Invalid arguments: each command reports them in one error line, before any other work."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from ssl import MemoryBIO

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from typer import Exit

from infra.cameras.identity import state_home
from infra.cli import doctor, main, user
from infra.cli.camera_test import _print_result
from infra.cli.doctor import Finding
from infra.cli.lab.shared import print_figures, require_writable
from infra.cli.status import logs
from infra.cli.terminal import Console
from infra.local.user_folders import cache_folder
from infra.pki.authority import Authority
from infra.up.settings import source_entry
from lab.golden import compare
from schemas.errors import ConfigError, StateError
from schemas.runtime.user_errors import file_errors
from schemas.transport.access import Tls
from tests.consumers.console_rig import jpeg_scene
from tests.infra.command_line import call, refusal, run
from tests.infra.test_camera_test import report_of

NOT_TEXT = b"\xff\xfe\xf3secret of one line\n"
TAG = "/x/[/y]"
"""Text that rich's markup does not accept."""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["topics", "--kafka", "a..b:9092"], "expected host:port with a port from 1 to 65535, got 'a..b:9092'"),
        (["topics", "--kafka", f"{'x' * 64}:9092"], "expected host:port with a port from 1 to 65535"),
        (["topics", "--kafka", "localhost:²"], "expected host:port with a port from 1 to 65535, got 'localhost:²'"),
        (["camera", "run", "/proc/nowhere", "--share", "²/3"], "share: expected a share such as 1/3, got '²/3'"),
        (["camera", "test"], "URL is missing: expected an address such as rtsp://…, a device or a file. Give it as"),
        (["camera", "run"], "FILE is missing: expected the list of cameras, cameras.yaml. Give it as the argument."),
        (["homeassistant", "--mqtt", "127.0.0.1:1"], "--database is missing: expected a URL. Give --database, or "),
        (["key", "a/b", "--state", "/proc/nowhere"], "--state: expected a state folder"),
        (["teach", "export", "/proc/nowhere/x", "--state", "/proc/nowhere"], "--state: expected a state folder"),
        (["teach", "import", "/", "--state", "/proc/nowhere"], "--state: expected a state folder"),
    ],
)
def test_an_invalid_argument_is_one_error_line(arguments: list[str], named: str) -> None:
    assert named in refusal(run(*arguments, POINTILLIST_FLEET_SECRET="00" * 16))


@pytest.mark.parametrize(
    "command", ["ca role bridge-2", "ca renew", "enroll a/b --out x", "rotate a/b --out x", "revoke a/b"]
)
def test_no_folder_is_created_for_a_mistyped_fleet(command: str, tmp_path: Path) -> None:
    assert "--state: expected a state folder" in refusal(run(*command.split(), "--state", tmp_path / "typo"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["ca renew --every", "camera discover --seconds", "camera settings a/b --mqtt localhost:1 --wait"]
)
def test_an_infinite_wait_is_rejected(command: str) -> None:
    assert "expected at most" in refusal(run(*command.split(), "inf"))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "lab psnr --drop-ratio x",
            "--drop-ratio: expected a number, got 'x'. `pointillist lab psnr --help` shows the options.",
        ),
        ("token create", "NAME is missing: expected a value. `pointillist token create --help` shows the options."),
        (
            "token crate",
            "No such command 'crate'. Did you mean 'create'? `pointillist token --help` shows the options.",
        ),
        (
            "audit --stat .",
            "No such option: --stat (Possible options: --state). `pointillist audit --help` shows the options.",
        ),
        ("audit here", "Got unexpected extra argument(s) (here). `pointillist audit --help` shows the options."),
        ("audit --state", "--state: expected a value, got none."),
        ("up --plain=yes", "--plain: expected no value, got one."),
    ],
)
def test_an_error_in_the_arguments_is_one_line_that_names_the_help(command: str, line: str) -> None:
    assert refusal(run(*command.split())) == line


def test_the_end_of_the_input_at_a_prompt_is_an_error_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def end(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(user, "getpass", end)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(ConfigError, match=r"^standard input: expected an answer, got its end"):
        call("user", "add", "ada", "--file", tmp_path / "users")


def test_a_group_without_a_command_prints_its_help() -> None:
    done = run("token")
    assert done.exit_code == 2
    assert "API tokens of the console." in done.output


def test_a_secret_or_a_login_that_is_not_text_is_rejected_and_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "bytes"
    file.write_bytes(NOT_TEXT)
    for done in (
        run("key", "a/b", POINTILLIST_FLEET_SECRET_FILE=str(file)),
        run("topics", "--kafka", "localhost:1", "--kafka-login-file", file),
    ):
        line = refusal(done)
        assert f"{file}" in line
        assert "got a file that is not text" in line or ": a file that is not text" in line


@pytest.mark.parametrize(
    ("arguments", "option", "bound"),
    [
        (("token", "create", "ci", "--days", 400), "--days", "366"),
        (("bundle", "check", "scene", "--images", "/", "--drop-ratio", 25), "--drop-ratio", "0.875"),
        (("teach", "train", "/", "--name", "street", "--drop-ratio", 25), "--drop-ratio", "0.875"),
    ],
)
def test_a_number_out_of_range_is_rejected_with_the_option_and_the_bound(
    arguments: tuple[object, ...], option: str, bound: str
) -> None:
    line = refusal(run(*arguments))
    assert line.startswith(f"{option}: expected at most {bound}, got {arguments[-1]}. `")


def test_the_error_for_a_short_password_has_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    with pytest.raises(ConfigError, match=r"^password: expected 10 to 1000 characters, got 5\. "):
        user.add("ada", file=tmp_path / "users")


@pytest.mark.parametrize("typed", [NOT_TEXT, None])
def test_a_missing_password_or_one_that_is_not_text_is_rejected(
    typed: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if typed is None else io.TextIOWrapper(io.BytesIO(typed), "utf-8", "surrogateescape")
    monkeypatch.setattr(sys, "stdin", text)
    with pytest.raises(ConfigError, match="password: expected"):
        user.add("ada", file=tmp_path / "users")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_file_names_it_and_other_errors_keep_their_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    long_name = tmp_path / ("x" * 300)
    with pytest.raises(StateError, match=r"x{300}: expected a place .*, got File name too long"), file_errors():
        long_name.stat()
    with pytest.raises(StateError, match=r"disk: expected a place .*, got full"), file_errors():
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(ConnectionRefusedError), file_errors():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    monkeypatch.setattr(structlog, "is_configured", lambda: True)  # a role runs
    with pytest.raises(OSError, match="File name too long"), file_errors():
        long_name.stat()


def test_up_rejects_a_variable_that_its_roles_would_not_follow(tmp_path: Path) -> None:
    line = refusal(run("up", "--state", tmp_path / "state", POINTILLIST_RECORDER__BOUNDS__DATABASE_AGE_S="7d"))
    assert line.startswith("POINTILLIST_RECORDER__BOUNDS__DATABASE_AGE_S: expected a variable of up, got one of a role")
    assert "Rename it to POINTILLIST_UP__RECORDER__BOUNDS__DATABASE_AGE_S, or" in line
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("imports", ["infra.cli.up", "typer", "schemas.errors"])
def test_an_interrupt_during_the_imports_ends_a_command_without_a_traceback(imports: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {imports!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
    )
    path = os.pathsep.join((str(tmp_path), *filter(None, sys.path)))
    command, variables = [sys.executable, "-m", "infra.cli", "up"], os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_command_on_an_unreadable_folder_is_one_error_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    monkeypatch.setattr(sys, "argv", ["pointillist", "logs", "recorder", "--state", "x" * 300])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: xxx")


def test_an_unwritable_file_of_figures_is_rejected_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, _: place != tmp_path)
    with pytest.raises(ConfigError, match="--json: expected a writable file"):
        require_writable(tmp_path / "new" / "figures.json")
    (tmp_path / "existing.json").touch()
    require_writable(tmp_path / "existing.json")


@pytest.mark.parametrize("option", ["--out", "--runs"])
def test_a_file_in_place_of_a_generator_s_folder_is_rejected_before_the_training(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.aigan.run.train_task", lambda *_, **__: pytest.fail("it was trained"))
    (tmp_path / "file").touch()
    folders = {"--out": tmp_path / "out", "--runs": tmp_path / "runs", option: tmp_path / "file"}
    options = [word for option_and_folder in folders.items() for word in option_and_folder]
    assert f"{option}: expected a writable folder" in refusal(
        run("lab", "aigan", "train", "--dataset", "scene", *options)
    )


def test_an_unknown_revision_is_rejected_before_the_golden_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "traced_outputs", lambda: pytest.fail("the batch was computed"))
    assert "revision: expected one of git, got 'no-such'" in refusal(run("lab", "golden", "--since", "no-such"))


def test_text_with_brackets_is_printed_unchanged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_figures(TAG, {"data": TAG, "interval": [0.5, 2 / 3]})
    out = capsys.readouterr().out
    assert out.count(TAG) == 2
    assert "[0.5000, 0.6667]" in out
    _print_result(Console(soft_wrap=True), report_of(address="rtsp://[fd00::1]/door", key_frames=1, frames=9))
    assert "rtsp://[fd00::1]/door" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_finding", lambda what, look, needed=True: Finding(what, TAG, False))
    with pytest.raises(Exit):
        doctor.doctor()
    assert TAG in capsys.readouterr().out


def test_the_error_for_a_user_without_a_home_names_the_variable_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nobody(_: object) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for variable in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for find in (state_home, cache_folder):
        with pytest.raises(ConfigError, match="HOME is missing: expected the home folder of this user"):
            find()
    (tmp_path / "pictures" / "car").mkdir(parents=True)
    (tmp_path / "pictures" / "car" / "1.jpg").write_bytes(jpeg_scene(1))
    options = ("--store", f"sqlite:///{tmp_path}/labels.sqlite", "--kept-files", tmp_path / "kept")
    done = run("teach", "import", tmp_path / "pictures", *options, POINTILLIST_FLEET_SECRET="00" * 16)
    assert done.output.startswith("imported 1 labelled pictures")


def test_a_source_in_the_home_of_an_unknown_user_is_rejected() -> None:
    with pytest.raises(ConfigError, match="path: expected a user with a home folder, got '~no-such-user/x'"):
        source_entry("~no-such-user/x", 1, 1.0, None)


def test_a_terminal_without_columns_and_a_closed_output_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    Console(soft_wrap=True).print("error: expected a word")
    assert capsys.readouterr().out == "error: expected a word\n"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "recorder.log").write_text("a line\n")
    monkeypatch.setattr(sys, "stdout", None)
    logs("recorder", tmp_path)


def test_a_file_in_place_of_a_signer_s_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refusal(run("signer", "init", "ada", "--folder", tmp_path / "file"))
    assert "--folder: expected a writable folder" in line


def test_replicas_of_an_unreachable_kafka_are_one_error_line(caplog: pytest.LogCaptureFixture) -> None:
    assert "expected all copies of each partition" in refusal(run("replicas", "--kafka", "127.0.0.1:1"))
    assert [record for record in caplog.records if record.name.startswith("aiokafka")] == []


def test_an_encrypted_renewed_key_keeps_the_former_certificate_in_use(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "pki")
    issued = authority.issue("bridge")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_text(issued.certificate)
    key.write_text(issued.key)
    context = Tls(None, certificate, key).context()
    plain = load_pem_private_key(issued.key.encode(), None)
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")))
    context.wrap_bio(MemoryBIO(), MemoryBIO(), server_hostname="localhost")
