"""A cache of intermediate results: arrays in files, each of them valid as long as its inputs stay the same."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.runtime.atomic_file import replacing

Arrays = dict[str, NDArray[np.generic]]
_KEY = "made_from"


def digest(*parts: object) -> str:
    """Return the digest of the inputs of a result: any values whose `repr` is complete."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def source_digest(*places: Path) -> str:
    """Return the digest of the names and contents of these files, and of all files in these folders."""
    state = hashlib.blake2b(digest_size=12)
    for place in places:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.suffix != ".pyc":
                state.update(f"{file.relative_to(place.parent)}\0".encode())
                state.update(hashlib.blake2b(file.read_bytes()).digest())
    return state.hexdigest()


class Step(NamedTuple):
    """The key of a result: its `name`, and the digest of its inputs, with which it stays valid."""

    name: str
    made_from: str


@dataclass(frozen=True)
class Cache:
    """A folder of npz files."""

    folder: Path

    def has(self, step: Step) -> bool:
        """Return whether `get` reads the result of `step` from a file."""
        return _read(self.folder / f"{step.name}.npz", step.made_from, [_KEY]) is not None

    def get(self, name: str, made_from: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays `name`, read from their file if their inputs equal `made_from`, else made and written."""
        file = self.folder / f"{name}.npz"
        found = _read(file, made_from)
        if found is not None:
            return found
        arrays = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        # An existing file is complete: an interrupted run leaves only the temporary file.
        with replacing(file) as fresh, fresh.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays, **{_KEY: np.array(made_from)})
        return arrays


def _read(file: Path, made_from: str, names: Sequence[str] | None = None) -> Arrays | None:
    """Return the arrays `names`, or all; None if the file is missing, has other inputs or cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if str(archive[_KEY]) != made_from:
                return None
            return {name: archive[name] for name in names or archive.files if name != _KEY}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
