"""Frames in quarantine: the database lists them, and the recorder's store holds the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select

from consumers.console.access.sight import Sight
from consumers.console.data.sealed_files import answering_store
from consumers.database.tables import quarantine
from consumers.evidence.flagged_files import read_flagged
from schemas.errors import ConfigError
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


def cameras_of(engine: Engine, sight: Sight) -> dict[str, int]:
    """Return the number of quarantined frames of each camera of these sites."""
    found: dict[str, int] = {}
    with engine.begin() as connection:
        for (name,) in connection.execute(select(quarantine.c.name).where(sight.where(quarantine.c.name))):
            camera = name.rpartition("/")[0]
            found[camera] = found.get(camera, 0) + 1
    return dict(sorted(found.items()))


def copy_flagged(
    engine: Engine, url: str, keys: KeyRing, camera: str, folder: Path, box: PreviewBox, stopped: Callable[[], bool]
) -> int:
    """Copy the newest quarantined frames into `folder`, sealed with `box`; of all cameras if `camera` is empty.

    Return their number. Frames that `keys` do not open are skipped. Ends early if `stopped` returns true. Raises
    ConfigError if there are no frames.
    """
    query = select(quarantine.c.name).order_by(quarantine.c.at_ms.desc()).limit(MOST_COPIED)
    if camera:
        query = query.where(quarantine.c.name.startswith(f"{camera}/", autoescape=True))
    with engine.begin() as connection:
        names = list(connection.scalars(query))
    folder.mkdir(parents=True, exist_ok=True)
    copied = 0
    for name in names:
        if stopped():
            break
        try:
            png = frame_of(url, name, keys)
        except FileNotFoundError:  # purged since the query
            continue
        if not png:
            continue
        file = folder / f"{name}{SEALED}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(seal_flagged(png, name, box))
        copied += 1
    if not copied and not stopped():
        raise ConfigError(f"quarantine: expected frames of {camera or 'any camera'} that this console opens, got none")
    return copied
