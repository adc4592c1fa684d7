"""Database engines, and the prepared insertions of the hot path."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2s
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import ClauseElement, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.sql.compiler import SQLCompiler

from schemas.batched import batched
from schemas.errors import ConfigError, StateError

LATE_S: Final = 10.0
"""Seconds after which a database that has neither answered nor failed counts as away."""
LATE: Final = f"no response for {LATE_S:g} s"
BUSY_TIMEOUT_MS: Final = 2_000
SQLITE_CACHE_KIB: Final = 16 * 1024
SQLITE_WAL_PAGES: Final = 4_000
"""Checkpoint threshold of the write-ahead log, in pages of 4 KiB.

SQLite's default is a quarter of it. Each transaction with a few thousand frames of as many cameras would then wait for
a checkpoint of its own.
"""
BACKUP_COPIES: Final = (".backup.sqlite", ".backup-console.sqlite")
"""Files next to a SQLite file that exist until a backup ends."""
SETTLED_MS: Final = {"sqlite": 15_000, "postgresql": 35_000}
"""Longest time between the time that a row of the recorder carries and the end of its transaction."""
LARGEST_INSERT: Final = 128
"""Maximum number of rows in one statement."""

_HERE: Final = (None, "", "localhost", "127.0.0.1", "::1")
"""Hosts of a database that each machine has for itself."""
_USUAL: Final = {"host": "localhost", "port": "5432"}
_SSL_MODES: Final = ("verify-full", "disable")
"""PostgreSQL's modes for another machine: verified TLS, or by choice none."""
_READ_ONLY: Final = ("default_transaction_read_only", "in_hot_standby")
"""Parameters that PostgreSQL reports by itself, from version 14 on: a new connection may get other values."""
_POSTGRESQL: Final = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    # A query whose server has vanished ends after 15 s. By default, it would take the kernel two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "options": "-c statement_timeout=30000",
}

Row = tuple[Any, ...]
"""The values of one row: types of its table, in the order of its columns."""


def database_url(text: str) -> URL:
    """Return a database URL with PostgreSQL's driver set to psycopg.

    Raises `ConfigError` that names the supported kinds.
    """
    try:
        url = make_url(text)
        name = url.get_dialect().name
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        name = ""
    if name not in ("sqlite", "postgresql"):
        # The URL may hold a password: it is not repeated.
        raise ConfigError("database URL: expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")
    return url if name == "sqlite" else url.set(drivername="postgresql+psycopg")


def client_settings(url: URL) -> dict[str, str]:
    """Return the settings with which PostgreSQL's client library connects to `url`, by the library's names.

    They include those of environment variables, such as PGHOST. `host` and `port` are those of the first server.
    """
    found = _all_settings(url)
    return found | {name: found[name].partition(",")[0] or value for name, value in _USUAL.items()}


def _all_settings(url: URL) -> dict[str, str]:
    """Return the same, with all servers in `host` and `port`, separated by commas."""
    import psycopg

    defaults = {
        option.keyword.decode(): option.val.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.val
    }
    _, given = url.get_dialect()().create_connect_args(url)
    several = {name: ",".join(value) for name, value in given.items() if isinstance(value, list | tuple)}
    return _USUAL | defaults | {name: str(value) for name, value in given.items()} | several


def _is_elsewhere(host: str) -> bool:
    """Return whether a host of the client library's settings is another machine; a folder is that of a Unix socket."""
    return host not in _HERE and not host.startswith("/")


def _require_verification(url: URL) -> None:
    """Raise ConfigError if TLS to a server of another machine would not verify it.

    A server that is not verified could ask for the password as clear text. The library's own default is `prefer`.
    """
    settings = _all_settings(url)
    mode = settings.get("sslmode", "prefer")
    if mode in _SSL_MODES:
        return
    if (service := settings.get("service")) and not url.host and "host" not in url.query:
        # The library takes the server from its file of services.
        raise ConfigError(f"database: expected sslmode=verify-full next to the service {service}, got {mode}. Add it.")
    hosts = [*settings["host"].split(","), *settings.get("hostaddr", "").split(",")]
    if elsewhere := next(filter(_is_elsewhere, hosts), None):
        raise ConfigError(
            f"database at {elsewhere}: expected sslmode=verify-full, which verifies the server, got {mode}. Add "
            "?sslmode=verify-full&sslrootcert=FILE to its URL, or set PGSSLMODE and PGSSLROOTCERT; sslmode=disable is "
            "for a network that nobody else can reach."
        )


def database_id(text: str, name: str = "") -> str:
    """Return an id of a reader called `name` that stays at restarts and differs from that of other databases."""
    url = database_url(text)
    host: str | None = url.host
    port: int | str | None = url.port
    if url.get_backend_name() == "postgresql" and not host:
        settings = client_settings(url)
        if _is_elsewhere(settings["host"]):
            host, port = settings["host"], settings["port"]
    machine = platform.node() if host in _HERE else ""
    parts = (name, machine, host, port, url.database)  # no user or password: they may change
    return blake2s(json.dumps(parts).encode(), digest_size=4).hexdigest()


