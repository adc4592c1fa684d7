"""Backups of a state folder: one tar file with the databases, keys, models, quarantine and settings.

The file begins with `manifest.json` and ends with `checksums.json`, so a cut file is detected. The database is a
snapshot that holds the Kafka offsets of its rows: a recorder on the restored database continues at these offsets.

Kafka's log, the spools of cameras, logs and caches stay out. The first two belong to other machines in a deployment.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from consumers.database.console_store import forget_database_number
from consumers.database.engine import BACKUP_COPIES, database_url
from consumers.database.snapshot import Offsets, copy_sqlite, forget_kafka, readable, restore_postgresql, snapshot
from infra.state_folder.identity_lock import LOCK_FILE, RESTORING, changing_identities
from infra.state_folder.layout import KAFKA_NODES, Layout
from infra.state_folder.passphrase import MAGIC, SealedInput, SealedOutput
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError, UserError, first_line
from schemas.runtime.atomic_file import UNFINISHED, replacing
from schemas.runtime.file_lock import lock_file
from schemas.transport.object_store import open_store

FORMAT: Final = 1
SUFFIX: Final = ".backup"
MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "checksums.json"
DATABASE: Final = "database"
CONSOLE: Final = "console"
FILES: Final = "state/"
_LOST_FOUND: Final = "lost+found"
"""The folder of root at the top of an ext4 disk, which no other user can read."""
LEFT_OUT: Final = frozenset(
    (
        "mosquitto", "prometheus", "alertmanager", "grafana", "spool", "logs", "cache", "lock", LOCK_FILE,
        "roles.json", "processes.json", "owner.token", "owner.token.lock", "ports.json", "report.json",
        "camera-rates.lock", _LOST_FOUND,
    )
)  # fmt: skip
"""Entries of a state folder that a new run makes again, or that belong to cameras; see also `is_left_out`."""
_NUMBERED: Final = re.compile(r"kafka(-\d+)?|(fleet|cameras)(-\d+)?\.json")
"""The same of several nodes, or of several processes with cameras: the times of their starts, their reports."""
_IDENTITIES: Final = frozenset(
    (
        "pki", "keys", "roles", "enrolments", "users", "tokens", "fleet.secret", "signer.key", "decider.key",
        "trusted-signers", "generations.json",
    )
)  # fmt: skip
_AT_ONCE: Final = 2**20
_ABANDONED_S: Final = 3600.0
"""Seconds without a change after which an unfinished backup counts as one of a killed command."""
_AHEAD_MS: Final = 5 * 60_000
"""Tolerated difference between the clock by which a backup was named and the present one."""
_DATED: Final = re.compile(r"pointillist-(\d{8}T\d{6}\.\d{3}Z)-.*")


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


def _written(layout: Layout, manifest: Manifest) -> Iterator[str]:
    """Yield the entries that a restore makes, and the journals that SQLite would apply to them."""
    # Backups by earlier releases of a SQLite outside the state folder do not have it among their entries.
    database = [layout.database.name] if manifest.database == "sqlite" else []
    # Those that root made may name `lost+found`, of which they have no file.
    for name in (*database, *(entry for entry in manifest.entries if entry != _LOST_FOUND)):
        yield name
        if name.endswith(".sqlite"):
            yield from (f"{name}-wal", f"{name}-shm", f"{name}-journal")


def write_backup(
    layout: Layout, to: str, version: str, *, database: str | None = None, passphrase: str | None = None
) -> tuple[str, Manifest]:
    """Write a backup of a running or stopped system into the folder or URL `to`. Return its place and its manifest.

    `database` is the URL of a PostgreSQL that recorders use in place of the state folder's SQLite. Without a
    `passphrase`, only a local file that its owner alone can read is accepted, because a backup contains keys.

    Raises ConfigError for an unsafe place and for a SQLite elsewhere, and StateError if the system's files cannot be
    read or do not exist.
    """
    local = _local(to)
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


def restore_backup(
    layout: Layout, place: str, *, database: str | None = None, passphrase: str | None = None, new_kafka: bool = False
) -> Manifest:
    """Restore a backup into a state folder. `database` is the URL of the empty database for a dump of PostgreSQL.

    With `new_kafka`, the offsets are removed: a recorder reads the log from its beginning. The topics of dead letters
    get the backup's time as a suffix. The nodes of Kafka are not restored, because their disks are lost.

    Programs that follow the console's audit log begin again at its oldest line.

    The folder may hold what a backup leaves out, such as Kafka's log and spools. Nothing is replaced: everything is
    read and checked first. Raises StateError for a damaged backup, if something of it already exists, or if the folder
    cannot be written. After an error the folder is as before, but for its rights and its lock; an empty PostgreSQL may
    have been filled.
    """
    staged, left = layout.folder / RESTORING, {KAFKA_NODES} if new_kafka else set()
    try:
        with ExitStack() as ending:
            with _input(place, passphrase) as tar:
                manifest, digest = _manifest(tar, place)
                if there := [
                    name for name in _written(layout, manifest) if name not in left and (layout.folder / name).exists()
                ]:
                    raise StateError(
                        f"--state: expected a folder without {there[0]}, got {layout.folder}. Choose another folder, "
                        "or move the old one away."
                    )
                if (manifest.database == "postgresql") != (database is not None):
                    wanted = "--database with an empty PostgreSQL" if database is None else "no --database"
                    raise ConfigError(
                        f"restore: expected {wanted} for this backup, got another form. Correct the options."
                    )
                shutil.rmtree(staged, ignore_errors=True)  # a killed restore leaves it behind
                ending.callback(shutil.rmtree, staged, ignore_errors=True)
                _read_tar(tar, place, staged, manifest, {MANIFEST: digest})
            for name in left:
                (staged / FILES / name).unlink(missing_ok=True)
            _fill_databases(staged, manifest, database, new_kafka)
            _move_entries(staged / FILES, layout)
    except OSError as error:
        raise StateError(
            f"--state: expected a writable folder with room for the backup, got {error}. Choose another one."
        ) from None
    return manifest


def find_backup(given: str) -> str:
    """Return the backup at a path or URL: of a folder, the newest one in it.

    Raises StateError if there is none, or if the newest one is dated after now: a clock was wrong, and later backups
    may have earlier dates.
    """
    system, path = _system(given)
    with _reachable(given):
        found = sorted(str(each) for each in system.ls(path, detail=False)) if system.isdir(path) else None
        exists = found is not None or system.exists(path)
    if found is not None:
        found = [each for each in found if each.endswith(SUFFIX)]
        if not found:
            raise StateError(f"--from: expected a folder with a backup, got none in {given}. Correct --from.")
        places = found if _local(given) is not None else [str(system.unstrip_protocol(each)) for each in found]
        present = [each for each in places if not _is_ahead(each)]
        if present[-1:] != places[-1:]:
            choice = f"{present[-1]}, or another file" if present else "a file"
            raise StateError(
                f"--from: expected a folder without a backup dated after now, got {PurePosixPath(places[-1]).name} in "
                f"{given}. Correct this machine's clock, or give {choice}."
            )
        return places[-1]
    if not exists:
        raise StateError(f"--from: expected a backup, got {given}, which does not exist. Correct --from.")
    return given


# Writing


def _file_name(made_ms: int) -> str:
    """Return the name of a backup, later ones behind earlier ones. Systems with one folder never have the same name."""
    return f"pointillist-{_moment(made_ms)}-{secrets.token_hex(4)}{SUFFIX}"


def _moment(ms: int) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(ms / 1000))}.{ms % 1000:03}Z"


def _is_ahead(place: str) -> bool:
    """Return whether the name of a backup has a date that is more than `_AHEAD_MS` after now."""
    dated = _DATED.fullmatch(PurePosixPath(place).name)
    return dated is not None and dated[1] > _moment(unix_ms() + _AHEAD_MS)


def _require_system(layout: Layout) -> None:
    """Raise StateError if the folder has neither keys nor a database."""
    try:
        if any((layout.folder / name).exists() for name in (*_IDENTITIES, layout.database.name, "console.sqlite")):
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
        system, path = _system(to)
        target = f"{path.rstrip('/')}/{name}"
        with _reachable(to):
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
    with tarfile.open(fileobj=output, mode="w|", bufsize=_AT_ONCE, format=tarfile.PAX_FORMAT) as tar:
        _add_bytes(tar, MANIFEST, json.dumps(asdict(manifest)).encode(), sums)
        for name, file in databases.items():
            if file.is_file():
                _add_file(tar, name, file, sums)
        with io.BytesIO() as copy:
            # The lock covers the copy alone: `output` may be a store that hangs.
            with changing_identities(layout.folder), tarfile.open(fileobj=copy, mode="w") as held:
                for name in entries:
                    if name in _IDENTITIES:
                        _add_all(held, layout.folder, name, sums)
            copy.seek(0)
            with tarfile.open(fileobj=copy, mode="r") as held:
                for each in held:
                    tar.addfile(each, held.extractfile(each))
        for name in entries:
            if name not in _IDENTITIES:
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
        inner[:] = sorted(name for name in inner if name != _LOST_FOUND)
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


class _HashingStream:
    """A stream that hashes the bytes that are read from another one."""

    def __init__(self, given: IO[bytes]) -> None:
        self._given = given
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._given.read(size)
        self.hash.update(data)
        return data


class _Read(_HashingStream):
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


# Reading


class _BackupStream:
    """A stream of a backup, whose errors must not be those of the state folder."""

    def __init__(self, given: IO[bytes], place: str) -> None:
        self._given = given
        self._place = place

    def read(self, size: int = -1) -> bytes:
        with _reachable(self._place):
            return self._given.read(size)


@contextmanager
def _input(place: str, passphrase: str | None) -> Iterator[tarfile.TarFile]:
    system, path = _system(place)
    with _reachable(place):
        opened = system.open(path, "rb")
    try:
        with opened as raw:
            with _reachable(place):
                sealed = raw.read(len(MAGIC)) == MAGIC
                if not sealed:
                    raw.seek(0)
            if sealed and passphrase is None:
                raise ConfigError("--passphrase-file is missing: expected the passphrase of this backup. Give it.")
            if not sealed and passphrase is not None:  # anybody who can write to the place could have put it there
                raise ConfigError(
                    f"--passphrase-file: expected an encrypted backup, got {place}, which is not encrypted. Leave the "
                    "option out if you trust whoever can write to that place."
                )
            fetched = cast(IO[bytes], _BackupStream(raw, place))
            given = SealedInput(fetched, cast(str, passphrase)) if sealed else fetched
            with tarfile.open(fileobj=cast(IO[bytes], given), mode="r|", bufsize=_AT_ONCE) as tar:
                yield tar
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(place, str(error)) from None


def _manifest(tar: tarfile.TarFile, place: str) -> tuple[Manifest, str]:
    """Read the first member; return it and its checksum."""
    first = tar.next()
    data = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
    if data is None:
        raise _damaged(place, f"no {MANIFEST}")
    try:
        raw = data.read()
        found: dict[str, Any] = json.loads(raw)
        if found["format"] != FORMAT:
            raise StateError(
                f"the backup: expected format {FORMAT}, got {found['format']}. Restore it with release "
                f"{found['version']}."
            )
        offsets = {topic: {int(part): at for part, at in each.items()} for topic, each in found["offsets"].items()}
        return Manifest(**(found | {"offsets": offsets})), hashlib.sha256(raw).hexdigest()
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(place, f"{MANIFEST}: {error}") from None


def _is_announced(name: str, manifest: Manifest) -> bool:
    """Return whether the manifest announces a member, so that it replaces nothing in the state folder."""
    if name == DATABASE:
        return bool(manifest.database)
    if name == CONSOLE:
        return "console.sqlite" in manifest.entries
    return name.startswith(FILES) and name.split("/")[1] in manifest.entries


def _read_tar(tar: tarfile.TarFile, place: str, staged: Path, manifest: Manifest, sums: dict[str, str]) -> None:
    """Extract all members behind the manifest, whose checksum is in `sums`, into `staged`, and check them."""
    (staged / FILES).mkdir(parents=True)
    wanted: dict[str, str] | None = None
    while (info := tar.next()) is not None:
        data = tar.extractfile(info)
        if data is None or Path(info.name).is_absolute() or ".." in Path(info.name).parts:
            raise _damaged(place, f"a member {info.name!r}")
        if info.name == CHECKSUMS:
            wanted = json.loads(data.read())
            continue
        if not _is_announced(info.name, manifest):
            raise _damaged(place, f"a member {info.name!r} that {MANIFEST} does not announce")
        target = staged / info.name
        target.parent.mkdir(parents=True, exist_ok=True)
        reading = _HashingStream(data)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(cast(IO[bytes], reading), file, _AT_ONCE)
        target.chmod(info.mode & 0o777)
        sums[info.name] = reading.hash.hexdigest()
    if wanted != sums:
        raise _damaged(place, "the end is missing" if wanted is None else "a wrong checksum")


def _fill_databases(staged: Path, manifest: Manifest, database: str | None, new_kafka: bool) -> None:
    """Fill the PostgreSQL at the URL `database`, or move the SQLite files to the other files in `staged`.

    Remove the console's number from its database and, with `new_kafka`, the offsets.
    """
    restored = Layout(staged / FILES)
    if (staged / CONSOLE).is_file():
        (staged / CONSOLE).rename(restored.console_database)
        forget_database_number(restored.console_url)
    if database is not None:
        with (staged / DATABASE).open("rb") as dump:
            restore_postgresql(database, dump)
        forget_database_number(database)
    elif (staged / DATABASE).is_file():
        (staged / DATABASE).rename(restored.database)
    if new_kafka and manifest.database:
        forget_kafka(database or restored.database_url, manifest.made_ms)


def _move_entries(files: Path, layout: Layout) -> None:
    """Move the entries of `files` to the state folder, identities first and the database last; after an error, none."""
    entries = sorted(
        files.iterdir(), key=lambda each: (each.name == layout.database.name, each.name not in _IDENTITIES)
    )
    try:
        for entry in entries:
            entry.rename(layout.folder / entry.name)
    except BaseException:
        for entry in entries:
            if not entry.exists():
                (layout.folder / entry.name).rename(entry)
        raise


def _damaged(place: str, why: str) -> StateError:
    return StateError(f"{place}: expected a whole backup, got a damaged file ({why}). Use another backup.")


@contextmanager
def _reachable(place: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each kind of store has its own errors
        raise StateError(
            f"{place}: expected a folder or URL that answers, got {type(error).__name__}: {first_line(error)}. Correct "
            "the address, or its rights."
        ) from None


def _local(url: str) -> Path | None:
    """Return the local folder of a path or a `file://` URL; None for another URL."""
    if "://" not in url:
        return Path(url)
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


def _system(url: str) -> tuple[Any, str]:
    with _reachable(url):
        return open_store("the place of the backup", url)
