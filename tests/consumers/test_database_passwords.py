"""Passwords of database URLs: absent from the arguments of other programs and from errors."""

from __future__ import annotations

import io
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from consumers.database import snapshot as snapshots
from consumers.database.engine import database_url, open_engine
from consumers.database.snapshot import restore_postgresql, snapshot
from consumers.database.tables import offsets
from schemas.errors import ConfigError

IN_THE_QUERY = "postgresql+psycopg://u@h/db?password=hunter2&sslpassword=hunter3&sslmode=require"


def stand_in(*, records: bool) -> Engine:
    """Return a database in memory as a stand-in for a PostgreSQL server."""
    engine = create_engine("sqlite://")

    @event.listens_for(engine, "connect")
    def define(connection: Any, _record: object) -> None:
        connection.create_function("pg_export_snapshot", 0, lambda: "00000003")

    if records:
        offsets.create(engine)
    return engine


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install stand-ins for PostgreSQL's programs. Return the file to which they print arguments and password."""
    written = tmp_path / "printed"
    for name in ("pg_dump", "pg_restore"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0" "$@" "$PGPASSWORD" > {written}\n')
        program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return written


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:hunter2@h/db", "postgresql+asyncpg://u:hunter2@h/db", IN_THE_QUERY]
)
@pytest.mark.parametrize("program", ["pg_dump", "pg_restore"])
def test_a_password_is_passed_to_postgresqls_programs_only_by_a_variable(
    tmp_path: Path, printed: Path, monkeypatch: pytest.MonkeyPatch, program: str, url: str
) -> None:
    engine = stand_in(records=program == "pg_dump")
    monkeypatch.setattr(snapshots, "open_engine", lambda *_, **__: engine)
    if program == "pg_dump":
        snapshot(url, tmp_path / "dump")
    else:
        restore_postgresql(url, io.BytesIO())
    called, *arguments, password = printed.read_text().splitlines()
    assert Path(called).name == program
    assert "host=h dbname=db user=u" in " ".join(arguments)
    assert "hunter" not in " ".join(arguments)
    assert password == "hunter2"


@pytest.mark.parametrize("url", ["postgresql+psycopg://u:p@hunter2:hunter3@h/db", "postgresql+hunter2+x://u@h/db"])
def test_the_error_of_an_invalid_url_does_not_contain_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^database URL: expected sqlite:///FILE or postgresql") as raised:
        database_url(url)
    assert "hunter" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("url", "variables", "mode"),
    [
        ("postgresql+psycopg://u@db/name", {}, "prefer"),
        ("postgresql+psycopg://u@db/name?sslmode=require", {}, "require"),
        ("postgresql+psycopg:///name", {"PGHOST": "db", "PGSSLMODE": "verify-ca"}, "verify-ca"),
        ("postgresql+psycopg:///name?host=localhost,db", {}, "prefer"),
        ("postgresql+psycopg:///name?host=localhost&host=db", {}, "prefer"),
        ("postgresql+psycopg://u@localhost/name?hostaddr=db", {}, "prefer"),
        ("postgresql+psycopg:///name?host=localhost,db&sslmode=verify-full", {}, ""),
        ("postgresql+psycopg://u@db/name?sslmode=verify-full", {}, ""),
        ("postgresql+psycopg://u@db/name?sslmode=disable", {}, ""),
        ("postgresql+psycopg:///name", {"PGHOST": "db", "PGSSLMODE": "verify-full"}, ""),
        ("postgresql+psycopg://u@127.0.0.1/name", {}, ""),
        ("postgresql+psycopg:///name?host=/run/postgresql", {}, ""),
    ],
)
@pytest.mark.parametrize("writes", [True, False])
def test_a_password_is_sent_to_no_server_of_another_machine_that_tls_does_not_verify(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], mode: str, writes: bool
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not mode:
        open_engine(url, writes=writes).dispose()
        return
    with pytest.raises(ConfigError, match=f"^database at db: expected sslmode=verify-full, .* got {mode}. Add "):
        open_engine(url, writes=writes)


def test_a_service_of_the_client_library_needs_a_mode_of_tls_in_the_url() -> None:
    with pytest.raises(ConfigError, match="next to the service far, got prefer"):
        open_engine("postgresql+psycopg:///name?service=far", writes=False)
    open_engine("postgresql+psycopg:///name?service=far&sslmode=verify-full", writes=False).dispose()
