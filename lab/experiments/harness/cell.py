"""A cell of an experiment: one measurement that is made, stored and repeated as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.cache import digest
from lab.provenance import made_by

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Tables = Mapping[str, Sequence["DataclassInstance"]]
"""Records by the name of their table; a record is a flat dataclass."""
_PROSE: Final = {".md", ".pyc"}


@dataclass(frozen=True)
class Cell:
    """One measurement. Planning it loads no data, so that staleness is cheap to find.

    `code` are the entries of the code that makes the row, as in `provenance.Repository.digest`. `files` are the bundles
    and data sets that it reads; `settings` is everything else that it depends on, by its `repr`. `seconds` is the
    estimated cost on one core. A measurement that takes longer than minutes keeps checkpoints in its cache.
    """

    name: str
    code: tuple[str, ...]
    measure: Callable[[], Tables]
    settings: object = ()
    files: tuple[Path, ...] = ()
    seconds: float = 60.0
    seed: int = 0

    @cached_property
    def code_state(self) -> str:
        """The digest of the code."""
        return made_by(*self.code)

    @cached_property
    def input_state(self) -> str:
        """The digest of settings, seed and files."""
        return digest(self.settings, self.seed, [(file.name, file_state(file)) for file in self.files])


_known: Final[dict[tuple[Path, int, int], str]] = {}


def file_state(place: Path) -> str:
    """Return the digest of a file, or of the files in a folder, without prose; `missing` if there is none.

    A file is read again only when its size or its time of change differs.
    """
    if place.is_dir():
        files = [file for file in sorted(place.rglob("*")) if file.is_file() and file.suffix not in _PROSE]
        return digest([(str(file.relative_to(place)), file_state(file)) for file in files])
    if not place.is_file():
        return "missing"
    status = place.stat()
    key = (place, status.st_size, status.st_mtime_ns)
    if key not in _known:
        with place.open("rb") as stream:
            _known[key] = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    return _known[key]
