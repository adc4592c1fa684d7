"""A PostgreSQL with TLS and a password, with the settings that compose.yaml gives it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final

from benchmarks.harness.postgresql import USER, PostgreSQL
from infra.pki.authority import IssuedCertificate
from tests.infra.test_compose import COMPOSE, SERVICES

PASSWORD: Final = "s3cret of the database"


class SecurePostgreSQL(PostgreSQL):
    """A PostgreSQL with the certificate `issued`, which may change before a restart."""

    def __init__(self, state: Path, issued: IssuedCertificate) -> None:
        super().__init__(state)
        self.issued = issued

    def url_of(self, host: str = "localhost", user: str = USER, database: str = "postgres") -> str:
        """Return the URL of a database under a name of its host, without the password."""
        return f"postgresql+psycopg://{user}@{host}:{self.port}/{database}"

    def _authentication(self) -> list[str]:
        return ["-A", "scram-sha-256", "--pwfile", str(self._write_private("password", PASSWORD))]

    def _settings(self) -> dict[str, str]:
        """Return the settings of compose.yaml, with the paths of this server's files."""
        words = [word.removeprefix("-c") for word in SERVICES["database"]["command"] if word.startswith("-c")]
        tls_settings = dict(word.split("=", 1) for word in words)
        assert tls_settings.keys() == {"ssl", "ssl_cert_file", "ssl_key_file", "hba_file"}
        for name, text in (
            ("ssl_cert_file", self.issued.certificate),
            ("ssl_key_file", self.issued.key),
            ("hba_file", (COMPOSE / "pg_hba.conf").read_text()),
        ):
            tls_settings[name] = str(self._write_private(Path(tls_settings[name]).name, text))
        return super()._settings() | tls_settings

    def _write_private(self, name: str, text: str) -> Path:
        """Write a file that only the server may read, as it requires of its key."""
        file = self.folder / name
        file.unlink(missing_ok=True)
        file.touch(0o600)
        file.write_text(text)
        if os.geteuid() == 0:
            os.chown(file, pwd.getpwnam(USER).pw_uid, -1)
        return file
