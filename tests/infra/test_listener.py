"""The listener of `up` for other machines, the broker's address in enrolments, and the rotation of a camera's key."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from benchmarks.harness.services import started
from infra.local.mosquitto import Mosquitto
from infra.local.ports import free_port
from infra.pki.authority import CRL_FILE, LOCAL_HOSTS, Authority, certificate_hosts
from infra.pki.enrolment import Enrolment
from infra.pki.refusals import refused
from infra.pki.roles import role_folder, role_tls
from infra.pki.serials import serials
from infra.preflight.brokers import require_mqtt
from infra.state_folder import Layout
from infra.up.identities import prepare_identities
from infra.up.listener import listener_for_devices, outside_listener, parse_listener
from infra.up.settings import UpSettings
from schemas.errors import ConfigError
from schemas.identity import CameraId
from schemas.runtime.json_files import write_json
from tests.infra.command_line import refusal, run
from tests.infra.test_pki import DOOR


def state_of_up(folder: Path, **options: object) -> Layout:
    """Create a state folder as `up` with these options leaves it."""
    layout = Layout(folder)
    prepare_identities(layout, [], UpSettings.model_validate(options))
    write_json(layout.run, {"started_ms": 0, "bundle": "", "options": options})
    write_json(layout.folder / "ports.json", {"mosquitto": 21_600})
    return layout


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.7", ("10.0.0.7", 8883)),
        ("10.0.0.7:21601", ("10.0.0.7", 21_601)),
        ("broker.example", ("broker.example", 8883)),
        ("[fd00::7]:21601", ("fd00::7", 21_601)),
        ("fd00::7", ("fd00::7", 8883)),
    ],
)
def test_an_address_for_the_listener_is_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse_listener(text) == address


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "0.0.0.0:8883", "[::]:8883"])
def test_a_wildcard_address_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--listen: expected the address .* got .* Give one address"):
        parse_listener(text)


@pytest.mark.parametrize(
    "text", ["", "*", "host:0", "host:port", "a b", "user@host:1", "a\nallow_anonymous true", "-a", "a..b", "a" * 64]
)
def test_an_invalid_address_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listener(text)


def test_an_address_of_another_machine_is_one_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--listen: expected an address of this machine with a free port, got 192\."):
        outside_listener(UpSettings(listen="192.0.2.1:21602"))
    assert outside_listener(UpSettings()) is None


def test_a_host_name_that_resolves_to_loopback_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    port, resolved = free_port(), socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _host, *arguments, **options: resolved("127.0.1.1", *arguments, **options)
    )
    with pytest.raises(ConfigError, match=r"--listen: .*, got gate, which is 127\.0\.1\.1 on this one\. Give the addr"):
        outside_listener(UpSettings(listen=f"gate:{port}"))
    for host in ("localhost", "127.0.1.1"):
        assert outside_listener(UpSettings(listen=f"{host}:{port}")) == (host, port)


def test_a_listener_without_tls_is_accepted_only_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    assert outside_listener(UpSettings(listen=f"127.0.0.2:{port}", plain=True)) == ("127.0.0.2", port)
    monkeypatch.setattr("socket.socket.bind", lambda *_: None)  # as if the machine had that address
    with pytest.raises(ConfigError, match=r"--listen: expected a loopback address with --plain, got 192\.0\.2\.1"):
        outside_listener(UpSettings(listen="192.0.2.1:21602", plain=True))


def test_the_broker_s_certificate_names_the_listener_and_hosts_added_by_command(tmp_path: Path) -> None:
    layout = state_of_up(tmp_path / "state", listen="127.0.0.2:21603")
    certificate = role_folder(layout.pki, "mosquitto") / "tls.crt"
    assert set(certificate_hosts(certificate)) == {*LOCAL_HOSTS, "127.0.0.2"}
    assert run("ca", "role", "mosquitto", "--host", "broker.example", "--state", layout.folder).exit_code == 0
    state_of_up(layout.folder, listen="127.0.0.3:21603")
    assert set(certificate_hosts(certificate)) == {*LOCAL_HOSTS, "127.0.0.2", "broker.example", "127.0.0.3"}


def test_an_enrolment_names_only_an_address_on_which_up_listens(tmp_path: Path) -> None:
    layout = state_of_up(tmp_path / "state", listen="127.0.0.2:21603")
    out = tmp_path / "door.enrolment"
    assert run("enroll", DOOR, "--out", out, "--state", layout.folder).exit_code == 0
    assert Enrolment.read(out).mqtt == "127.0.0.2:21603"
    for address in ("127.0.0.2:21603", "localhost:21600", "127.0.0.1:21600"):
        assert listener_for_devices(layout, address) == address
    out.unlink()
    for other in ("broker:8883", "127.0.0.2:8883", "broker:21603", "127.0.0.2:21600"):
        line = refusal(run("enroll", DOOR, "--out", out, "--mqtt", other, "--state", layout.folder))
        assert line.startswith("--mqtt: expected 127.0.0.2:21603 and 127.0.0.1:21600, where `pointillist up` of ")
        assert f"`pointillist up --listen {other} {layout.state_option}`" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("Gate.example:8883", "gate.EXAMPLE:8883"),
        ("[FD00::0:7]:8883", "[FD00::0:7]:8883"),
        ("fd00::7", "[FD00::7]:8883"),
    ],
)
def test_an_address_may_be_spelt_differently_from_the_listener(tmp_path: Path, listen: str, address: str) -> None:
    assert listener_for_devices(state_of_up(tmp_path / "state", listen=listen), address) == address


def test_an_enrolment_without_a_listener_is_for_loopback_and_the_error_names_the_option(tmp_path: Path) -> None:
    layout = state_of_up(tmp_path / "state")
    assert listener_for_devices(layout, None) == "127.0.0.1:21600"
    line = refusal(run("enroll", DOOR, "--out", tmp_path / "out", "--mqtt", "broker:8883", "--state", layout.folder))
    assert "expected 127.0.0.1:21600, where" in line
    assert f"`pointillist up --listen broker:8883 {layout.state_option}`" in line


def test_a_damaged_file_of_the_last_run_counts_as_a_run_without_a_listener(tmp_path: Path) -> None:
    layout = state_of_up(tmp_path / "state", listen="127.0.0.2:21603")
    layout.run.write_bytes(b"\xff" + layout.run.read_bytes())
    assert listener_for_devices(layout, None) == "127.0.0.1:21600"


def test_a_fleet_without_up_may_have_any_broker_address(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    assert run("ca", "init", "--state", layout.folder).exit_code == 0
    assert listener_for_devices(layout, "broker.example:8883") == "broker.example:8883"
    assert listener_for_devices(layout, None) is None


@pytest.mark.brokers
def test_both_listeners_require_certificates(tmp_path: Path) -> None:
    port = free_port()
    layout = state_of_up(tmp_path / "state", listen=f"127.0.0.2:{port}")
    with started(Mosquitto(layout.folder, pki=layout.pki, outside=("127.0.0.2", port))) as broker:
        health = role_tls(layout.pki, "health")
        for address in (("127.0.0.2", port), (broker.host, broker.port)):
            require_mqtt(address, 60, health)
            with pytest.raises(Exception, match="a request for a certificate"):
                require_mqtt(address, 60, type(health)(health.authorities))


def test_one_command_rotates_a_camera_s_key(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "door.enrolment"
    assert run("ca", "init", "--state", state).exit_code == 0
    layout = Layout(state)
    broker = ("--mqtt", "broker.example:8883")
    assert run("enroll", DOOR, "--out", out, *broker, "--state", state).exit_code == 0
    layout.issue_key(DOOR)
    (before,) = serials(layout.pki, DOOR)
    done = run("rotate", DOOR, "--out", out, *broker, "--state", state)
    assert done.output == f"site/door: key generation 1, in {out}; earlier ones are rejected\n"
    after = Enrolment.read(out)
    assert (after.key.generation, after.mqtt) == (1, "broker.example:8883")
    assert layout.camera_key(DOOR).export() == after.key.export()
    old, new = serials(layout.pki, DOOR)
    assert (old, refused(layout.pki)) == (before, set())
    on_list = Authority(layout.pki).on_list()
    assert old in on_list
    assert new not in on_list
    assert (role_folder(layout.pki, "mosquitto") / CRL_FILE).read_text() == (layout.pki / CRL_FILE).read_text()


@pytest.mark.parametrize("command", ["enroll", "rotate", "key"])
def test_out_is_written_through_a_symbolic_link_and_never_over_a_pipe(tmp_path: Path, command: str) -> None:
    layout = state_of_up(tmp_path / "state")
    layout.issue_key(CameraId(DOOR))
    link, pipe, other = tmp_path / "link", tmp_path / "pipe", tmp_path / "other"
    link.symlink_to("device")
    os.mkfifo(pipe)
    other.symlink_to(pipe)
    assert run(command, DOOR, "--out", link, "--state", layout.folder).exit_code == 0
    written = (tmp_path / "device").read_text()
    assert written
    assert link.is_symlink()
    before = layout.generations.read_text() if layout.generations.is_file() else None
    for out in (pipe, other):
        line = refusal(run(command, DOOR, "--out", out, "--state", layout.folder))
        assert line == f"{out}: expected a regular file, got a folder, a device or a pipe. Choose another file."
    assert (layout.generations.read_text() if layout.generations.is_file() else None) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["device", "link", "other", "pipe", "state"]
    assert pipe.is_fifo()
    assert other.is_symlink()


def test_nothing_is_revoked_if_the_new_enrolment_cannot_be_written(tmp_path: Path) -> None:
    layout = state_of_up(tmp_path / "state")
    assert run("enroll", DOOR, "--out", tmp_path / "door", "--state", layout.folder).exit_code == 0
    before = layout.generations.read_text() if layout.generations.is_file() else None
    for arguments in (
        ("--out", tmp_path / "none" / "door"),
        ("--out", tmp_path),
        ("--out", Path("/proc/door")),
        ("--out", tmp_path / ("x" * 254)),
        ("--out", tmp_path / "new", "--mqtt", "broker:8883"),
    ):
        refusal(run("rotate", DOOR, *arguments, "--state", layout.folder))
    assert (layout.generations.read_text() if layout.generations.is_file() else None) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["door", "state"]
    assert refused(layout.pki) == set()
    assert not set(serials(layout.pki, CameraId(DOOR))) & Authority(layout.pki).on_list()