def sqlite_file(text: str) -> Path | None:
    """Return the file of a SQLite URL; None for another database."""
    url = database_url(text)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def open_engine(text: str, *, writes: bool, connections: int = 2) -> Engine:
    """Return an engine for the recorder (`writes`) or for readers, which never change anything.

    The engine connects on first use, and opens at most this many `connections`. Threads that wait for one get it in no
    order: give one to each thread. A reader of a SQLite file that does not exist gets a `StateError`. Raises
    ConfigError if TLS to a PostgreSQL of another machine would not verify it.
    """
    url = database_url(text)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url, writes=writes, connections=connections)
    _require_verification(url)
    engine = create_engine(
        url,
        paramstyle="format",
        pool_size=connections // 2,
        max_overflow=connections - connections // 2,
        pool_pre_ping=True,
        connect_args=_POSTGRESQL,
    )
    if not writes:
        return engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")

    @event.listens_for(engine, "checkin")
    def close_if_read_only(connection: Any, record: ConnectionPoolEntry) -> None:
        # After a failover, the name leads to the new primary, and open connections to a standby stay there.
        if connection is None or connection.closed:
            return
        if any(connection.info.parameter_status(name) == "on" for name in _READ_ONLY):
            record.invalidate()

    return engine


def _open_sqlite(url: URL, *, writes: bool, connections: int) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigError("database URL: expected sqlite:///FILE, got a database in memory, which loses its records")
    path = Path(url.database)
    if writes:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise StateError(f"{path} is missing: expected the recorder's database")
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections // 2,
        max_overflow=connections - connections // 2,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # SQLAlchemy begins the transactions: the driver would begin one only before the first change.
        connection.isolation_level = None
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
        if writes:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {SQLITE_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
        else:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def settled_at_ms(recorded: Engine | Connection, now_ms: int) -> int:
    """Return the time (Unix, ms) before which the recorder's database gets no more rows.

    A reader of new rows begins at this time of its last reading, or reads only older rows and each of them once.
    """
    return now_ms - SETTLED_MS[recorded.dialect.name]


def upsert(engine: Engine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return the dialect's INSERT, which supports ON CONFLICT."""
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def insert_or_replace(engine: Engine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return the INSERT of whole rows that replaces a row with the same primary key."""
    insertion = upsert(engine, table)
    replaced = {column.name: insertion.excluded[column.name] for column in table.columns if not column.primary_key}
    return insertion.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=replaced)


class PreparedStatement:
    """A statement compiled once and run by the driver itself, which costs a fraction of SQLAlchemy's own way.

    For the statements of every batch. It is compiled on first use. The driver's errors are raised as they are, not
    wrapped.
    """

    def __init__(self, engine: Engine, statement: ClauseElement) -> None:
        self._engine = engine
        self._statement = statement

    @cached_property
    def _compiled(self) -> tuple[str, tuple[str, ...]]:
        """The SQL, and the names of its parameters in order."""
        compiled = cast(SQLCompiler, self._statement.compile(dialect=self._engine.dialect))
        return str(compiled), tuple(compiled.positiontup or ())

    def run(self, connection: Connection, **values: object) -> DBAPICursor:
        """Run the statement once with parameters by name."""
        sql, names = self._compiled
        cursor = connection.connection.cursor()
        cursor.execute(sql, tuple(values[name] for name in names))
        return cursor

    def run_each(self, connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Run the statement once for each of `rows`, at least one."""
        sql, names = self._compiled
        connection.connection.cursor().executemany(sql, [tuple(row[name] for name in names) for row in rows])

    def run_all(self, connection: Connection, names: Sequence[str], rows: Sequence[Row]) -> None:
        """Run the statement for each row of values in the order of `names`, without an object for each row."""
        sql, own_names = self._compiled
        if own_names != tuple(names):
            order = [names.index(name) for name in own_names]
            rows = [tuple(row[place] for place in order) for row in rows]
        connection.connection.cursor().executemany(sql, rows)


class NewRows:
    """INSERT … ON CONFLICT DO NOTHING RETURNING the primary key: it finds the new ones among many rows."""

    def __init__(self, engine: Engine, table: Table) -> None:
        self._engine = engine
        self._table = table
        self._statements: dict[int, str] = {}

    def insert(self, connection: Connection, rows: Sequence[Row]) -> list[Row]:
        """Insert `rows` with distinct keys. Return the keys of the new ones."""
        new: list[Row] = []
        for some in batched(rows, LARGEST_INSERT):
            cursor = connection.connection.cursor()
            cursor.execute(self._statement(len(some)), tuple(chain.from_iterable(some)))
            new += cursor.fetchall()
        return new

    @cached_property
    def _parts(self) -> tuple[str, str, str]:
        """The SQL of one row: the part before its values, the values, and the part after them."""
        columns = {column.name: None for column in self._table.columns}
        insertion = upsert(self._engine, self._table).values([columns]).on_conflict_do_nothing()
        text = str(insertion.returning(*self._table.primary_key.columns).compile(dialect=self._engine.dialect))
        into, _, rest = text.partition(" VALUES ")
        row, _, returning = rest.partition(" ON CONFLICT")
        return into, row, returning

    def _statement(self, rows: int) -> str:
        found = self._statements.get(rows)
        if found is None:
            into, row, returning = self._parts
            values = ", ".join([row] * rows)
            found = self._statements[rows] = f"{into} VALUES {values} ON CONFLICT{returning}"
        return found
