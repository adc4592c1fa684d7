"""The expiration of certificates of roles and servers as metrics, and a warning without a file of generations."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumers.console.settings import ConsoleSettings
from infra.cli.access import resolved
from infra.cli.console import console
from infra.cli.roles import run_following
from infra.local.http import get
from infra.local.ports import free_port
from infra.local.role_table import running
from infra.monitor.mosquitto import MosquittoMetrics
from infra.monitor.server_certificates import SOON_S, ServerCertificates, mqtt_end
from infra.monitor.settings import MonitorSettings
from infra.pki.authority import LOCAL_HOSTS, Authority
from infra.pki.roles import Roles, role_folder, role_tls
from infra.process import role as role_process
from infra.process.certificates import Certificates, end_at_start, export_ends
from infra.state_folder import Layout
from producers.bridge import BridgeSettings
from schemas.errors import ConfigError
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.metrics import BROKER_UP, CERTIFICATE_EXPIRATION
from schemas.runtime.health import Health
from schemas.runtime.json_files import write_json
from schemas.runtime.throttle import Throttle
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE, KafkaAccess, MqttAccess
from tests.infra.secure import SECRET, make_fleet, running_mosquitto
from tests.infra.secure_kafka import KafkaWithPasswords
from tests.infra.secure_postgresql import SecurePostgreSQL
from tests.waiting import until

KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE))


def exported_expiration(registry: CollectorRegistry, purpose: str) -> float:
    found = registry.get_sample_value(CERTIFICATE_EXPIRATION.name, {"purpose": purpose})
    assert found is not None
    return found


def expiration_in(file: Path) -> float:
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    """Create an authority for each test, since the tests replace certificates."""
    return make_fleet(tmp_path)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> list[CollectorRegistry]:
    """Run roles without work, and return the list of their registries."""
    found: list[CollectorRegistry] = []

    def run_role(_role: str, _metrics: str | None, entry: Any, *, certificates: Certificates, **_: Any) -> None:
        registry = CollectorRegistry()
        export_ends(registry, certificates)
        found.append(registry)
        asyncio.run(entry(registry, Health(), asyncio.Event()))

    monkeypatch.setattr(role_process, "run_role", run_role)
    return found


async def no_work(*_: object, **__: object) -> None:
    pass


def test_a_role_exports_the_expiration_of_each_certificate_and_of_its_renewal(
    fleet: Layout, registries: list[CollectorRegistry]
) -> None:
    roles = Roles(Authority(fleet.pki))
    file = roles.folder("bridge") / CERTIFICATE_FILE
    access: Mapping[str, Any] = {"mqtt": "127.0.0.1:1", "kafka": "127.0.0.1:2", "kafka_tls": file.parent}
    settings = resolved(BridgeSettings(state=fleet.folder, **access), "bridge")
    run_following("bridge", settings, KEYS, no_work)
    (registry,) = registries
    first = expiration_in(file)
    assert {purpose: exported_expiration(registry, purpose) for purpose in ("mqtt", "kafka")} == {
        "mqtt": first,
        "kafka": first,
    }
    roles.issue("bridge", LOCAL_HOSTS, days=50)
    assert exported_expiration(registry, "kafka") == expiration_in(file) > first
    file.write_text("half of a")
    assert exported_expiration(registry, "kafka") > first
    file.unlink()
    assert exported_expiration(registry, "kafka") > first


def test_a_role_without_a_certificate_exports_no_expiration(registries: list[CollectorRegistry]) -> None:
    run_following("bridge", BridgeSettings(mqtt="127.0.0.1:1", kafka="127.0.0.1:2"), KEYS, no_work)
    assert [family.samples for family in registries[0].collect()] == [[]]


@pytest.mark.parametrize(
    ("tls", "with_file", "warnings"),
    [(True, False, ["generations_not_given"]), (True, True, []), (False, False, [])],
    ids=["without the file", "with the file", "without TLS"],
)
def test_a_role_that_cannot_follow_revocations_logs_a_warning(
    fleet: Layout,
    registries: list[CollectorRegistry],
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    with_file: bool,
    warnings: list[str],
) -> None:
    write_json(fleet.generations, {})
    if with_file:
        monkeypatch.setenv("POINTILLIST_GENERATIONS_FILE", str(fleet.generations))
    access: dict[str, Any] = {"kafka_tls": role_folder(fleet.pki, "bridge")} if tls else {}
    settings = BridgeSettings(mqtt="127.0.0.1:1", kafka="127.0.0.1:2", **access)
    with capture_logs() as lines:
        run_following("bridge", resolved(settings, "bridge"), KEYS, no_work)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == warnings
    assert len(registries) == 1


def test_the_earliest_expiration_of_several_certificates_is_exported(fleet: Layout) -> None:
    roles = Roles(Authority(fleet.pki))
    roles.issue("bridge-2", LOCAL_HOSTS, days=3)
    files = [roles.folder(name) / CERTIFICATE_FILE for name in ("bridge", "bridge-2")]
    registry = CollectorRegistry()
    export_ends(registry, {"mqtt": files})
    assert exported_expiration(registry, "mqtt") == expiration_in(files[1]) < expiration_in(files[0])
    del files[1]
    assert exported_expiration(registry, "mqtt") == expiration_in(files[0])
    files.clear()
    assert math.isnan(exported_expiration(registry, "mqtt"))


def test_the_process_of_a_role_exports_the_ends_on_its_metrics_page(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("configure_logs", "collect_seldom"):  # they would outlast the test
        monkeypatch.setattr(role_process, name, lambda: None)
    file, address = role_folder(fleet.pki, "bridge") / CERTIFICATE_FILE, f"127.0.0.1:{free_port()}"

    async def entry(_registry: CollectorRegistry, _health: Health, _stop: asyncio.Event) -> str:
        answer = await asyncio.to_thread(get, f"http://{address}/metrics", 60.0)
        return str(answer.text)

    page = role_process.run_role("bridge", address, entry, certificates={"mqtt": [file], "of a server": lambda: 7.0})
    ends = {
        line.partition('purpose="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith(f"{CERTIFICATE_EXPIRATION.name}{{")
    }
    assert ends == {"mqtt": expiration_in(file), "of a server": 7.0}


def test_a_server_that_reads_its_certificate_once_keeps_the_end_of_its_start(fleet: Layout) -> None:
    roles = Roles(Authority(fleet.pki))
    file = roles.folder("pages") / CERTIFICATE_FILE
    end, first = end_at_start(file), expiration_in(file)
    issue_short(fleet, "pages", 2)
    assert end() == first != expiration_in(file)


def test_the_console_exports_the_end_of_the_certificate_that_it_serves(
    fleet: Layout, registries: list[CollectorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.cli.console.require_brokers", lambda *_, **__: None)
    monkeypatch.setattr("consumers.console.role.run_console", no_work)
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", SECRET.hex())
    folder = role_folder(fleet.pki, "pages")
    access: Mapping[str, Any] = {"mqtt": "127.0.0.1:1", "kafka": "127.0.0.1:2", "http_tls": folder}
    console(ConsoleSettings(state=fleet.folder, store="sqlite://", **access))
    assert exported_expiration(registries[0], "pages") == expiration_in(folder / CERTIFICATE_FILE)


def issue_short(fleet: Layout, name: str, days: float) -> float:
    """Replace a server's certificate by one that ends in `days`; return its end."""
    issued = Authority(fleet.pki).issue(name, hosts=LOCAL_HOSTS, days=days)
    folder = role_folder(fleet.pki, name)
    (folder / KEY_FILE).write_text(issued.key)
    (folder / CERTIFICATE_FILE).write_text(issued.certificate)
    return expiration_in(folder / CERTIFICATE_FILE)


