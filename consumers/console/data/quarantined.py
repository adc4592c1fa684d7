"""Frames in quarantine: the database lists them, and the recorder's store holds the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from consumers.console.access.sight import Sight
from consumers.console.data.sealed_files import answering_store
from consumers.database.tables import quarantine
from consumers.evidence.flagged_files import read_flagged
from schemas.evidence.flagged_pictures import SEALED, seal_flagged
from schemas.keys.keys import KeyRing
from schemas.keys.sealing import PreviewBox
from schemas.transport.object_store import open_store

MOST_COPIED: Final = 2_000


def frame_of(url: str, name: str, keys: KeyRing) -> bytes:
    """Return the PNG of a frame in the quarantine at `url`; empty bytes if its file cannot be opened.

    Raises FileNotFoundError if it was purged or never there, StateError if the store fails, ConfigError if fsspec
    cannot open the URL, SecretError if the frame is sealed and `keys` do not open pictures.
    """
    system, root = open_store("quarantine", url)
    with answering_store("quarantine"):
        found = read_flagged(system, f"{root.rstrip('/')}/{name}", name)
    return found.png(lambda: keys.previews)


def cameras_of(connection: Connection, sight: Sight) -> dict[str, int]:
    """Return the number of quarantined frames of each camera of these sites."""
    found: dict[str, int] = {}
    for name in connection.scalars(select(quarantine.c.name).where(sight.where(quarantine.c.name))):
        camera = name.rpartition("/")[0]
        found[camera] = found.get(camera, 0) + 1
    return dict(sorted(found.items()))


def newest_flagged(connection: Connection, camera: str) -> list[str]:
    """Return the names of the newest quarantined frames of a camera, or of all if `camera` is empty."""
    query = select(quarantine.c.name).order_by(quarantine.c.at_ms.desc()).limit(MOST_COPIED)
    if camera:
        query = query.where(quarantine.c.name.startswith(f"{camera}/", autoescape=True))
    return list(connection.scalars(query))


def copy_flagged(
    names: Iterable[str], url: str, keys: KeyRing, folder: Path, box: PreviewBox, stopped: Callable[[], bool]
) -> int:
    """Copy these quarantined frames into `folder`, sealed with `box`. Return their number.

    Frames that were purged or that `keys` do not open are skipped. Ends early if `stopped` returns true.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copied = 0
    for name in names:
        if stopped():
            break
        try:
            png = frame_of(url, name, keys)
        except FileNotFoundError:
            continue
        if not png:
            continue
        file = folder / f"{name}{SEALED}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(seal_flagged(png, name, box))
        copied += 1
    return copied
