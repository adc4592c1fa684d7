"""Sealed files of one kind: pictures and films that no other program can open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from schemas.errors import MalformedError, StateError, error_text
from schemas.identity import Identity
from schemas.keys.sealing import PreviewBox
from schemas.transport.object_store import open_store

_ENDING: Final = ".sealed"
_MOST_LOCKED: Final = 10

log = structlog.get_logger()


@contextmanager
def answering_store(setting: str) -> Iterator[None]:
    """Raise StateError in place of an error of the store that a setting names, except for a missing file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # each kind of store has its own errors
        log.warning("store_failed", setting=setting, error=error_text(error))
        why = getattr(error, "strerror", None) or type(error).__name__  # without the path: it is for the log
        raise StateError(f"{setting}: expected a store that answers, got {why}. Check its folder or server.") from error


class SealedFiles:
    """The files of one folder. Every method may block: call them outside the event loop.

    Raises StateError if the store fails.
    """

    def __init__(self, url: str, folder: str, box: PreviewBox, kind: str) -> None:
        """`url` is that of all kept files; `box` seals the files as pictures of this `kind`.

        Raises ConfigError for a URL that fsspec cannot open.
        """
        self._files, root = open_store("kept_files", url)
        self._root = f"{root.rstrip('/')}/{folder}"
        self._box, self._kind = box, kind

    def write(self, name: str, identity: Identity, data: bytes) -> int:
        """Store `data` as the file `name`, sealed for this identity, and return its bytes."""
        sealed = self._box.seal(data, identity, self._kind)
        with answering_store("kept_files"):
            self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(self._path(name), sealed)
        return len(sealed)

    def read(self, name: str, identity: Identity) -> bytes:
        """Return a file's content; empty bytes if there is none, or if it is damaged or sealed under another key."""
        try:
            with answering_store("kept_files"):
                sealed = bytes(self._files.cat_file(self._path(name)))
            return self._box.open(sealed, identity, self._kind)
        except FileNotFoundError:
            return b""
        except MalformedError as error:
            log.warning("sealed_file_not_opened", name=name, kind=self._kind, error=str(error))
            return b""

    def remove_all(self, names: Iterable[str]) -> tuple[list[str], StateError | None]:
        """Delete files; return the names of those that are gone, and the first failure.

        A file that cannot be deleted does not stop the others. After ten failures the work ends: the store seems to
        delete nothing.
        """
        gone: list[str] = []
        failures: list[StateError] = []
        for name in names:
            try:
                with suppress(FileNotFoundError), answering_store("kept_files"):
                    self._files.rm_file(self._path(name))
                gone.append(name)
            except StateError as error:
                failures.append(error)
                if len(failures) == _MOST_LOCKED:
                    break
        return gone, failures[0] if failures else None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}{_ENDING}"
