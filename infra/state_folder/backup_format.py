"""The format of a backup: one tar file with the databases, keys, models, quarantine and settings of a state folder.

The file begins with `manifest.json` and ends with `checksums.json`, so a cut file is detected. The database is a
snapshot that holds the Kafka offsets of its rows: a recorder on the restored database continues at these offsets.

Kafka's log, the spools of cameras, logs and caches stay out. The first two belong to other machines in a deployment.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from consumers.database.snapshot import Offsets
from infra.state_folder.identity_lock import LOCK_FILE
from schemas.errors import StateError, UserError, typed_text
from schemas.transport.object_store import open_store

FORMAT: Final = 1
SUFFIX: Final = ".backup"
MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "checksums.json"
DATABASE: Final = "database"
CONSOLE: Final = "console"
FILES: Final = "state/"
AT_ONCE: Final = 2**20
"""Bytes that are read or written at once."""
LOST_FOUND: Final = "lost+found"
"""The folder of root at the top of an ext4 disk, which no other user can read."""
LEFT_OUT: Final = frozenset(
    (
        "mosquitto", "prometheus", "alertmanager", "grafana", "spool", "logs", "cache", "lock", LOCK_FILE,
        "roles.json", "processes.json", "owner.token", "owner.token.lock", "ports.json", "report.json",
        "camera-rates.lock", LOST_FOUND,
    )
)  # fmt: skip
"""Entries of a state folder that a new run makes again, or that belong to cameras; see also `is_left_out`."""
_NUMBERED: Final = re.compile(r"kafka(-\d+)?|(fleet|cameras)(-\d+)?\.json")
"""The same of several nodes, or of several processes with cameras: the times of their starts, their reports."""
IDENTITIES: Final = frozenset(
    (
        "pki", "keys", "roles", "enrolments", "users", "tokens", "fleet.secret", "signer.key", "decider.key",
        "trusted-signers", "generations.json",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """The first member of a backup."""

    format: int
    version: str
    """Release that made it."""
    made_ms: int
    """Unix time of the snapshot, in milliseconds."""
    database: str
    """`sqlite` or `postgresql`; empty without a database."""
    offsets: Offsets
    """The next Kafka offset of each partition, by topic: all earlier records have their effect in the database."""
    entries: list[str]
    """Entries that a restore makes in the state folder."""

    @property
    def records(self) -> int:
        """Return the sum of all offsets."""
        return sum(sum(each.values()) for each in self.offsets.values())


def is_left_out(name: str) -> bool:
    """Return whether a backup leaves out this entry of a state folder. Databases are copied as snapshots."""
    return name in LEFT_OUT or name.startswith(".") or ".sqlite" in name or bool(_NUMBERED.fullmatch(name))


def moment(ms: int) -> str:
    """Return a Unix time in milliseconds as it stands in the names of backups."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(ms / 1000))}.{ms % 1000:03}Z"


class HashingStream:
    """A stream that hashes the bytes that are read from another one."""

    def __init__(self, given: IO[bytes]) -> None:
        self._given = given
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, or all."""
        data = self._given.read(size)
        self.hash.update(data)
        return data


@contextmanager
def reachable(place: str) -> Iterator[None]:
    """Raise StateError with the path or URL `place` for an error of its store."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each kind of store has its own errors
        raise StateError(
            f"{place}: expected a folder or URL that answers, got {typed_text(error)}. Correct "
            "the address, or its rights."
        ) from None


def local_folder(url: str) -> Path | None:
    """Return the local folder of a path or a `file://` URL; None for another URL."""
    if "://" not in url:
        return Path(url)
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


def store_at(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it. Raises StateError if it does not answer."""
    with reachable(url):
        return open_store("the place of the backup", url)