@pytest.mark.brokers
async def test_the_monitor_exports_the_end_that_mosquitto_presents_also_after_a_reload(fleet: Layout) -> None:
    first = issue_short(fleet, "mosquitto", 2)
    with running_mosquitto(fleet) as (host, port):
        broker = MqttAccess(host, port, role_tls(fleet.pki, "monitor"))
        servers = ServerCertificates(MonitorSettings(mqtt=broker, kafka="127.0.0.1:1"))
        registry = CollectorRegistry()
        export_ends(registry, servers.ends)
        mosquitto = MosquittoMetrics(registry, BROKER_UP.on(registry).labels("mosquitto"), broker)
        assert math.isnan(exported_expiration(registry, "mqtt_server"))
        mosquitto.start()
        try:
            await until(lambda: mosquitto.certificate_end is not None)
            renewed = issue_short(fleet, "mosquitto", 100)
            assert mosquitto.certificate_end == first
            process = running(fleet.folder, "mosquitto")
            assert process is not None
            process.send(signal.SIGHUP)

            async def is_renewed() -> bool:
                # Mosquitto answers the signal later, and the connection is opened again once an hour only.
                servers._throttle = Throttle(0.0)
                await servers.measure(mosquitto)
                return exported_expiration(registry, "mqtt_server") == renewed

            await until(is_renewed)
            assert exported_expiration(registry, "mqtt_server") - first > SOON_S
        finally:
            mosquitto.close()


