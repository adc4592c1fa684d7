"""Snapshots of a database for backups: SQLite by its backup interface, PostgreSQL by `pg_dump` and `pg_restore`."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, delete, func, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError

from consumers.database.dead_letters import rename_topics
from consumers.database.engine import database_url, open_engine
from consumers.database.tables import offsets
from schemas.errors import StateError, first_line

Offsets = dict[str, dict[int, int]]
"""The next Kafka offset of each partition, by topic."""

_PROGRAMS: Final = "apt-get install postgresql-client"
_SECRETS: Final = frozenset(("password", "sslpassword"))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Raise StateError in place of any error of the database that the message calls `name`."""
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as error:
        raise StateError(
            f"{name}: expected one that answers, got {first_line(error)}. Check its address, and the free space."
        ) from None
    except (DBAPIError, sqlite3.DatabaseError) as error:
        raise StateError(
            f"{name}: expected a whole and readable one, got {first_line(error)}. Restore a backup."
        ) from None


@readable("the database")
def snapshot(url: str, target: Path) -> Offsets:
    """Write a consistent copy of the database to the file `target`, next to running writers.

    Return the offsets in it: its rows are the effect of all records before them. Raises StateError if the database is
    missing or not a recorder's, or `pg_dump` fails.
    """
    parsed = database_url(url)
    engine = open_engine(url, writes=False)
    try:
        if parsed.get_backend_name() == "sqlite":
            with engine.connect() as connection:
                _check_records(connection)
            copy_sqlite(Path(parsed.database or ""), target)
            with closing(sqlite3.connect(target)) as copy:
                return _by_topic(copy.execute("SELECT topic, partition, next FROM offsets").fetchall())
        with engine.connect() as connection:
            _check_records(connection)
            name = connection.scalar(select(func.pg_export_snapshot()))
            found = _by_topic(connection.execute(select(offsets.c.topic, offsets.c.partition, offsets.c.next)).all())
            options = ("--format=custom", "--compress=0", "--no-owner", "--no-privileges", f"--snapshot={name}")
            with target.open("wb") as output:
                _run("pg_dump", [*options, f"--dbname={_server(parsed)}"], parsed, output=output)
            return found
    finally:
        engine.dispose()


@readable("the database")
def restore_postgresql(url: str, dump: IO[bytes]) -> None:
    """Fill an empty PostgreSQL database from the dump of `snapshot`, in one transaction.

    Raises StateError if the database does not answer or has tables of a recorder, or `pg_restore` fails.
    """
    parsed = database_url(url)
    engine = open_engine(url, writes=True)
    try:
        with engine.connect() as connection:
            if has_records(connection):
                raise StateError("the database: expected an empty one, got one with records. Name another --database.")
    finally:
        engine.dispose()
    options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
    _run("pg_restore", [*options, f"--dbname={_server(parsed)}"], parsed, given=dump)


@readable("the database")
def forget_kafka(url: str, until_ms: int) -> None:
    """Remove the stored offsets, which belong to another Kafka: the next recorder reads from the beginning.

    The topics of stored dead letters get the suffix `@UNTIL_MS`: the positions of new letters begin at 0 again.
    """
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            connection.execute(delete(offsets))
            rename_topics(connection, until_ms)
    finally:
        engine.dispose()


def has_records(connection: Connection) -> bool:
    """Return whether the database has the tables of a recorder."""
    return inspect(connection).has_table(offsets.name)


def _check_records(connection: Connection) -> None:
    if not has_records(connection):
        raise StateError(f"the database: expected a recorder's, got one without {offsets.name}. Correct the address.")


def copy_sqlite(source: Path, target: Path) -> None:
    """Write a consistent copy of a SQLite file, next to running writers."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
        closing(sqlite3.connect(target)) as copy,
    ):
        # The copy is complete or discarded: it needs no journal.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        # One step: it reads one state of the log while others write.
        reading.backup(copy, pages=-1)


def _by_topic(rows: Sequence[Sequence[object]]) -> Offsets:
    found: Offsets = {}
    for topic, partition, following in rows:
        found.setdefault(str(topic), {})[int(str(partition))] = int(str(following))
    return found


def _server(url: URL) -> str:
    """Return the address for PostgreSQL's programs, without passwords: every user can see arguments."""
    return make_conninfo(**{name: value for name, value in _parameters(url).items() if name not in _SECRETS})


def _parameters(url: URL) -> dict[str, str]:
    arguments = url.get_dialect()().create_connect_args(url)[1]
    return {name: str(value) for name, value in arguments.items() if name != "context"}


def _run(
    program: str, options: Sequence[str], url: URL, *, given: IO[bytes] | None = None, output: IO[bytes] | None = None
) -> None:
    if shutil.which(program) is None:
        raise StateError(f"{program} is missing: expected PostgreSQL's client programs. Install them: {_PROGRAMS}")
    password = _parameters(url).get("password")
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    with subprocess.Popen(
        [program, *options],
        env=environment,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=output,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stderr is not None
        if given is not None:
            assert running.stdin is not None
            # After a broken pipe, its error output has the reason.
            with suppress(BrokenPipeError):
                shutil.copyfileobj(given, running.stdin, 2**20)
            with suppress(BrokenPipeError):
                running.stdin.close()
        lines = running.stderr.read().decode(errors="replace").splitlines()
    if running.returncode:
        raise StateError(f"{program}: expected status 0, got {running.returncode}: {(lines or ['?'])[0]}")
