"""A PostgreSQL server on a loopback port, for tests and drills: the database of recorders on several machines.

It runs as `postgres` if this process is root, because the server refuses to run as root. All users must then have
access to the folders above its state folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.service import Service
from schemas.errors import BrokerError

USER = "postgres"
"""The owner of the databases, and the server's user if this process is root."""
_INSTALLED = Path("/usr/lib/postgresql")


@contextmanager
def passing_folder() -> Iterator[Path]:
    """Provide a folder that the server can read, deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pointillist-postgresql-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class PostgreSQL(Service):
    """One server, without passwords: only this machine reaches it."""

    role = "postgresql"
    port_names = ("postgresql",)

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://{USER}@{self.listen}/{database}"

    def create(self, database: str) -> str:
        """Make an empty database of that name; return its URL."""
        program = [str(self._binaries / "createdb"), "-h", self.host, "-p", str(self.port), "-U", USER, database]
        subprocess.run(program, check=True, capture_output=True)
        return self.url(database)

    def stop(self, deadline_s: float = 15.0) -> None:
        """Stop it without waiting for its clients; SIGKILL after the deadline."""
        if self._child is not None and self.poll() is None:
            # SIGTERM would wait until every client has left.
            self.child.identity.send(signal.SIGCONT)
            self.child.identity.send(signal.SIGINT)
            if self.child.wait(deadline_s) is None:
                self.child.kill()

    @property
    def _binaries(self) -> Path:
        found = sorted(_INSTALLED.glob("*/bin/initdb"))
        on_path = shutil.which("initdb")
        if on_path is None and not found:
            raise BrokerError("expected PostgreSQL, it is not installed: apt-get install postgresql")
        return found[-1].parent if found else Path(str(on_path)).resolve().parent

    def _command(self) -> list[str]:
        data = self.folder / "data"
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam(USER).pw_uid, -1)
        if not (data / "PG_VERSION").is_file():
            self._prepare(data)
        settings = [part for name, value in self._settings().items() for part in ("-c", f"{name}={value}")]
        return [*as_user(), str(self._binaries / "postgres"), "-D", str(data), *settings]

    def _prepare(self, data: Path) -> None:
        """Make the server's files in `data`."""
        usual = ("-U", USER, "-E", "UTF8", "--no-sync")
        command = [*as_user(), str(self._binaries / "initdb"), "-D", str(data), *usual, *self._authentication()]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"expected initdb to make {data}, got: {(done.stderr.splitlines() or ['?'])[-1]}")

    def _authentication(self) -> list[str]:
        """Return the options of initdb for the authentication of users."""
        return ["-A", "trust"]

    def _settings(self) -> dict[str, str]:
        """Return the server's settings."""
        # Commits must survive a killed server; a power failure of the machine is no case here.
        return {
            "listen_addresses": self.host, "port": str(self.port), "unix_socket_directories": "", "fsync": "off"
        }  # fmt: skip

    def _answers(self) -> bool:
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", self.host, "-p", str(self.port)]
        try:
            socket.create_connection((self.host, self.port), 0.5).close()
        except OSError:
            return False
        return subprocess.run(ready, check=False).returncode == 0


def as_user() -> list[str]:
    """Return the prefix of a command that runs it as the server's user; it dies with its parent."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig=KILL"]
