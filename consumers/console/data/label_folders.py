"""Folders of labelled pictures, a sub-folder for each class: export of kept frames, and import as new ones."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from sqlalchemy import select

from consumers.console.access.sight import site_of
from consumers.console.data.labelled_frames import (
    IMPORTED,
    LabelledFrames,
    check_class,
    check_count,
    labelled_frames,
)
from consumers.records.batch import FrameKey
from schemas.errors import ConfigError
from schemas.keys.sealing import SEAL_BYTES
from schemas.runtime.visible_files import visible_files

_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Read = Callable[[Path], NDArray[np.uint8]]
"""Reads a picture file as (H, W, 1 or 3). Raises ConfigError for any other file."""


class ImportResult(NamedTuple):
    """The result of an import: the number of distinct frames of each class, and of files that were skipped."""

    counts: dict[str, int]
    skipped: int


class _ImportedPicture(NamedTuple):
    """A picture to import."""

    label: str
    jpeg: bytes
    """Empty if frames with this picture are kept."""
    kept: Sequence[str]
    """Names of the kept frames that have another label or none."""


def export_folder(
    frames: LabelledFrames,
    folder: Path,
    stopped: Callable[[], bool] = lambda: False,
    classes: Sequence[str] | None = None,
) -> dict[str, int]:
    """Write the labelled frames as `folder`/class/name.jpg, until `stopped`. Return the number of each class.

    Names begin with the camera and order its frames by time. A frame that does not open, or is of none of
    `classes`, is left out.
    """
    query = select(
        labelled_frames.c.name, labelled_frames.c.camera, labelled_frames.c.label, labelled_frames.c.at_ms
    ).where(labelled_frames.c.label != "")
    written: dict[str, int] = {}
    for name, camera, label, at_ms in frames.rows(query):
        if stopped():
            break
        jpeg = frames.picture(name) if classes is None or label in classes else b""
        if not jpeg:
            continue
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        (place / _exported(name, camera, at_ms)).write_bytes(jpeg)
        written[label] = written.get(label, 0) + 1
    return written


def frames_exported_as(frames: LabelledFrames, files: Iterable[str]) -> dict[str, str]:
    """Return the name of the frame that `export_folder` wrote as each of these files; other files are left out."""
    query = select(labelled_frames.c.name, labelled_frames.c.camera, labelled_frames.c.at_ms)
    names = {_exported(*row): row.name for row in frames.rows(query)}
    return {file: names[last] for file in files if (last := file.rpartition("/")[2]) in names}


def import_folder(frames: LabelledFrames, folder: Path, who: str, read: Read) -> ImportResult:
    """Store the pictures of `folder`/class and its sub-folders as labelled frames. `read` opens all but JPEG.

    A picture that is kept, such as one from `export_folder`, is not stored again: its frame gets the label.

    Raises ConfigError for a class name that is not allowed, a file that is not a picture, a picture of two
    classes, or more bytes than fit. Nothing is stored then.
    """
    skipped = 0
    files: list[tuple[str, Path]] = []
    for place in sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")):
        inside = visible_files(place)
        pictures = [each for each in inside if each.suffix.lower() in _ENDINGS]
        skipped += len(inside) - len(pictures)
        if not pictures:
            continue
        check_class(place.name)
        files += [(place.name, each) for each in pictures]
    room, size = frames.free_bytes(), 0
    kept = _kept_by_size(frames)
    found: dict[FrameKey, _ImportedPicture] = {}
    for label, file in files:
        jpeg = _as_jpeg(file, read)
        key, sealed = _imported_key(jpeg), len(jpeg) + SEAL_BYTES
        if key not in found:
            same = {name: old for name, old in kept.get(sealed, ()) if frames.picture(name) == jpeg}
            found[key] = _ImportedPicture(
                label, b"" if same else jpeg, [name for name, old in same.items() if old != label]
            )
            size += sealed * (sum(not old for old in same.values()) if same else 1)
        if size > room:  # not after the last file: all of them might exceed the memory
            raise ConfigError(
                f"{folder}: expected at most {room:,} bytes of pictures next to the labelled ones, got {size:,} as "
                f"JPEG up to {file.name}. Make the pictures fewer or smaller, or discard labelled frames."
            )
        if (other := found[key].label) != label:
            raise ConfigError(
                f"{file}: expected a picture of one class, got {other!r} and {label!r}. Remove one of the files."
            )
    classes = frames.classes()
    for each in found.values():
        sites = {site_of(name) for name in (*each.kept, *([IMPORTED] if each.jpeg else ()))}
        check_count(each.label, sites, classes)
        classes |= {(site, each.label) for site in sites}
    for each in found.values():
        if each.kept:
            frames.label(each.kept, each.label, who)
    for key, each in found.items():  # after the labels: `keep` may purge a frame without one
        if each.jpeg:
            frames.keep(key, each.jpeg, "imported", each.label, 1.0, each.label, who)
    return ImportResult(dict(Counter(each.label for each in found.values())), skipped)


def _kept_by_size(frames: LabelledFrames) -> Mapping[int, Sequence[tuple[str, str]]]:
    """Return the names and labels of all frames by the bytes of their sealed pictures."""
    found: dict[int, list[tuple[str, str]]] = {}
    query = select(labelled_frames.c.bytes, labelled_frames.c.name, labelled_frames.c.label)
    for size, name, label in frames.rows(query):
        found.setdefault(size, []).append((name, label))
    return found


def _as_jpeg(file: Path, read: Read) -> bytes:
    data = file.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.format == "JPEG":
                opened.load()
                return data
        pixels = read(file)
    except UnidentifiedImageError:
        raise ConfigError(f"{file}: expected a picture, got a file of another kind. Remove the file.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ConfigError) as error:
        raise ConfigError(f"{file}: expected a picture, got {error}. Remove the file.") from None
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).convert("RGB").save(out, "JPEG", quality=95)
    return out.getvalue()


def _imported_key(jpeg: bytes) -> FrameKey:
    digest = hashlib.sha256(jpeg).digest()
    return IMPORTED, int.from_bytes(digest[:7]), int.from_bytes(digest[7:13])


def _exported(name: str, camera: str, at_ms: int) -> str:
    """Return the name of a frame's file in an export."""
    return f"{camera.replace('/', '_')}-{at_ms:014d}-{name.rpartition('/')[2]}.jpg"
