"""Backups of a state folder, of a running or stopped system; see `backup_format`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import stat
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Final, cast

from consumers.database.engine import BACKUP_COPIES, database_url
from consumers.database.snapshot import Offsets, copy_sqlite, readable, snapshot
from infra.state_folder.backup_format import (
    AT_ONCE,
    CHECKSUMS,
    CONSOLE,
    DATABASE,
    FILES,
    FORMAT,
    IDENTITIES,
    LOST_FOUND,
    MANIFEST,
    SUFFIX,
    HashingStream,
    Manifest,
    is_left_out,
    local_folder,
    moment,
    reachable,
    store_at,
)
from infra.state_folder.identity_lock import changing_identities
from infra.state_folder.layout import Layout
from infra.state_folder.passphrase import SealedOutput
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError
from schemas.runtime.atomic_file import UNFINISHED, replacing
from schemas.runtime.file_lock import lock_file

_ABANDONED_S: Final = 3600.0
"""Seconds without a change after which an unfinished backup counts as one of a killed command."""


def write_backup(
    layout: Layout, to: str, version: str, *, database: str | None = None, passphrase: str | None = None
) -> tuple[str, Manifest]:
    """Write a backup of a running or stopped system into the folder or URL `to`. Return its place and its manifest.

    `database` is the URL of a PostgreSQL that recorders use in place of the state folder's SQLite. Without a
    `passphrase`, only a local file that its owner alone can read is accepted, because a backup contains keys.

    Raises ConfigError for an unsafe place and for a SQLite elsewhere, and StateError if the system's files cannot be
    read or do not exist.
    """
    local = local_folder(to)
    if local is None and passphrase is None:
        raise ConfigError("--to: expected --passphrase-file with a URL, got none. Give one: the backup contains keys.")
    if local is not None and local.resolve().is_relative_to(layout.folder.resolve()):
        raise ConfigError(
            f"--to: expected a folder outside the state folder, got {local}: a backup would contain all earlier "
            "ones. Choose another folder."
        )
    if database is not None and (parsed := database_url(database)).get_backend_name() == "sqlite":
        if Path(parsed.database or "").resolve() != layout.database.resolve():
            raise ConfigError(
                f"--database: expected a PostgreSQL, got the SQLite {parsed.database}. Leave the option out, "
                "and save that file by the command .backup of sqlite3."
            )
        database = None
    if database is None:
        _require_system(layout)
    made_ms = unix_ms()
    name = _file_name(made_ms)
    with _snapshots(layout) as (main, console):
        url = database or layout.database_url
        offsets: Offsets = {}
        have = database is not None or layout.database.is_file()
        # The console first: frames that it summed before its copy are then in the recorder's.
        if (layout.folder / "console.sqlite").is_file():
            with readable("the console's database"):
                copy_sqlite(layout.folder / "console.sqlite", console)
        if have:
            offsets = snapshot(url, main)
        entries = sorted(each.name for each in layout.folder.iterdir() if not is_left_out(each.name))
        databases = [main] if database is None and have else []
        names = {main: layout.database.name, console: "console.sqlite"}
        made = [*(names[each] for each in (*databases, console) if each.is_file()), *entries]
        kind = database_url(url).get_backend_name() if have else ""
        manifest = Manifest(FORMAT, version, made_ms, kind, offsets, made)
        with _output(to, local, name) as (place, raw):
            output = raw if passphrase is None else SealedOutput(raw, passphrase)
            _write_tar(cast(IO[bytes], output), layout, manifest, {DATABASE: main, CONSOLE: console}, entries)
            if isinstance(output, SealedOutput):
                output.close()
    return place, manifest


def _file_name(made_ms: int) -> str:
    """Return the name of a backup, later ones behind earlier ones. Systems with one folder never have the same name."""
    return f"pointillist-{moment(made_ms)}-{secrets.token_hex(4)}{SUFFIX}"


def _require_system(layout: Layout) -> None:
    """Raise StateError if the folder has neither keys nor a database."""
    try:
        if any((layout.folder / name).exists() for name in (*IDENTITIES, layout.database.name, "console.sqlite")):
            return
    except OSError as error:
        raise _unreadable(error) from None
    raise StateError(
        f"--state: expected the state folder of a system, got {layout.folder} without keys and without a database. "
        "Correct the path."
    )


@contextmanager
def _snapshots(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """Provide the paths of two snapshots in the state folder, which are deleted afterwards."""
    if not layout.folder.is_dir():
        raise StateError(f"--state: expected a state folder, got {layout.folder}. Correct the path.")
    files = layout.folder / BACKUP_COPIES[0], layout.folder / BACKUP_COPIES[1]
    try:
        lock = lock_file(layout.folder / ".backup.lock")
    except BlockingIOError:
        raise StateError(f"--state: expected no other backup of {layout.folder}, got one. Wait for it.") from None
    except OSError as error:
        raise _unreadable(error) from None
    try:
        for file in files:
            # A killed backup leaves its own behind.
            file.unlink(missing_ok=True)
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            file.unlink()
        before = os.umask(0o077)
        try:
            yield files
        finally:
            os.umask(before)
            for file in files:
                file.unlink(missing_ok=True)
    finally:
        os.close(lock)


@contextmanager
def _output(to: str, local: Path | None, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    if local is None:
        system, path = store_at(to)
        target = f"{path.rstrip('/')}/{name}"
        with reachable(to):
            try:
                with system.open(target, "wb") as remote:
                    yield f"{to.rstrip('/')}/{name}", remote
            except BaseException:
                # Closing it has published a cut file, which would be the newest one.
                with suppress(Exception):
                    system.rm_file(target)
                raise
        return
    try:
        local.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_leftovers(local)
        with replacing(local / name, private=True) as fresh:
            if fresh.stat().st_mode & 0o077:
                raise ConfigError(
                    f"--to: expected a disk with file modes, got {local}, where other users read every file. Give "
                    "--passphrase-file, or choose another folder."
                )
            with fresh.open("wb") as file:
                yield str(local / name), file
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"--to: expected a writable folder, got {local}: {error}. Choose another one.") from None


def _remove_leftovers(folder: Path) -> None:
    """Remove the files of killed backups. A running one, also of another system, has just written to its file."""
    for file in folder.glob(f".pointillist-*{SUFFIX}.*{UNFINISHED}"):
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > _ABANDONED_S:
                file.unlink()


def _write_tar(
    output: IO[bytes], layout: Layout, manifest: Manifest, databases: dict[str, Path], entries: list[str]
) -> None:
    sums: dict[str, str] = {}
    with tarfile.open(fileobj=output, mode="w|", bufsize=AT_ONCE, format=tarfile.PAX_FORMAT) as tar:
        _add_bytes(tar, MANIFEST, json.dumps(asdict(manifest)).encode(), sums)
        for name, file in databases.items():
            if file.is_file():
                _add_file(tar, name, file, sums)
        with io.BytesIO() as copy:
            # The lock covers the copy alone: `output` may be a store that hangs.
            with changing_identities(layout.folder), tarfile.open(fileobj=copy, mode="w") as held:
                for name in entries:
                    if name in IDENTITIES:
                        _add_all(held, layout.folder, name, sums)
            copy.seek(0)
            with tarfile.open(fileobj=copy, mode="r") as held:
                for each in held:
                    tar.addfile(each, held.extractfile(each))
        for name in entries:
            if name not in IDENTITIES:
                _add_all(tar, layout.folder, name, sums)
        _add_bytes(tar, CHECKSUMS, json.dumps(sums).encode(), {})


def _add_all(tar: tarfile.TarFile, root: Path, name: str, sums: dict[str, str]) -> None:
    for file in _files(root / name):
        # The recorder's purge may delete an old one meanwhile.
        with suppress(FileNotFoundError):
            _add_file(tar, f"{FILES}{file.relative_to(root)}", file, sums)


def _files(top: Path) -> Iterator[Path]:
    """Yield `top`, or the files below it, in order, also behind links. A folder that vanishes meanwhile has none.

    Raises StateError for a folder that cannot be read, and for a link to a folder above it.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unreadable(error) from None

    if not top.is_dir():
        yield top
        return
    for folder, inner, names in os.walk(top, onerror=refuse, followlinks=True):
        inner[:] = sorted(name for name in inner if name != LOST_FOUND)
        for link in (Path(folder, name).absolute() for name in inner):
            if link.is_symlink() and link.resolve() in {above.resolve() for above in link.parents}:
                raise StateError(
                    f"--state: expected no link to a folder that contains the link, got {link}. Remove the link."
                )
        yield from (Path(folder, name) for name in sorted(names))


