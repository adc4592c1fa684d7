"""The quarantine: flagged frames as sealed PNG with their verdict as JSON, in a folder or an object store."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Engine, delete, func, select

from consumers.database.engine import upsert
from consumers.database.tables import quarantine
from consumers.database.thread import QuarantineError
from consumers.evidence.flagged_files import read_flagged
from consumers.records.batch import FrameKey
from consumers.records.rows import FrameRow
from schemas.batched import batched
from schemas.errors import error_text, first_line
from schemas.evidence.flagged_pictures import FACTS, PLAIN, SEALED, seal_flagged
from schemas.keys.sealing import PreviewBox
from schemas.transport.object_store import open_store

log = structlog.get_logger()
_RECENT: Final = 32
"""Number of pictures that stay in memory after they were written: an alarm may wait for an earlier frame."""
_MOST_LOCKED: Final = 100
"""Frames that are passed over before a store counts as one that removes nothing."""
_FAILURES: Final = 3
_RETRY_S: Final = 3600.0
_ENDINGS: Final = (SEALED, PLAIN, FACTS)
_FILE: Final = re.compile(rf"([^/]+/[^/]+/[0-9a-f]{{16}}-[0-9]+)({'|'.join(map(re.escape, _ENDINGS))})")


def name_of(key: FrameKey) -> str:
    """Return `{site}/{camera}/{boot:016x}-{seq}`, without extension."""
    camera, boot, seq = key
    return f"{camera}/{boot:016x}-{seq}"


class Quarantine:
    """Files by name. Writing the files of a frame again changes nothing. For the database thread only.

    The files of a batch are written before its transaction begins: a store that stalls holds no lock. A crash leaves
    files without a row, which the redelivered verdicts write again.
    """

    def __init__(self, url: str, engine: Engine, box: PreviewBox) -> None:
        """`box` seals the pictures. Raises ConfigError for a URL that fsspec cannot open."""
        self._files, root = open_store("quarantine", url)
        self._root = root.rstrip("/")
        self._box = box
        self._insert = upsert(engine, quarantine).on_conflict_do_nothing()
        self._recent: deque[tuple[str, bytes]] = deque(maxlen=_RECENT)
        self._locked: dict[str, float] = {}
        """Frames whose files could not be removed, with the monotonic times of the next tries."""

    def write(self, row: FrameRow, png: bytes) -> int:
        """Write the files of the frame whose row is `row`. Return their bytes, for `enter`.

        Raises `QuarantineError` if the store fails.
        """
        name = name_of((row.camera, row.boot, row.seq))
        sealed = seal_flagged(png, name, self._box)
        verdict = json.dumps(row._asdict(), indent=1).encode()
        path = self._path(name)
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path + SEALED, sealed)
            self._files.pipe_file(path + FACTS, verdict)
        except Exception as error:  # each kind of store has its own errors
            raise QuarantineError(error_text(error)) from error
        self._recent.append((name, png))
        return len(sealed) + len(verdict)

    def enter(self, connection: Connection, key: FrameKey, size: int, recorded_ms: int) -> None:
        """Enter the files of a frame, which exist, with their bytes."""
        connection.execute(self._insert, {"name": name_of(key), "bytes": size, "at_ms": recorded_ms})

    def recent(self, key: FrameKey) -> bytes | None:
        """Return the PNG of a frame among the last that were written; None for others. Does not read the files."""
        wanted = name_of(key)
        return next((png for name, png in self._recent if name == wanted), None)

    def read(self, key: FrameKey) -> bytes:
        """Return the PNG of a frame; empty if it is not in quarantine, or its file cannot be opened."""
        name = name_of(key)
        try:
            return read_flagged(self._files, self._path(name), name).png(lambda: self._box)
        except FileNotFoundError:
            return b""

    def read_some(self, keys: Sequence[FrameKey]) -> dict[FrameKey, bytes]:
        """Return the PNGs of the first of these frames, as far as the store can be read."""
        found: dict[FrameKey, bytes] = {}
        for key in keys[:_RECENT]:
            try:
                found[key] = self.read(key)
            except Exception as error:  # each kind of store has its own errors
                log.warning("quarantine_not_read", error=error_text(error))
                break
        return found

    def adopt(self, connection: Connection, now_ms: int) -> None:
        """Enter the existing files if the table is empty, as in the database that replaces a damaged one.

        A file is as old as its last change; if the file system does not have that time, as `now_ms`. If the files
        cannot be listed, none is entered: the next start tries again.
        """
        if connection.execute(select(quarantine.c.name).limit(1)).first() is not None:
            return
        try:
            rows = self._rows_of(self._below(self._root, 3), now_ms)  # sites, cameras, files
        except FileNotFoundError:  # there is no folder yet
            return
        except Exception as error:  # each kind of store has its own errors
            log.warning("quarantine_not_read", error=error_text(error))
            return
        if rows:
            connection.execute(self._insert, rows)

    def _below(self, folder: str, depth: int) -> Iterator[dict[str, Any]]:
        """Yield the files down to `depth`. Of fsspec, `walk` omits folders that it cannot list."""
        for entry in self._files.ls(folder, detail=True):
            if entry["type"] != "directory":
                yield entry
            elif depth > 1:
                yield from self._below(entry["name"], depth - 1)

    def _rows_of(self, files: Iterable[dict[str, Any]], now_ms: int) -> list[dict[str, object]]:
        sizes: dict[str, int] = {}
        changed_ms: dict[str, int] = {}
        for file in files:
            found = _FILE.fullmatch(file["name"].removeprefix(self._root).lstrip("/"))
            if found is None:
                continue
            sizes[found[1]] = sizes.get(found[1], 0) + file["size"]
            try:
                changed_ms[found[1]] = round(1000 * self._files.modified(file["name"]).timestamp())
            except (NotImplementedError, FileNotFoundError):
                changed_ms[found[1]] = now_ms
        return [{"name": name, "bytes": size, "at_ms": changed_ms[name]} for name, size in sizes.items()]

    def bytes_held(self, connection: Connection) -> int:
        """Return the bytes of all files."""
        return int(connection.scalar(select(func.coalesce(func.sum(quarantine.c.bytes), 0))) or 0)

    def excess(self, connection: Connection, limit_bytes: int, before_ms: int, rows: int) -> list[str]:
        """Return the names of at most `rows` of the oldest frames that exceed a limit, for `remove`."""
        now_s = time.monotonic()
        self._locked = {name: again_s for name, again_s in self._locked.items() if again_s > now_s}
        held = self.bytes_held(connection)
        columns = quarantine.c.name, quarantine.c.bytes, quarantine.c.at_ms
        removable = select(*columns).where(quarantine.c.name.not_in(self._locked))
        found: list[str] = []
        for name, size, at_ms in connection.execute(removable.order_by(quarantine.c.at_ms).limit(rows)):
            if held <= limit_bytes and at_ms >= before_ms:
                break
            held -= size
            found.append(name)
        return found

    def remove(self, names: Sequence[str], within_s: float) -> tuple[list[str], bool]:
        """Remove the files of these frames, and return the frames whose files are gone, for `forget`.

        Call it outside of a transaction: a store may take long for each file. After `within_s` seconds the step ends,
        and True is returned too if nothing has failed. Files that cannot be removed are passed over for an hour. The
        third of them ends the step.
        """
        began_s, gone, failures, is_late = time.monotonic(), [], 0, False
        for name in names:
            try:
                self._remove(name)
                gone.append(name)
            except Exception as error:  # each kind of store has its own errors
                log.warning("quarantine_not_purged", name=name, error=first_line(error))
                self._locked[name] = time.monotonic() + _RETRY_S
                failures += 1
            is_late = time.monotonic() - began_s > within_s
            if failures == _FAILURES or is_late:
                break
        is_late = is_late and failures == 0  # a store that fails slowly must not be tried without a pause
        if len(self._locked) > _MOST_LOCKED:
            self._locked.clear()
        return gone, is_late

    def forget(self, connection: Connection, names: Sequence[str]) -> None:
        """Delete the rows of frames whose files are gone."""
        for some in batched(names):
            connection.execute(delete(quarantine).where(quarantine.c.name.in_(some)))

    def _remove(self, name: str) -> None:
        for ending in _ENDINGS:
            path = self._path(name) + ending
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                continue
            except Exception:  # each kind of store has its own errors, some also for a missing file
                if self._files.exists(path):
                    raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name
