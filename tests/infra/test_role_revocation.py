"""Certificates of roles: renewed before they expire, revoked in lists and in Kafka, presented without a restart."""

from __future__ import annotations

import datetime
import json
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from cryptography import x509

from infra.admission import role_revocation
from infra.admission.camera_revocation import close_connection
from infra.admission.role_revocation import revoke_role
from infra.local.kafka import kafka_security
from infra.local.ports import free_port
from infra.pki import authority as authorities
from infra.pki.authority import LOCAL_HOSTS, Authority, certificate_hosts, generation, good_for
from infra.pki.enrolment import Enrolment, enroll
from infra.pki.kafka_rights import grant, is_super_user, withdraw
from infra.pki.role_generations import role_generations
from infra.pki.roles import CLIENTS, SERVERS, Roles, rights_file, role_folder, role_tls
from infra.pki.validity import ROLE_DAYS
from infra.preflight.brokers import require_mqtt
from infra.state_folder import Layout
from infra.up.identities import prepare_identities
from infra.up.renewal import EVERY_S, CertificateRenewal
from infra.up.settings import UpSettings
from schemas.errors import BrokerError, ConfigError, StateError
from schemas.identity import CameraId
from schemas.transport.access import KafkaAccess, Tls, kafka_options
from schemas.transport.kafka.clients import start_client
from tests.infra.command_line import refusal, run
from tests.infra.secure import WAIT_S, make_fleet, running_mosquitto, write_tls
from tests.infra.secure_kafka import KafkaWithPasswords
from tests.infra.test_secure_mosquitto import CONNECT
from tests.waiting import until, wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    return make_fleet(tmp_path / "fleet")


@pytest.fixture
def broker(fleet: Layout) -> Iterator[tuple[str, int]]:
    with running_mosquitto(fleet) as address:
        yield address


