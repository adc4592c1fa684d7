"""PostgreSQL by `sslmode=verify-full`, with a real server: who is let in, and what is said where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consumers.database.engine import open_engine
from infra.local.kafka import Kafka
from infra.pki.authority import Authority
from infra.preflight.database import look_for_refusal, require_database
from infra.state_folder import Layout
from schemas.errors import BrokerError, ConfigError
from tests.infra.command_line import refusal as refused
from tests.infra.command_line import run
from tests.infra.secure_postgresql import PASSWORD, SecurePostgreSQL

pytestmark = pytest.mark.brokers
PREFIX = "PostgreSQL at "
CORRECT = "Correct the address, the login or the certificate."


@dataclass
class Way:
    """One way to the server: its host by a name, whom we trust, and who we say we are."""

    server: SecurePostgreSQL
    root: Path
    host: str = "localhost"
    options: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        given = {"sslmode": "verify-full", "sslrootcert": str(self.root)} | self.options
        return (
            f"{self.server.url_of(self.host)}?{'&'.join(f'{name}={value}' for name, value in given.items() if value)}"
        )


@pytest.fixture
def way(secure_postgresql: SecurePostgreSQL, kafka_fleet: Layout, monkeypatch: pytest.MonkeyPatch) -> Way:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return Way(secure_postgresql, kafka_fleet.pki / "ca.crt")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "other")


@pytest.fixture
def own_certificate(way: Way) -> Iterator[None]:
    """Give the server its own certificate back."""
    before = way.server.issued
    yield
    way.server.issued = before
    way.server.restart()


def refusal(url: str) -> str:
    """The one line that a person is told, whoever asks."""
    with pytest.raises(BrokerError) as said:
        require_database(url, 5)
    with pytest.raises(BrokerError) as same:
        look_for_refusal(url)
    (line,) = str(said.value).splitlines()
    assert str(same.value) == line
    assert PASSWORD not in line
    return line


def test_the_right_root_host_and_password_let_in_and_the_connection_is_by_tls(way: Way) -> None:
    require_database(way.url, 5)
    look_for_refusal(way.url)
    engine = open_engine(way.url, writes=True)
    try:
        with engine.begin() as connection:
            encrypted = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
            assert connection.exec_driver_sql(encrypted).one() == (True, "TLSv1.3")
    finally:
        engine.dispose()


def test_a_password_in_a_file_lets_in(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD")
    line = refusal(way.url)
    assert line.endswith(
        f"a request for a password, which neither PGPASSWORD nor a file named by PGPASSFILE gives. {CORRECT}"
    )
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    require_database(way.url, 5)


def test_what_a_person_has_to_mend_is_one_line_at_once(
    way: Way, other: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{PREFIX}localhost:{way.server.port}: expected an accepted connection, got "
    (tmp_path / "empty").write_text("nothing\n")
    distrust = "the server's certificate is not to be trusted: it is "
    cases = (
        (Way(way.server, other.folder / "ca.crt"), f"{place}{distrust}of another authority than the one we were given"),
        (Way(way.server, tmp_path / "none"), f'{place}root certificate file "{tmp_path}/none" does not exist'),
        (Way(way.server, tmp_path / "empty"), f"{place}sslrootcert: authorities: expected certificates in PEM"),
        (Way(way.server, way.root, options={"sslmode": "disable"}), f"{place}it takes nobody without TLS"),
    )
    for wrong, line in cases:
        assert refusal(wrong.url).startswith(line)
    by_address = refusal(Way(way.server, way.root, "127.0.0.1").url)
    assert by_address == place.replace("localhost", "127.0.0.1") + f"{distrust}for another address. {CORRECT}"
    assert refusal(way.url.replace("/postgres?", "/nowhere?")) == f'{place}database "nowhere" does not exist. {CORRECT}'
    monkeypatch.setenv("PGPASSWORD", f"not the {PASSWORD}")
    assert refusal(way.url) == f"{place}wrong user or password. {CORRECT}"


@pytest.mark.parametrize(("days", "words"), [(-0.5, "it has expired"), (30, "it is for another host name")])
def test_a_server_with_a_wrong_certificate_is_not_trusted(
    way: Way, kafka_fleet: Layout, own_certificate: None, days: float, words: str
) -> None:
    hosts = ["localhost"] if days < 0 else ["db.example"]
    way.server.issued = Authority(kafka_fleet.pki).issue("postgresql", hosts=hosts, client=False, days=days)
    way.server.restart()
    assert refusal(way.url).endswith(f"the server's certificate is not to be trusted: {words}. {CORRECT}")


def test_a_server_that_is_away_is_waited_for_and_then_named() -> None:
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
def test_an_option_of_the_address_that_is_wrong_is_one_line_at_once(option: str, words: str) -> None:
    line = refusal(f"postgresql+psycopg://eve@127.0.0.1:1/records?{option}")
    assert line == f"{PREFIX}127.0.0.1:1: expected an accepted connection, got {words}. {CORRECT}"


@pytest.mark.parametrize("name", ["record", "audit"])
def test_recorder_and_audit_say_so_at_their_start(
    kafka: Kafka, way: Way, other: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arguments = [name, "--kafka", kafka.bootstrap, *_beside(name, tmp_path)]
    place = f"{PREFIX}localhost:{way.server.port}: expected an accepted connection, got "
    line = refused(run(*arguments, "--database", Way(way.server, other.folder / "ca.crt").url))
    assert line.startswith(f"{place}the server's certificate is not to be trusted: it is of another authority")
    monkeypatch.delenv("PGPASSWORD")
    in_url = way.url.replace("postgres@", "postgres:a-wr0ng-one@")
    assert refused(run(*arguments, "--database", in_url)) == f"{place}wrong user or password. {CORRECT}"


def _beside(name: str, folder: Path) -> list[str]:
    return ["--quarantine", str(folder / "quarantine")] if name == "record" else []