def _add_file(tar: tarfile.TarFile, name: str, file: Path, sums: dict[str, str]) -> None:
    """Add a file, also one behind a link, or nothing for a socket.

    Raises FileNotFoundError, or StateError if it cannot be read or is a link to a missing file.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return
        opened = file.open("rb")
    except FileNotFoundError:
        if file.is_symlink() and not file.name.startswith("."):  # editors lock files by links that lead nowhere
            raise StateError(
                f"--state: expected a file behind the link {file}, got none. Mount its disk, or remove the link."
            ) from None
        raise
    except OSError as error:
        raise _unreadable(error) from None
    with opened:
        status = os.fstat(opened.fileno())
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = status.st_size, int(status.st_mtime), status.st_mode & 0o777
        reading = _Read(opened, file)
        tar.addfile(info, cast(IO[bytes], reading))
    sums[name] = reading.hash.hexdigest()


def _unreadable(error: OSError) -> StateError:
    return StateError(f"--state: expected a folder that this user can read and write, got {error}. Correct its rights.")


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes, sums: dict[str, str]) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))
    sums[name] = hashlib.sha256(data).hexdigest()


class _Read(HashingStream):
    """The same for a file of the state folder, whose errors must not be those of the output."""

    def __init__(self, given: IO[bytes], file: Path) -> None:
        super().__init__(given)
        self._file = file

    def read(self, size: int = -1) -> bytes:
        try:
            data = super().read(size)
        except OSError as error:
            raise StateError(f"--state: expected a readable {self._file}, got {error}. Check the disk.") from None
        if len(data) < size:
            raise StateError(f"--state: expected {self._file} to keep its length, got a shorter one. Try again.")
        return data
