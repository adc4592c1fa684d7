"""A real PostgreSQL with `sslmode=verify-full`: accepted connections, and the error lines of refused ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from benchmarks.harness.postgresql import PostgreSQL
from consumers.database.engine import open_engine
from infra.local.kafka import Kafka
from infra.pki.authority import Authority
from infra.preflight.database import look_for_refusal, require_database
from infra.state_folder import Layout
from schemas.errors import BrokerError, ConfigError
from tests.infra.command_line import refusal as command_refusal
from tests.infra.command_line import run
from tests.infra.secure_postgresql import PASSWORD, SecurePostgreSQL
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.brokers
PREFIX = "PostgreSQL at "
CORRECT = "Correct the address, the login or the certificate."


@dataclass
class Connection:
    """The options of a connection: a name of the host, the trusted root certificate, and others."""

    server: SecurePostgreSQL
    root: Path
    host: str = "localhost"
    options: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        parameters = {"sslmode": "verify-full", "sslrootcert": str(self.root)} | self.options
        query = "&".join(f"{name}={value}" for name, value in parameters.items() if value)
        return f"{self.server.url_of(self.host)}?{query}"


@pytest.fixture
def connection(secure_postgresql: SecurePostgreSQL, kafka_fleet: Layout, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return Connection(secure_postgresql, kafka_fleet.pki / "ca.crt")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "other")


@pytest.fixture
def own_certificate(connection: Connection) -> Iterator[None]:
    """Restore the server's certificate after the test."""
    before = connection.server.issued
    yield
    connection.server.issued = before
    connection.server.restart()


def refusal(url: str) -> str:
    """Return the error line, which is the same from both checks."""
    with pytest.raises(BrokerError) as required:
        require_database(url, PATIENCE_S)
    with pytest.raises(BrokerError) as looked_up:
        look_for_refusal(url)
    (line,) = str(required.value).splitlines()
    assert str(looked_up.value) == line
    assert PASSWORD not in line
    return line


def test_the_right_root_certificate_host_and_password_connect_by_tls(connection: Connection) -> None:
    require_database(connection.url, PATIENCE_S)
    look_for_refusal(connection.url)
    engine = open_engine(connection.url, writes=True)
    try:
        with engine.begin() as session:
            encrypted = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
            assert session.exec_driver_sql(encrypted).one() == (True, "TLSv1.3")
    finally:
        engine.dispose()


def test_a_password_from_a_file_is_accepted(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    line = refusal(connection.url)
    assert line.endswith(
        f"a request for a password, which neither PGPASSWORD nor a file named by PGPASSFILE gives. {CORRECT}"
    )
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    require_database(connection.url, PATIENCE_S)


def test_a_wrong_certificate_database_or_password_is_one_error_line_without_a_wait(
    connection: Connection, other: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"{PREFIX}localhost:{connection.server.port}: expected an accepted connection, got "
    (tmp_path / "empty").write_text("nothing\n")
    distrust = "the server's certificate is not to be trusted: it is "
    cases = (
        (
            Connection(connection.server, other.folder / "ca.crt"),
            f"{prefix}{distrust}of another authority than the one we were given",
        ),
        (
            Connection(connection.server, tmp_path / "none"),
            f'{prefix}root certificate file "{tmp_path}/none" does not exist',
        ),
        (
            Connection(connection.server, tmp_path / "empty"),
            f"{prefix}sslrootcert: authorities: expected certificates in PEM",
        ),
        (
            Connection(connection.server, connection.root, options={"sslmode": "disable"}),
            f"{prefix}it takes nobody without TLS",
        ),
    )
    for wrong, line in cases:
        assert refusal(wrong.url).startswith(line)
    by_address = refusal(Connection(connection.server, connection.root, "127.0.0.1").url)
    assert by_address == prefix.replace("localhost", "127.0.0.1") + f"{distrust}for another address. {CORRECT}"
    assert (
        refusal(connection.url.replace("/postgres?", "/nowhere?"))
        == f'{prefix}database "nowhere" does not exist. {CORRECT}'
    )
    monkeypatch.setenv("PGPASSWORD", f"not the {PASSWORD}")
    assert refusal(connection.url) == f"{prefix}wrong user or password. {CORRECT}"


@pytest.mark.parametrize(("days", "words"), [(-0.5, "it has expired"), (30, "it is for another host name")])
def test_a_server_with_an_invalid_certificate_is_not_trusted(
    connection: Connection, kafka_fleet: Layout, own_certificate: None, days: float, words: str
) -> None:
    hosts = ["localhost"] if days < 0 else ["db.example"]
    connection.server.issued = Authority(kafka_fleet.pki).issue("postgresql", hosts=hosts, client=False, days=days)
    connection.server.restart()
    assert refusal(connection.url).endswith(f"the server's certificate is not to be trusted: {words}. {CORRECT}")


def test_the_answer_of_a_server_that_takes_no_connection_now_is_named_after_the_deadline(
    postgresql: PostgreSQL,
) -> None:
    url = postgresql.create("closed")
    engine = create_engine(postgresql.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as session:
        session.exec_driver_sql("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    engine.dispose()
    with pytest.raises(BrokerError, match='got the answer: database "closed" is not currently accepting connections'):
        require_database(url, 0.1)
    look_for_refusal(url)


def test_an_unreachable_server_is_named_after_the_deadline() -> None:
    url = "postgresql+psycopg://eve:s3cret@127.0.0.1:1/records"
    with pytest.raises(BrokerError, match=rf"^{PREFIX}127\.0\.0\.1:1: expected a response within 0\.1 s, got none"):
        require_database(url, 0.1)
    require_database(url, 0)
    look_for_refusal(url)
    require_database("sqlite:////nowhere/records.sqlite", 5)
    with pytest.raises(ConfigError, match="database URL: expected sqlite:///FILE"):
        require_database("mysql://eve:s3cret@127.0.0.1/x", 5)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("ssl_mode=verify-full", 'invalid connection option "ssl_mode"'),
        ("channel_binding=maybe", 'invalid channel_binding value: "maybe"'),
        ("service=nowhere", 'definition of service "nowhere" not found'),
    ],
)
def test_an_invalid_option_of_the_url_is_one_error_line_without_a_wait(option: str, words: str) -> None:
    line = refusal(f"postgresql+psycopg://eve@127.0.0.1:1/records?{option}")
    assert line == f"{PREFIX}127.0.0.1:1: expected an accepted connection, got {words}. {CORRECT}"


@pytest.mark.parametrize("name", ["record", "audit"])
def test_recorder_and_audit_report_a_refused_connection_at_their_start(
    kafka: Kafka,
    connection: Connection,
    other: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    arguments = [name, "--kafka", kafka.bootstrap, *role_options(name, tmp_path)]
    prefix = f"{PREFIX}localhost:{connection.server.port}: expected an accepted connection, got "
    line = command_refusal(run(*arguments, "--database", Connection(connection.server, other.folder / "ca.crt").url))
    assert line.startswith(f"{prefix}the server's certificate is not to be trusted: it is of another authority")
    monkeypatch.delenv("PGPASSWORD")
    in_url = connection.url.replace("postgres@", "postgres:a-wr0ng-one@")
    assert command_refusal(run(*arguments, "--database", in_url)) == f"{prefix}wrong user or password. {CORRECT}"


def role_options(name: str, folder: Path) -> list[str]:
    return ["--quarantine", str(folder / "quarantine")] if name == "record" else []
