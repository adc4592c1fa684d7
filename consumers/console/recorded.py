"""The recorder's database as a reader beside it sees it: also after the recorder has put another file in its place."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from sqlalchemy import Engine

from consumers.database.engine import database_url, open_engine


class Recorded:
    """Opens the database when it is first needed, and anew when its file is another one. Safe across threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        place = database_url(url)
        self._file = place.database if place.get_backend_name() == "sqlite" else None
        self._lock = Lock()
        self._engine: Engine | None = None
        self._opened: tuple[int, int] | None = None

    def engine(self) -> Engine:
        """To read with, for now: asked for again each time. StateError while there is no such file."""
        with self._lock:
            here = self._identity()
            if self._engine is not None and here != self._opened:
                # A damaged file is set aside under another name, and stays readable to whoever has it open.
                self._engine.dispose()
                self._engine = None
            if self._engine is None:
                self._engine, self._opened = open_engine(self._url, writes=False), here
            return self._engine

    def _identity(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            found = Path(self._file).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