@pytest.mark.brokers
async def test_the_monitor_exports_the_ends_that_kafka_and_postgresql_present(
    secure_kafka: KafkaWithPasswords,
    secure_postgresql: SecurePostgreSQL,
    kafka_fleet: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = kafka_fleet.pki / "ca.crt"
    settings = MonitorSettings(
        mqtt="127.0.0.1:1",
        kafka=secure_kafka.access("monitor"),
        database=f"{secure_postgresql.url_of()}?sslmode=verify-full&sslrootcert={authority}",
    )
    servers = ServerCertificates(settings)
    registry = CollectorRegistry()
    export_ends(registry, servers.ends)
    mosquitto = MosquittoMetrics(registry, BROKER_UP.on(registry).labels("mosquitto"), settings.broker)
    presented = {
        "kafka_server": expiration_in(role_folder(kafka_fleet.pki, "kafka") / CERTIFICATE_FILE),
        "database_server": x509.load_pem_x509_certificate(
            secure_postgresql.issued.certificate.encode()
        ).not_valid_after_utc.timestamp(),
    }

    async def are_exported() -> bool:
        await servers.measure(mosquitto)  # a busy server may answer later than its time limit
        return {purpose: exported_expiration(registry, purpose) for purpose in servers.ends} == presented

    await until(are_exported, "the ends that both servers present")

    # The manifests of Kubernetes name the database by variables of PostgreSQL's client library.
    where = {"HOST": "localhost", "PORT": secure_postgresql.port, "SSLMODE": "verify-full", "SSLROOTCERT": authority}
    for name, value in where.items():
        monkeypatch.setenv(f"PG{name}", str(value))
    in_variables = settings.model_copy(update={"database": "postgresql+psycopg:///postgres"})
    by_variables = ServerCertificates(in_variables)

    async def is_measured() -> bool:
        await by_variables.measure(mosquitto)
        return by_variables.ends["database_server"]() == presented["database_server"]

    await until(is_measured, "the end that PostgreSQL presents")

    def gone(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", gone)
    await servers.measure(mosquitto)
    assert {purpose: exported_expiration(registry, purpose) for purpose in servers.ends} == presented


async def test_the_first_of_several_servers_of_a_database_is_read_at_its_usual_port(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[tuple[str, int]]()

    def refuse(address: tuple[str, int], *_: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    query = f"host=first&host=second&sslmode=verify-full&sslrootcert={fleet.pki / 'ca.crt'}"
    settings = MonitorSettings(mqtt="127.0.0.1:1", kafka="127.0.0.1:1", database=f"postgresql:///records?{query}")
    registry = CollectorRegistry()
    mosquitto = MosquittoMetrics(registry, BROKER_UP.on(registry).labels("mosquitto"), settings.broker)
    await ServerCertificates(settings).measure(mosquitto)
    assert tried == [("first", 5432)]


@pytest.mark.brokers
async def test_a_certificate_that_ended_before_the_monitor_started_has_the_time_of_its_refusal_as_end(
    fleet: Layout,
) -> None:
    with running_mosquitto(fleet) as (host, port):
        tls = role_tls(fleet.pki, "monitor")
        broker = MqttAccess(host, port, tls)
        issue_short(fleet, "mosquitto", -0.01)
        process = running(fleet.folder, "mosquitto")
        assert process is not None
        process.send(signal.SIGHUP)

        async def is_refused() -> bool:
            try:
                await asyncio.to_thread(mqtt_end, broker)
            except ssl.SSLCertVerificationError:
                return True
            return False

        await until(is_refused)  # mosquitto answers the signal later
        # Kafka and PostgreSQL are refused as this broker is: before their own protocol begins.
        servers = ServerCertificates(MonitorSettings(mqtt=broker, kafka=KafkaAccess(f"{host}:{port},127.0.0.1:1", tls)))
        registry = CollectorRegistry()
        mosquitto = MosquittoMetrics(registry, BROKER_UP.on(registry).labels("mosquitto"), broker)
        before = time.time()

        async def are_refused() -> bool:
            await servers.measure(mosquitto)  # a busy server may answer later than its time limit
            return not any(math.isnan(end()) for end in servers.ends.values())

        await until(are_refused)
        found = {purpose: end() for purpose, end in servers.ends.items()}
        assert set(found) == {"mqtt_server", "kafka_server"}
        assert all(before <= end <= time.time() for end in found.values()), found
        await servers.measure(mosquitto)
        assert {purpose: end() for purpose, end in servers.ends.items()} == found


@pytest.mark.parametrize(
    "database",
    ["", "sqlite:///here", "postgresql://a@b/c", "postgresql://a@b/c?sslmode=require", "postgresql:///c?host=/run"],
)
def test_servers_without_tls_or_without_a_trusted_authority_have_no_end(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    settings = MonitorSettings(mqtt="127.0.0.1:1", kafka="127.0.0.1:2", database=database)
    assert ServerCertificates(settings).ends == {}


@pytest.mark.brokers
async def test_the_monitor_stays_connected_while_its_certificate_is_damaged(fleet: Layout) -> None:
    with running_mosquitto(fleet) as (host, port):
        tls = role_tls(fleet.pki, "monitor")
        broker = MqttAccess(host, port, tls)
        registry = CollectorRegistry()
        mosquitto = MosquittoMetrics(registry, BROKER_UP.on(registry).labels("mosquitto"), broker)
        mosquitto.start()
        try:
            await until(lambda: mosquitto.certificate_end is not None)
            (role_folder(fleet.pki, "monitor") / CERTIFICATE_FILE).write_text("half of a")
            with pytest.raises(ConfigError):
                mosquitto.reconnect()
            mosquitto.measure()
            servers = ServerCertificates(MonitorSettings(mqtt=broker, kafka=KafkaAccess("127.0.0.1:1", tls)))
            await servers.measure(mosquitto)
            assert servers.ends["mqtt_server"]() == mosquitto.certificate_end
            assert math.isnan(servers.ends["kafka_server"]())
        finally:
            mosquitto.close()
