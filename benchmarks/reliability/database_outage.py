"""The drill `database`: a recorder's PostgreSQL is killed for a minute, then fails over to its standby, under load;
see `benchmarks.reliability.drills`.

`pointillist up` runs the load with its own recorder. A second recorder reads the same Kafka into PostgreSQL. The rows
of both must be the same in the end: none is missing, and none is there twice. The standby is a streaming replica that
does not confirm commits, so a fail-over may lose the last ones: the offsets go back with them, and Kafka's records are
read again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.harness.postgresql import USER, PostgreSQL, as_user, passing_folder
from benchmarks.harness.records import count_frames, rows
from benchmarks.harness.system import COMMAND, Result, RunningSystem, summary
from benchmarks.harness.waiting import wait_until
from infra.local.process import Child
from infra.settings.document import toml
from infra.state_folder import Layout, write_secret

SETTLED_S: Final = 15.0
OUTAGE_S: Final = 60.0
NOTICED_S: Final = 5.0
"""Time between the end of the primary server and the promotion of its standby."""
CATCH_UP_S: Final = 240.0
CAUGHT_UP_S: Final = 1.0
"""Lag at which the second recorder has caught up with the first one."""
_NAME: Final = "records"
_QUERY: Final = "select camera, boot, seq from frames"


class Primary(PostgreSQL):
    """A server that sends its log to a standby."""

    def _settings(self) -> dict[str, str]:
        return super()._settings() | {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}


class Standby(Primary):
    """A streaming replica of another server."""

    role = "standby"

    def __init__(self, folder: Path, primary: PostgreSQL) -> None:
        super().__init__(folder)
        self._primary = primary

    def _prepare(self, data: Path) -> None:
        source = ("-h", self._primary.host, "-p", str(self._primary.port), "-U", USER)
        program = str(self._binaries / "pg_basebackup")
        command = [*as_user(), program, *source, "-D", str(data), "-R", "-X", "stream", "--no-sync", "-c", "fast"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def promote(self) -> None:
        """Make it accept changes."""
        with psycopg.connect(_plain(self), autocommit=True) as connection:
            connection.execute("select pg_promote()")


def database(folder: Path, cameras: int = 16, fps: float = 4.0) -> Result:
    """Kill the server for a minute and start it again; in a second run, promote the standby."""
    return {
        "killed": _run(folder / "killed", cameras, fps, fails_over=False),
        "failed_over": _run(folder / "failed-over", cameras, fps, fails_over=True),
    }


def _run(state: Path, cameras: int, fps: float, *, fails_over: bool) -> Result:
    database = Layout(state).database
    with passing_folder() as folder, _servers(folder, standby=fails_over) as servers:
        servers[0].create(_NAME)
        if fails_over:
            servers[1].start()
        hosts = "&".join(f"host={each.listen}" for each in servers)
        url = f"postgresql+psycopg://{USER}@/{_NAME}?{hosts}&target_session_attrs=read-write"
        with RunningSystem(state, "--cameras", cameras, "--fps", fps, "--no-prometheus") as system:
            system.await_role("fleet")
            with _recorder(system, url):
                wait_until(lambda: _newest(servers[0]) > 0, "the first row", 60, system=system)
                time.sleep(SETTLED_S)
                servers[0].kill()
                before = count_frames(database)
                time.sleep(NOTICED_S if fails_over else OUTAGE_S)
                at = time.monotonic()
                last = servers[-1]
                if isinstance(last, Standby):
                    last.promote()
                else:
                    last.start()
                waited = count_frames(database) - before
                wait_until(
                    lambda: _lag_s(state, last) <= CAUGHT_UP_S,
                    "a recorder that has caught up",
                    CATCH_UP_S,
                    system=system,
                )
                caught_up_s = time.monotonic() - at
                time.sleep(SETTLED_S)
                system.send("fleet", signal.SIGSTOP)
                wanted, found = _settled(state, last)
                system.send("fleet", signal.SIGCONT)
                system.interrupt()
                report = system.finish()
        return {
            "frames_meanwhile": waited,
            "caught_up_after_s": round(caught_up_s, 1),
            "rows": len(wanted),
            "rows_missing": len(wanted - found.keys()),
            "rows_unknown": len(found.keys() - wanted),
            "rows_twice": found.total() - len(found),
            "load": os.getloadavg()[0],
            **summary(report, state),
        }


@contextmanager
def _servers(folder: Path, *, standby: bool) -> Iterator[list[PostgreSQL]]:
    primary = Primary(folder)
    servers: list[PostgreSQL] = [primary, *([Standby(folder, primary)] if standby else [])]
    try:
        primary.start()
        yield servers
    finally:
        for server in servers:
            server.stop()


@contextmanager
def _recorder(system: RunningSystem, url: str) -> Iterator[None]:
    """Run a second recorder with the first one's certificate."""
    layout = Layout(system.state)
    folder = system.state.with_name(f"{system.state.name}-recorder")
    folder.mkdir()
    values = {
        "kafka": system.roles()["kafka"]["listen"],
        "state": layout.folder,
        "database": url,
        "quarantine": str(folder / "quarantine"),
        "connect_timeout_s": 0,
        # The cameras obey the other recorder.
        "probes": {"extra_per_s": 0.0},
    }
    settings = folder / "recorder.toml"
    write_secret(settings, toml(values))
    child = Child([*COMMAND, "record", "--config", str(settings)], folder / "recorder.log")
    child.start()
    try:
        yield
    finally:
        child.stop(15)


def _plain(server: PostgreSQL, name: str = "postgres") -> str:
    return f"host={server.host} port={server.port} user={USER} dbname={name} connect_timeout=5"


def _newest(server: PostgreSQL) -> int:
    """Return the newest capture in a server's records in Unix ms; 0 without records, or without an answer."""
    try:
        with psycopg.connect(_plain(server, _NAME)) as connection:
            row = connection.execute("select max(captured_ms) from frames").fetchone()
    except psycopg.Error:
        return 0
    return int(row[0] or 0) if row is not None else 0


def _lag_s(state: Path, server: PostgreSQL) -> float:
    ((newest,),) = rows(Layout(state).database, "select max(captured_ms) from frames")
    return float((newest or 0) - _newest(server)) / 1000


def _identities(server: PostgreSQL) -> Counter[tuple[str, int, int]]:
    with psycopg.connect(_plain(server, _NAME)) as connection:
        return Counter((str(camera), int(boot), int(seq)) for camera, boot, seq in connection.execute(_QUERY))


def _settled(state: Path, server: PostgreSQL) -> tuple[set[tuple[str, int, int]], Counter[tuple[str, int, int]]]:
    """Return the identities in both databases: once they are equal, or when they have had the time to become so."""
    end = time.monotonic() + SETTLED_S
    while True:
        wanted = {(str(camera), int(boot), int(seq)) for camera, boot, seq in rows(Layout(state).database, _QUERY)}
        found = _identities(server)
        if wanted == found.keys() or time.monotonic() > end:
            return wanted, found
        time.sleep(0.5)