def certificate(layout: Layout, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((role_folder(layout.pki, name) / "tls.crt").read_bytes())


def is_accepted(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    """Return whether the broker accepts an MQTT client with this TLS context."""
    with socket.create_connection(address, WAIT_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=address[0]) as link:
                link.sendall(CONNECT)
                return link.recv(4)[:1] == b"\x20"
        except OSError:
            return False


def test_every_instance_of_a_revoked_role_is_on_the_lists_and_has_a_new_certificate(fleet: Layout) -> None:
    roles = Roles(Authority(fleet.pki))
    roles.ensure(["bridge-2"], LOCAL_HOSTS)
    roles.issue("bridge", LOCAL_HOSTS)
    before = {name: roles.numbers(name) for name in ("bridge", "bridge-2")}
    assert [len(numbers) for numbers in before.values()] == [2, 1]
    kept = certificate(fleet, "admin").serial_number
    done = revoke_role(fleet, "bridge")
    assert (done.names, done.generation, done.mqtt, done.kafka) == (["bridge", "bridge-2"], 1, None, None)
    on_list = roles.authority.on_list()
    assert set.union(*before.values()) <= on_list
    for name in before:
        found = certificate(fleet, name)
        assert generation(found) == 1
        assert found.serial_number not in on_list
    assert (certificate(fleet, "admin").serial_number, generation(certificate(fleet, "admin"))) == (kept, 0)
    assert revoke_role(fleet, "bridge").generation == 2
    roles.ensure(["bridge-3"], LOCAL_HOSTS)
    assert generation(certificate(fleet, "bridge-3")) == 2
    assert json.loads((role_folder(fleet.pki, "admin") / "role-generations.json").read_text()) == {"bridge": 2}


def test_the_certificate_of_a_removed_instance_is_revoked_with_its_role(fleet: Layout) -> None:
    roles = Roles(Authority(fleet.pki))
    roles.ensure(["bridge-3"], LOCAL_HOSTS)
    removed = certificate(fleet, "bridge-3").serial_number
    shutil.rmtree(role_folder(fleet.pki, "bridge-3"))
    assert revoke_role(fleet, "bridge").names == ["bridge"]
    roles.ensure(["bridge-3"], LOCAL_HOSTS)
    on_list = roles.authority.on_list()
    assert removed in on_list
    assert certificate(fleet, "bridge-3").serial_number not in on_list


def test_a_revocation_keeps_the_hosts_of_kafka_s_certificate_and_renews_its_super_users(fleet: Layout) -> None:
    hosts = certificate_hosts(role_folder(fleet.pki, "kafka") / "tls.crt")
    revoke_role(fleet, "kafka")
    revoke_role(fleet, "admin")
    revoke_role(fleet, "admin")
    assert certificate_hosts(role_folder(fleet.pki, "kafka") / "tls.crt") == hosts
    folder = fleet.folder / "kafka"
    folder.mkdir()
    lines = kafka_security(fleet.pki, folder).splitlines()
    assert "super.users=User:kafka.1;User:admin.2" in lines


def test_an_unknown_role_or_a_server_is_one_error_line(fleet: Layout) -> None:
    for name in ("mosquitto", "postgresql", "bridge-2", "nobody", "site/door"):
        with pytest.raises(ConfigError, match=r"--role: expected one of bridge, processor, .*, kafka, got "):
            revoke_role(fleet, name)
    assert role_generations(fleet.pki) == {}
    for arguments in ((), ("site/door", "--role", "admin")):
        assert "expected SITE/CAMERA or --role NAME" in refusal(run("revoke", *arguments, "--state", fleet.folder))


def test_a_revocation_missing_from_the_list_is_an_error(fleet: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Authority, "revoke", lambda self, serials: None)
    with pytest.raises(StateError, match=r"revoked.json: expected admin as revoked, got a file without it"):
        revoke_role(fleet, "admin")


def test_a_client_s_certificate_is_valid_for_days_and_renewed_at_half_of_its_life(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = Roles(Authority(fleet.pki))
    for name in CLIENTS:
        assert not good_for(certificate(fleet, name), (), ROLE_DAYS)
        assert good_for(certificate(fleet, name), (), ROLE_DAYS - 1)
    assert all(good_for(certificate(fleet, name), LOCAL_HOSTS, 800) for name in SERVERS)
    assert roles.renew() == {}
    monkeypatch.setattr(authorities, "_BACKDATED", datetime.timedelta(days=8))
    roles.issue("bridge", LOCAL_HOSTS, days=9)
    roles.issue("monitor", LOCAL_HOSTS, days=7)
    monkeypatch.undo()
    assert list(roles.renew()) == ["monitor"]
    assert roles.renew() == {}


def test_new_certificates_keep_the_lifetime_of_the_former_ones_unless_days_are_given(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = Roles(Authority(fleet.pki))

    def days_left(name: str) -> float:
        left = certificate(fleet, name).not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        return round(left / datetime.timedelta(days=1), 1)

    roles.issue("bridge", LOCAL_HOSTS, days=825)
    monkeypatch.setattr(authorities, "_BACKDATED", datetime.timedelta(days=806))
    roles.issue("monitor", LOCAL_HOSTS, days=20)
    monkeypatch.undo()
    assert run("revoke", "--role", "bridge", "--state", fleet.folder).exit_code == 0
    assert run("ca", "renew", "--state", fleet.folder).output == "renewed: monitor\n"
    assert (days_left("bridge"), days_left("monitor")) == (825, 825)
    assert run("ca", "role", "bridge", "--state", fleet.folder).exit_code == 0
    assert run("ca", "role", "bridge-2", "--state", fleet.folder).exit_code == 0
    assert run("ca", "role", "processor-2", "--state", fleet.folder).exit_code == 0
    assert (days_left("bridge"), days_left("bridge-2"), days_left("processor-2")) == (825, 825, ROLE_DAYS)
    assert run("ca", "init", "--keep", "--state", fleet.folder).exit_code == 0
    assert (days_left("bridge"), days_left("processor")) == (825, ROLE_DAYS)
    assert run("ca", "role", "bridge", "--days", "30", "--state", fleet.folder).exit_code == 0
    assert run("ca", "renew", "--days", "14", "--state", fleet.folder).output == "renewed: bridge-2, monitor\n"
    assert (days_left("bridge"), days_left("monitor")) == (30, 14)
    assert run("ca", "role", "bridge", "--days", "825", "--state", fleet.folder).exit_code == 0
    assert run("ca", "init", "--keep", "--days", "14", "--state", fleet.folder).exit_code == 0
    assert days_left("bridge") == 14


def test_the_command_renews_the_certificates_that_are_due(fleet: Layout) -> None:
    assert run("ca", "renew", "--state", fleet.folder).output == "renewed: none is due\n"
    assert run("ca", "role", "bridge-2", "--days", "0.2", "--state", fleet.folder).exit_code == 0
    assert run("ca", "renew", "--state", fleet.folder).output == "renewed: bridge-2\n"


def test_the_command_names_the_servers_to_restart_for_a_renewed_certificate(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorities, "_BACKDATED", datetime.timedelta(days=800))
    monkeypatch.setattr("infra.pki.roles.CERTIFICATE_DAYS", 20)
    for name in ("kafka", "postgresql"):
        Roles(Authority(fleet.pki)).issue(name, LOCAL_HOSTS)
    monkeypatch.undo()
    end = min(certificate(fleet, name).not_valid_after_utc for name in ("kafka", "postgresql"))
    assert run("ca", "renew", "--state", fleet.folder).output == (
        "renewed: kafka, postgresql\nkafka, postgresql: the former certificate is presented until a restart, "
        f"which has to come before {end:%Y-%m-%d %H:%M} UTC\n"
    )


def test_a_running_system_renews_certificates_and_reports_a_failure(fleet: Layout) -> None:
    authority, camera = Authority(fleet.pki), CameraId("local/cam-0")
    Roles(authority).issue("bridge", LOCAL_HOSTS, days=0.2)
    before = certificate(fleet, "bridge").serial_number
    fleet.issue_key(camera)
    enroll(authority, fleet.camera_key(camera), fleet.enrolment(camera), days=0.2)
    enrolled = fleet.enrolment(camera).read_text()
    lines: list[str] = []
    renewal = CertificateRenewal(fleet, lambda: [camera], lines.append, every_s=0.05)
    renewal.start()
    try:
        wait_until(lambda: certificate(fleet, "bridge").serial_number != before, "a renewed certificate")
        wait_until(lambda: fleet.enrolment(camera).read_text() != enrolled, "a renewed enrolment")
        assert lines == []
        (fleet.pki / "ca.key").rename(fleet.pki / "ca.key.away")
        wait_until(lambda: bool(lines), "a line about the failure")
    finally:
        renewal.close()
    assert lines[0].startswith("certificates were not renewed, the next attempt is in a minute: ")


def test_the_check_of_each_minute_writes_nothing_if_nothing_is_due_and_prints_a_lasting_failure_once(
    fleet: Layout,
) -> None:
    assert EVERY_S <= 60
    lines: list[str] = []
    renewal = CertificateRenewal(fleet, tuple, lines.append)
    key, rights = fleet.pki / "ca.key", rights_file(fleet.pki)
    before = rights.stat().st_ino
    renewal.check()
    assert rights.stat().st_ino == before
    for _ in range(2):
        key.rename(fleet.pki / "away")
        renewal.check()
        renewal.check()
        (fleet.pki / "away").rename(key)
        renewal.check()
    assert len(lines) == 2


def test_a_certificate_dated_in_the_future_is_replaced(fleet: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(Authority(fleet.pki))
    monkeypatch.setattr(authorities, "_BACKDATED", -datetime.timedelta(days=1))
    roles.issue("bridge", LOCAL_HOSTS)
    assert certificate(fleet, "bridge").not_valid_before_utc > datetime.datetime.now(datetime.UTC)
    monkeypatch.undo()
    assert list(roles.renew()) == ["bridge"]
    assert certificate(fleet, "bridge").not_valid_before_utc < datetime.datetime.now(datetime.UTC)
    assert roles.renew() == {}


def test_an_unset_clock_replaces_no_certificate_and_writes_no_expired_revocation_list(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(fleet.pki)
    roles = Roles(authority)
    roles.issue("bridge", LOCAL_HOSTS)
    authority.revoke({1: "site/door"})

    class Unset(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Unset:
            return cls(1970, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        unset = SimpleNamespace(datetime=Unset, timedelta=datetime.timedelta, UTC=datetime.UTC)
        patch.setattr(authorities, "datetime", unset)
        assert roles.renew() == {}
        authority.revoke({2: "site/gate"})
    found = x509.load_pem_x509_crl((fleet.pki / "crl.pem").read_bytes())
    assert {each.serial_number for each in found} == {1, 2}
    assert found.next_update_utc is not None
    assert found.last_update_utc < datetime.datetime.now(datetime.UTC) < found.next_update_utc


def test_a_running_system_names_the_servers_to_restart_for_a_renewed_certificate(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.pki.roles.CERTIFICATE_DAYS", 0.2)
    Roles(Authority(fleet.pki)).issue("mosquitto", LOCAL_HOSTS)
    monkeypatch.undo()
    lines: list[str] = []
    renewal = CertificateRenewal(fleet, tuple, lines.append, every_s=0.05)
    renewal.start()
    try:
        wait_until(lambda: bool(lines), "a line about the servers")
    finally:
        renewal.close()
    assert len(lines) == 1
    assert lines[0].startswith("mosquitto: the former certificate is presented until a restart, which has to come ")
    assert lines[0].endswith(" UTC: stop and start `up`")


def test_a_folder_of_no_role_does_not_stop_a_revocation(fleet: Layout) -> None:
    shutil.copytree(role_folder(fleet.pki, "bridge"), role_folder(fleet.pki, "bridge-old"))
    old = certificate(fleet, "bridge").serial_number
    assert revoke_role(fleet, "bridge").names == ["bridge"]
    assert old in Authority(fleet.pki).on_list()
    assert certificate(fleet, "bridge").serial_number != old


def test_an_unreachable_broker_during_a_revocation_is_one_error_line(fleet: Layout) -> None:
    address, authority = ("127.0.0.1", free_port()), Authority(fleet.pki)
    with pytest.raises(
        BrokerError, match=rf"^MQTT broker at 127\.0\.0\.1:{address[1]}: expected it to close .* bridge "
    ):
        close_connection(address, authority, "bridge", 0.1)


def test_a_new_fleet_secret_changes_every_root_and_every_camera_s_key(tmp_path: Path) -> None:
    """Follow the runbook: move `fleet.secret` and `keys/` away before the next start."""
    layout, camera = Layout(tmp_path / "state"), CameraId("local/cam-0")
    prepare_identities(layout, [camera], UpSettings())

    def secrets_in_use() -> list[str]:
        role_secrets = [
            (layout.roles / role / "role.secret").read_text() for role in ("bridge", "processor", "console")
        ]
        return [
            *" ".join(role_secrets).split(),
            layout.camera_key(camera).export(),
            Enrolment.read(layout.enrolment(camera)).key.export(),
        ]

    before = secrets_in_use()
    prepare_identities(layout, [camera], UpSettings())
    assert secrets_in_use() == before
    for path in (layout.secret_file, layout.keys):
        path.rename(tmp_path / path.name)
    prepare_identities(layout, [camera], UpSettings())
    assert not set(before) & set(secrets_in_use())


@pytest.mark.brokers
def test_a_running_client_presents_its_renewed_certificate_and_a_copy_of_the_old_one_is_refused(
    fleet: Layout, broker: tuple[str, int], tmp_path: Path
) -> None:
    folder = role_folder(fleet.pki, "health")
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    for file in folder.iterdir():
        (stolen / file.name).write_bytes(file.read_bytes())
    running = role_tls(fleet.pki, "health").context()
    assert is_accepted(broker, running)
    done = revoke_role(fleet, "health")
    assert done.mqtt == f"{broker[0]}:{broker[1]}"
    assert is_accepted(broker, running)
    with pytest.raises(BrokerError, match="our certificate has been revoked"):
        require_mqtt(broker, WAIT_S, Tls.of_folder(stolen))


@pytest.mark.brokers
def test_the_former_certificate_is_presented_until_both_files_are_replaced(
    fleet: Layout, broker: tuple[str, int]
) -> None:
    folder = role_folder(fleet.pki, "health")
    running = role_tls(fleet.pki, "health").context()
    issued = Authority(fleet.pki).issue("health")
    (folder / "tls.key").write_text(issued.key)
    assert is_accepted(broker, running)
    (folder / "tls.crt").unlink()
    assert is_accepted(broker, running)
    (folder / "tls.crt").write_text(issued.certificate)
    assert is_accepted(broker, running)


async def topics(address: KafkaAccess) -> set[str]:
    """Return the topics that Kafka shows to this client."""
    client = AIOKafkaAdminClient(**kafka_options(address))
    try:
        await start_client(client)
        return set(await client.list_topics())
    finally:
        await client.close()


@pytest.mark.brokers
async def test_kafka_refuses_an_earlier_generation_at_its_next_request_and_accepts_the_new_one(
    kafka_fleet: Layout, secure_kafka: KafkaWithPasswords, tmp_path: Path
) -> None:
    authority, admin = Authority(kafka_fleet.pki), secure_kafka.access("admin")
    ours = write_tls(authority, authority.issue("monitor", generation=1), tmp_path / "new.pem")
    new, old = KafkaAccess(secure_kafka.listen, ours), secure_kafka.access("monitor")
    assert isinstance(old, KafkaAccess)
    client = AIOKafkaAdminClient(**kafka_options(old))
    try:
        await start_client(client)
        assert await client.list_topics()
        assert await topics(new) == set()
        await grant(admin, generations={"monitor": 1})
        await until(lambda: topics(new), "the rights of the next generation")
        await withdraw(admin, {"monitor": 1})
        assert await client.list_topics() == []
        assert await topics(old) == set()
        assert await topics(new)
    finally:
        await client.close()
        await withdraw(admin, {"monitor": 2})
        await grant(admin)
    await until(lambda: topics(old), "the earlier rights again")


@pytest.mark.brokers
async def test_another_generation_of_a_super_user_has_no_super_rights(
    kafka_fleet: Layout, secure_kafka: KafkaWithPasswords, tmp_path: Path
) -> None:
    authority = Authority(kafka_fleet.pki)
    other = write_tls(authority, authority.issue("admin", generation=3), tmp_path / "other.pem")
    assert await is_super_user(secure_kafka.access("admin"))
    assert not await is_super_user(KafkaAccess(secure_kafka.listen, other))


class RoleProcess:
    """A process of a role that may ignore SIGTERM."""

    def __init__(self, exits: bool) -> None:
        self._exits = exits
        self.signals: list[signal.Signals] = []

    def send(self, signum: signal.Signals) -> bool:
        self.signals.append(signum)
        return True

    def wait_gone(self, deadline_s: float) -> bool:
        return self._exits


def test_a_role_that_ignores_sigterm_is_killed_and_one_that_does_not_restart_is_named(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = {"bridge-1": RoleProcess(exits=True), "bridge-2": RoleProcess(exits=False)}
    monkeypatch.setattr(role_revocation, "running", lambda _, name: processes.get(name))
    role_revocation._end_processes(fleet, ["bridge-1", "bridge-2", "bridge-3"])
    assert [each.signals for each in processes.values()] == [[signal.SIGTERM], [signal.SIGTERM, signal.SIGKILL]]
    role_revocation._await_restart(fleet, ["bridge-1", "bridge-2"], "bridge")
    monkeypatch.setattr(role_revocation, "RESTART_S", 0.0)
    with pytest.raises(BrokerError, match=r"^bridge-3: expected a restart within 0 s, got none\. Start it, and run "):
        role_revocation._await_restart(fleet, ["bridge-1", "bridge-3"], "bridge")


def test_a_kafka_that_is_not_started_again_is_named_with_the_command_that_was_run(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_revocation, "RESTART_S", 0.0)
    monkeypatch.setattr(role_revocation, "running", lambda *_: None)
    monkeypatch.setattr(role_revocation, "_running_kafka", lambda _: {"kafka": "127.0.0.1:1"})
    with pytest.raises(BrokerError, match=r"^kafka: expected a restart .* `pointillist revoke --role admin --state "):
        revoke_role(fleet, "admin")
