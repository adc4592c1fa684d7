"""Restores of a backup into a state folder; see `backup_format`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from consumers.database.console_store import forget_database_number
from consumers.database.snapshot import forget_kafka, restore_postgresql
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
    local_folder,
    moment,
    reachable,
    store_at,
)
from infra.state_folder.identity_lock import RESTORING
from infra.state_folder.layout import KAFKA_NODES, Layout
from infra.state_folder.passphrase import MAGIC, SealedInput
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError

_AHEAD_MS: Final = 5 * 60_000
"""Tolerated difference between the clock by which a backup was named and the present one."""
_DATED: Final = re.compile(r"pointillist-(\d{8}T\d{6}\.\d{3}Z)-.*")


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
    system, path = store_at(given)
    with reachable(given):
        found = sorted(str(each) for each in system.ls(path, detail=False)) if system.isdir(path) else None
        exists = found is not None or system.exists(path)
    if found is not None:
        found = [each for each in found if each.endswith(SUFFIX)]
        if not found:
            raise StateError(f"--from: expected a folder with a backup, got none in {given}. Correct --from.")
        places = found if local_folder(given) is not None else [str(system.unstrip_protocol(each)) for each in found]
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


def _is_ahead(place: str) -> bool:
    """Return whether the name of a backup has a date that is more than `_AHEAD_MS` after now."""
    dated = _DATED.fullmatch(PurePosixPath(place).name)
    return dated is not None and dated[1] > moment(unix_ms() + _AHEAD_MS)


def _written(layout: Layout, manifest: Manifest) -> Iterator[str]:
    """Yield the entries that a restore makes, and the journals that SQLite would apply to them."""
    # Backups by earlier releases of a SQLite outside the state folder do not have it among their entries.
    database = [layout.database.name] if manifest.database == "sqlite" else []
    # Those that root made may name `lost+found`, of which they have no file.
    for name in (*database, *(entry for entry in manifest.entries if entry != LOST_FOUND)):
        yield name
        if name.endswith(".sqlite"):
            yield from (f"{name}-wal", f"{name}-shm", f"{name}-journal")


class _BackupStream:
    """A stream of a backup, whose errors must not be those of the state folder."""

    def __init__(self, given: IO[bytes], place: str) -> None:
        self._given = given
        self._place = place

    def read(self, size: int = -1) -> bytes:
        with reachable(self._place):
            return self._given.read(size)


@contextmanager
def _input(place: str, passphrase: str | None) -> Iterator[tarfile.TarFile]:
    system, path = store_at(place)
    with reachable(place):
        opened = system.open(path, "rb")
    try:
        with opened as raw:
            with reachable(place):
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
            with tarfile.open(fileobj=cast(IO[bytes], given), mode="r|", bufsize=AT_ONCE) as tar:
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
        reading = HashingStream(data)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(cast(IO[bytes], reading), file, AT_ONCE)
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
    entries = sorted(files.iterdir(), key=lambda each: (each.name == layout.database.name, each.name not in IDENTITIES))
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
