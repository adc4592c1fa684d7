"""Frames in quarantine: the database lists them, and the recorder's store holds the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select

from consumers.console.access.sight import Sight
from consumers.console.data.sealed_files import answering_store
from consumers.database.tables import quarantine
from schemas.errors import ConfigError
from schemas.transport.object_store import open_store

MOST_COPIED: Final = 2_000


def frame_of(url: str, name: str) -> bytes:
    """Return the PNG of a frame in the quarantine at `url`.

    Raises FileNotFoundError if it was purged or never there, StateError if the store fails, ConfigError if fsspec
    cannot open the URL.
    """
    system, root = open_store("quarantine", url)
    with answering_store("quarantine"):
        return bytes(system.cat_file(f"{root.rstrip('/')}/{name}.png"))


def cameras_of(engine: Engine, sight: Sight) -> dict[str, int]:
    """Return the number of quarantined frames of each camera of these sites."""
    found: dict[str, int] = {}
    with engine.begin() as connection:
        for (name,) in connection.execute(select(quarantine.c.name).where(sight.where(quarantine.c.name))):
            camera = name.rpartition("/")[0]
            found[camera] = found.get(camera, 0) + 1
    return dict(sorted(found.items()))


def copy_flagged(engine: Engine, url: str, camera: str, folder: Path, stopped: Callable[[], bool]) -> int:
    """Copy the newest quarantined frames into `folder`, numbered; of all cameras if `camera` is empty.

    Return their number. Ends early if `stopped` returns true. Raises ConfigError if there are no frames.
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
            (folder / f"{copied:05d}.png").write_bytes(frame_of(url, name))
        except FileNotFoundError:  # purged since the query
            continue
        copied += 1
    if not copied and not stopped():
        raise ConfigError(f"quarantine: expected frames of {camera or 'any camera'}, got none")
    return copied
