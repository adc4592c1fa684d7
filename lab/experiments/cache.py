"""Steps that are not done twice: arrays in a file, valid as long as what they were made from stays the same."""

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
    """A name for what something is made from: any values whose `repr` says all."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def source_digest(*places: Path) -> str:
    """The state of the code and weights in these files and folders: when one of them changes, so does the digest."""
    state = hashlib.blake2b(digest_size=12)
    for place in places:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.suffix != ".pyc":
                state.update(f"{file.relative_to(place.parent)}\0".encode())
                state.update(hashlib.blake2b(file.read_bytes()).digest())
    return state.hexdigest()


class Step(NamedTuple):
    """What is kept under `name` holds as long as `made_from` stays the same."""

    name: str
    made_from: str


@dataclass(frozen=True)
class Cache:
    """A folder of npz files."""

    folder: Path

    def has(self, step: Step) -> bool:
        """Whether `get` would read it."""
        return _read(self.folder / f"{step.name}.npz", step.made_from, [_KEY]) is not None

    def get(self, name: str, made_from: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays called `name`, read when they were made from the same, else made and written."""
        file = self.folder / f"{name}.npz"
        found = _read(file, made_from)
        if found is not None:
            return found
        arrays = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        # A file that is there is whole: an interrupted run leaves only the temporary one.
        with replacing(file) as fresh, fresh.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays, **{_KEY: np.array(made_from)})
        return arrays


def _read(file: Path, made_from: str, names: Sequence[str] | None = None) -> Arrays | None:
    """Those `names`, or all arrays; None when the file is not there, was made from something else or cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if str(archive[_KEY]) != made_from:
                return None
            return {name: archive[name] for name in names or archive.files if name != _KEY}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
