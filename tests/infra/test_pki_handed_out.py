"""The folders that `pointillist ca init` writes for roles in containers, without brokers."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography import x509

from infra.pki.authority import Authority, common_name
from infra.pki.enrolment import Enrolment
from infra.pki.refusals import refused
from infra.pki.roles import CLIENTS, SERVERS, Roles, role_folder, share_name
from infra.state_folder import Layout
from producers.simulation.scenario import load_scenario
from schemas.runtime.atomic_file import write_durably
from tests.infra.command_line import refusal, run

SCENARIO = Path(__file__).parents[2] / "infra" / "compose" / "scenario.yaml"
CAMERAS = [camera.camera_id for camera in load_scenario(SCENARIO).cameras()]
SECRET = "5e" * 32


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", SECRET)
    return Layout(tmp_path / "state")


def init(layout: Layout) -> None:
    done = run(
        "ca", "init", "--keep", "--state", layout.folder, "--host", "broker", "--scenario", SCENARIO, "--group-reads"
    )
    assert done.exit_code == 0, done.output


def files_of(layout: Layout, name: str) -> dict[str, str]:
    return {file.name: file.read_text() for file in role_folder(layout.pki, name).iterdir()}


def test_the_folder_of_each_role_contains_only_its_own_key_material(layout: Layout) -> None:
    init(layout)
    own = {"ca.crt", "tls.crt", "tls.key"}
    assert {name: set(files_of(layout, name)) - own for name in (*SERVERS, *CLIENTS)} == {
        "mosquitto": {"mosquitto.acl", "crl.pem"},
        "kafka": {"keystore.pem"},
        "postgresql": set(),
        "pages": set(),
        "bridge": {"bridges.share", "generations.json"},
        "processor": {"generations.json"},
        "recorder": {"generations.json"},
        "console": {"generations.json"},
        "admin": set(), "audit": set(), "health": set(), "monitor": set(),
        "announcer": set(), "homeassistant": set(),
    }  # fmt: skip
    assert files_of(layout, "bridge")["bridges.share"] == share_name(layout.pki)
    kafka = files_of(layout, "kafka")
    assert kafka["keystore.pem"] == kafka["tls.key"] + kafka["tls.crt"]
    for name in (*SERVERS, *CLIENTS):
        certificate = x509.load_pem_x509_certificate(files_of(layout, name)["tls.crt"].encode())
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert common_name(certificate) == name
        assert ("serverAuth" in {use._name for use in uses}) == (name in SERVERS)
        # Only Kafka's nodes are each other's clients: no other server's key opens a connection.
        assert ("clientAuth" in {use._name for use in uses}) == (name in CLIENTS or name == "kafka")


def test_a_second_ca_init_changes_no_file(layout: Layout) -> None:
    init(layout)
    before = {file: file.read_bytes() for file in layout.folder.rglob("*") if file.is_file()}
    init(layout)
    assert {file: file.read_bytes() for file in layout.folder.rglob("*") if file.is_file()} == before
    assert layout.fleet_secret().hex() == SECRET


@pytest.mark.parametrize("command", [("ca", "role", "bridge"), ("ca", "renew"), ("ca", "init", "--keep")])
def test_a_deleted_name_of_the_bridges_share_is_replaced_in_the_folder_of_each_bridge(
    layout: Layout, command: tuple[str, ...]
) -> None:
    init(layout)
    assert run("ca", "role", "bridge-2", "--state", layout.folder).exit_code == 0
    leaked = files_of(layout, "bridge")["bridges.share"]
    (layout.pki / "bridges.share").unlink()
    assert run(*command, "--state", layout.folder).exit_code == 0
    assert leaked != files_of(layout, "bridge")["bridges.share"] == files_of(layout, "bridge-2")["bridges.share"]
    assert files_of(layout, "bridge")["bridges.share"] == (layout.pki / "bridges.share").read_text()


def test_the_cameras_of_a_scenario_are_enrolled_and_a_revoked_one_stays_revoked(layout: Layout) -> None:
    init(layout)
    assert [Enrolment.read(layout.enrolment(camera)).key.export() for camera in CAMERAS] == [
        layout.camera_key(camera).export() for camera in CAMERAS
    ]
    revoked = CAMERAS[0]
    assert run("revoke", revoked, "--state", layout.folder).exit_code == 0
    for _ in range(2):
        lists = files_of(layout, "mosquitto")
        assert f"user {revoked}\ntopic deny #" in lists["mosquitto.acl"]
        assert lists["crl.pem"] == (layout.pki / "crl.pem").read_text()
        for role in ("bridge", "processor", "recorder"):
            assert json.loads(files_of(layout, role)["generations.json"]) == {revoked: 1}
        init(layout)
    assert refused(layout.pki) == {revoked}


def test_the_group_can_read_only_the_keys_of_servers(layout: Layout) -> None:
    init(layout)
    private = [layout.secret_file, *layout.keys.rglob("*.key"), *layout.folder.rglob("*.enrolment")]
    private += [file for file in layout.pki.rglob("*") if file.is_file() and "PRIVATE" in file.read_text()]
    readable = {file.relative_to(layout.pki).parts[1] for file in private if stat.S_IMODE(file.stat().st_mode) & 0o040}
    assert readable == {*SERVERS, "health"}
    assert not any(stat.S_IMODE(file.stat().st_mode) & 0o007 for file in private)
    assert layout.pki / "ca.key" in private


def test_a_renewed_key_is_readable_by_the_group_before_the_certificate_changes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(layout)
    key = layout.pki / "roles/mosquitto/tls.key"
    before, modes = key.read_bytes(), []

    def write(file: Path, text: str, private: bool = False) -> None:
        if file.name == "tls.crt":
            assert key.read_bytes() != before
            modes.append(stat.S_IMODE(key.stat().st_mode))
        write_durably(file, text, private=private)

    monkeypatch.setattr("infra.pki.roles.write_durably", write)
    Roles(Authority(layout.pki)).issue("mosquitto", ())
    assert modes == [0o640]


def test_a_fleet_secret_other_than_the_stored_one_is_one_error_line(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(layout)
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", "00" * 32)
    line = refusal(run("ca", "init", "--keep", "--state", layout.folder))
    assert line.startswith(f"POINTILLIST_FLEET_SECRET: expected the fleet secret of {layout.secret_file}, got another")
    assert SECRET not in line
