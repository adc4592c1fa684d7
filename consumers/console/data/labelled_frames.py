"""Frames to label: sealed files, and their labels in the console's database."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    LargeBinary,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    delete,
    func,
    select,
    update,
)

from consumers.console.access.sight import ALL, Sight, site_of
from consumers.console.data.appearance import Appearance, Vector, sketch, suggestions
from consumers.console.data.sealed_files import SealedFiles
from consumers.database.console_store import metadata
from consumers.database.engine import upsert
from consumers.database.user_rows import MOST_SITES
from consumers.evidence.quarantine import name_of
from consumers.records.batch import FrameKey
from consumers.records.rows import UNSURE
from schemas.batched import batched
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError
from schemas.identity import CameraId, Identity
from schemas.keys.sealing import SEAL_BYTES, PreviewBox
from schemas.runtime.visible_files import visible_files

MOST_BYTES: Final = 256 * 2**20
"""Bytes of all kept frames."""
RESERVE: Final = 1 / 16
"""Share of `MOST_BYTES` that the labels of other sites leave to a site's frames without a label."""
LONGEST_S: Final = 30 * 86_400.0
"""Time in seconds that a frame stays without a label. Labelled frames go by `MOST_BYTES` alone."""
ENOUGH: Final = 5
"""Labels of a class that a training needs. A class with fewer is omitted."""
MOST_CLASSES: Final = 50
"""Maximum number of classes of a site."""
LONGEST_CLASS: Final = 64
_KIND: Final = "lesson"
"""Kind of the sealed files, which no later release can change."""
_FOLDER: Final = "teach"
_MOST_KNOWN: Final = 2_000
"""Labelled frames, the newest ones, that suggestions are made from."""
_IMPORTED: Final = "imported/pictures"
"""The camera of imported pictures."""
_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

labelled_frames = Table(
    "console_labelled_frames",
    metadata,
    Column("name", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("camera", "why", "verdict", "label", "who")),
    Column("confidence", Float, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ("boot", "seq", "at_ms", "bytes", "labelled_ms")),
    Column("sketch", LargeBinary, nullable=False),
    Index("console_labelled_frames_by_label", "label", "at_ms"),
)
"""Frames to label. `label` is empty until a user gives one, and `who` is that user.

`labelled_ms` is the time at which the label was given or removed, 0 before the first label.
"""

_changed_ms = case(
    (labelled_frames.c.labelled_ms > labelled_frames.c.at_ms, labelled_frames.c.labelled_ms),
    else_=labelled_frames.c.at_ms,
)
"""Time at which a frame was kept, or its label was given or removed, if that was later."""

frame_features = Table(
    "console_frame_features",
    metadata,
    Column("name", Text, primary_key=True),
    Column("features", LargeBinary, nullable=False),
)
"""Features of kept frames, half precision. Frames that were kept without the general network have none."""

collected = Table(
    "console_collected",
    metadata,
    Column("camera", Text, primary_key=True),
    Column("who", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""Cameras whose frames are collected, the user who chose each, and when."""


@dataclass(frozen=True)
class LabelledFrame:
    """A frame to label. `label` is empty without one."""

    name: str
    camera: str
    why: str
    """The reason for keeping it: `unsure`, `changed`, `new`, `usual`, `wrong` or `imported`."""
    verdict: str
    confidence: float
    label: str
    who: str
    at_ms: int
    suggestion: str = ""


_COLUMNS: Final = [labelled_frames.c[name] for name in LabelledFrame.__dataclass_fields__ if name != "suggestion"]


def newest_labels(connection: Connection, limit: int) -> dict[tuple[str, int, int], str]:
    """Return the newest labels by camera, boot and number of their frames."""
    columns = (labelled_frames.c.camera, labelled_frames.c.boot, labelled_frames.c.seq, labelled_frames.c.label)
    query = (
        select(*columns)
        .where(labelled_frames.c.label != "")
        .order_by(labelled_frames.c.labelled_ms.desc())
        .limit(limit)
    )
    return {(camera, boot, seq): label for camera, boot, seq, label in connection.execute(query)}


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


class LabelledFrames:
    """Reads and writes frames to label. Every method may block: call them outside the event loop."""

    def __init__(self, engine: Engine, url: str, box: PreviewBox, age_clock_ms: Callable[[], int] = unix_ms) -> None:
        """`url` has the kept files; `box` seals the files. `age_clock_ms` is the clock of purges by age.

        Raises ConfigError for a URL that fsspec cannot open.
        """
        self._files = SealedFiles(url, _FOLDER, box, _KIND)
        self._engine = engine
        self._age_clock_ms = age_clock_ms

    # Cameras

    def cameras(self, sight: Sight = ALL) -> list[str]:
        """Return the cameras of these sites whose frames are collected."""
        mine = sight.where(collected.c.camera)
        rows = self._rows(select(collected.c.camera).where(mine).order_by(collected.c.camera))
        return [row.camera for row in rows]

    def collect(self, camera: str, who: str, *, wanted: bool) -> None:
        """Begin or end the collection of a camera's frames."""
        with self._engine.begin() as connection:
            connection.execute(delete(collected).where(collected.c.camera == camera))
            if wanted:
                connection.execute(collected.insert().values(camera=camera, who=who, at_ms=unix_ms()))

    # Frames

    def keep(
        self,
        key: FrameKey,
        jpeg: bytes,
        why: str,
        verdict: str,
        confidence: float,
        label: str = "",
        who: str = "",
        features: Vector | None = None,
    ) -> str:
        """Store a frame's picture, sealed, and return its name. Storing it again changes its reason alone."""
        name, at_ms = name_of(key), unix_ms()
        small = sketch(jpeg).tobytes()
        size = self._files.write(name, _identity(key), jpeg)
        values = {
            "name": name, "camera": key[0], "boot": key[1], "seq": key[2], "why": why, "verdict": verdict,
            "confidence": confidence, "label": label, "who": who, "at_ms": at_ms, "labelled_ms": at_ms if label else 0,
            "bytes": size, "sketch": small,
        }  # fmt: skip
        with self._engine.begin() as connection:
            again = {"why": why} | ({"label": label, "who": who, "labelled_ms": at_ms} if label else {})
            insertion = upsert(self._engine, labelled_frames).values(values)
            connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=again))
            if features is not None:
                described = {"name": name, "features": features.astype(np.float16).tobytes()}
                connection.execute(upsert(self._engine, frame_features).values(described).on_conflict_do_nothing())
        self.purge()
        return name

    def picture(self, name: str) -> bytes:
        """Return a frame's JPEG; empty bytes if there is none, or if it is damaged or sealed under another key."""
        columns = (labelled_frames.c.camera, labelled_frames.c.boot, labelled_frames.c.seq)
        rows = self._rows(select(*columns).where(labelled_frames.c.name == name))
        return self._files.read(name, _identity(rows[0])) if rows else b""

    def appearances(self, camera: str, most: int) -> list[Appearance]:
        """Return the appearances of a camera's newest frames, the oldest of them first."""
        query = (
            select(labelled_frames.c.sketch, frame_features.c.features, labelled_frames.c.at_ms)
            .outerjoin(frame_features, frame_features.c.name == labelled_frames.c.name)
            .where(labelled_frames.c.camera == camera)
            .order_by(labelled_frames.c.at_ms.desc())
            .limit(most)
        )
        return [
            Appearance(
                np.frombuffer(row.sketch, np.float32),
                None if row.features is None else np.frombuffer(row.features, np.float16).astype(np.float32),
                row.at_ms,
            )
            for row in reversed(self._rows(query))
        ]

    def waiting(self, limit: int, sight: Sight = ALL) -> list[LabelledFrame]:
        """Return the newest frames of these sites without a label, with suggestions once there are enough labels."""
        mine = sight.where(labelled_frames.c.camera)
        columns = [*_COLUMNS, labelled_frames.c.sketch]
        without = select(*columns).where(labelled_frames.c.label == "", mine)
        query = without.order_by(labelled_frames.c.at_ms.desc()).limit(limit)
        rows = self._rows(query)
        newest = select(labelled_frames.c.label, labelled_frames.c.sketch).where(labelled_frames.c.label != "", mine)
        known = self._rows(newest.order_by(labelled_frames.c.labelled_ms.desc()).limit(_MOST_KNOWN))
        suggest = suggestions(known, [row.sketch for row in rows])
        return [replace(LabelledFrame(*row[:-1]), suggestion=each) for row, each in zip(rows, suggest, strict=True)]

    def labelled(self, limit: int, sight: Sight = ALL) -> list[LabelledFrame]:
        """Return the frames of these sites that were labelled last."""
        query = (
            select(*_COLUMNS)
            .where(labelled_frames.c.label != "", sight.where(labelled_frames.c.camera))
            .order_by(labelled_frames.c.labelled_ms.desc())
            .limit(limit)
        )
        return [LabelledFrame(*row) for row in self._rows(query)]

    def labelled_last(self, who: str, sight: Sight = ALL) -> list[str]:
        """Return the names of the frames to which this user gave the last label, several if it was given to several."""
        mine = (labelled_frames.c.label != "", labelled_frames.c.who == who, sight.where(labelled_frames.c.camera))
        newest = select(func.max(labelled_frames.c.labelled_ms)).where(*mine).scalar_subquery()
        query = select(labelled_frames.c.name).where(*mine, labelled_frames.c.labelled_ms == newest)
        return [row.name for row in self._rows(query)]

    def counts(self, sight: Sight = ALL) -> dict[str, int]:
        """Return the number of labelled frames of each class at these sites."""
        query = (
            select(labelled_frames.c.label, func.count().label("frames"))
            .where(labelled_frames.c.label != "", sight.where(labelled_frames.c.camera))
            .group_by(labelled_frames.c.label)
            .order_by(labelled_frames.c.label)
        )
        return {row.label: row.frames for row in self._rows(query)}

    def label(self, names: Sequence[str], label: str, who: str) -> int:
        """Give frames a label; an empty one removes it. Return how many frames there were. Raises ConfigError."""
        check_class(label)
        _check_count(label, {site_of(name) for name in names}, self._classes())
        values = {"label": label, "who": who if label else "", "labelled_ms": unix_ms()}
        changed = 0
        with self._engine.begin() as connection:
            for some in batched(names):
                changed += connection.execute(
                    update(labelled_frames).where(labelled_frames.c.name.in_(some)).values(values)
                ).rowcount
        return changed

    def discard(self, names: Sequence[str]) -> None:
        """Delete frames. Unknown names are ignored. Raises StateError if some cannot be deleted; others are."""
        failure: StateError | None = None
        for some in batched(names):
            with self._engine.begin() as connection:
                # Only names from the database become paths, never one that a visitor made up.
                known = list(connection.scalars(select(labelled_frames.c.name).where(labelled_frames.c.name.in_(some))))
            gone, error = self._files.remove_all(known)
            failure = failure or error
            with self._engine.begin() as connection:
                connection.execute(delete(labelled_frames).where(labelled_frames.c.name.in_(gone)))
                connection.execute(delete(frame_features).where(frame_features.c.name.in_(gone)))
            if error is not None and not gone:
                break
        if failure is not None:
            raise failure

    # Folders of labelled pictures

    def export(
        self, folder: Path, stopped: Callable[[], bool] = lambda: False, classes: Sequence[str] | None = None
    ) -> dict[str, int]:
        """Write the labelled frames as `folder`/class/name.jpg, until `stopped`. Return the number of each class.

        Names begin with the camera and order its frames by time. A frame that does not open, or is of none of
        `classes`, is left out.
        """
        query = select(
            labelled_frames.c.name, labelled_frames.c.camera, labelled_frames.c.label, labelled_frames.c.at_ms
        ).where(labelled_frames.c.label != "")
        written: dict[str, int] = {}
        for name, camera, label, at_ms in self._rows(query):
            if stopped():
                break
            jpeg = self.picture(name) if classes is None or label in classes else b""
            if not jpeg:
                continue
            place = folder / label
            place.mkdir(parents=True, exist_ok=True)
            (place / _exported(name, camera, at_ms)).write_bytes(jpeg)
            written[label] = written.get(label, 0) + 1
        return written

    def exported_as(self, files: Iterable[str]) -> dict[str, str]:
        """Return the name of the frame that `export` wrote as each of these files; other files are left out."""
        query = select(labelled_frames.c.name, labelled_frames.c.camera, labelled_frames.c.at_ms)
        names = {_exported(*row): row.name for row in self._rows(query)}
        return {file: names[last] for file in files if (last := file.rpartition("/")[2]) in names}

    def import_from(self, folder: Path, who: str, read: Read) -> ImportResult:
        """Store the pictures of `folder`/class and its sub-folders as labelled frames. `read` opens all but JPEG.

        A picture that is kept, such as one from `export`, is not stored again: its frame gets the label.

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
        room, size = MOST_BYTES - self._labelled_bytes(), 0
        kept = self._kept_by_size()
        found: dict[FrameKey, _ImportedPicture] = {}
        for label, file in files:
            jpeg = _as_jpeg(file, read)
            key, sealed = _imported_key(jpeg), len(jpeg) + SEAL_BYTES
            if key not in found:
                same = {name: old for name, old in kept.get(sealed, ()) if self.picture(name) == jpeg}
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
        classes = self._classes()
        for each in found.values():
            sites = {site_of(name) for name in (*each.kept, *([_IMPORTED] if each.jpeg else ()))}
            _check_count(each.label, sites, classes)
            classes |= {(site, each.label) for site in sites}
        for each in found.values():
            if each.kept:
                self.label(each.kept, each.label, who)
        for key, each in found.items():  # after the labels: `keep` may purge a frame without one
            if each.jpeg:
                self.keep(key, each.jpeg, "imported", each.label, 1.0, each.label, who)
        return ImportResult(dict(Counter(each.label for each in found.values())), skipped)

    def _kept_by_size(self) -> Mapping[int, Sequence[tuple[str, str]]]:
        """Return the names and labels of all frames by the bytes of their sealed pictures."""
        found: dict[int, list[tuple[str, str]]] = {}
        query = select(labelled_frames.c.bytes, labelled_frames.c.name, labelled_frames.c.label)
        for size, name, label in self._rows(query):
            found.setdefault(size, []).append((name, label))
        return found

    def _classes(self) -> set[tuple[str, str]]:
        """Return the classes of all sites, each with its site in front."""
        query = select(labelled_frames.c.camera, labelled_frames.c.label).where(labelled_frames.c.label != "")
        return {(site_of(row.camera), row.label) for row in self._rows(query.distinct())}

    def _labelled_bytes(self) -> int:
        total = select(func.coalesce(func.sum(labelled_frames.c.bytes), 0))
        return int(self._rows(total.where(labelled_frames.c.label != ""))[0][0])

    def _rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        with self._engine.begin() as connection:
            return connection.execute(query).all()

    def purge(self) -> None:
        """Delete the oldest frames beyond the bounds, those of the site with the most bytes and without a label first.

        If no site has more bytes without a label than the `RESERVE`, the site with the most bytes loses labels too.
        Imported pictures go last.
        """
        before_ms = self._age_clock_ms() - int(LONGEST_S * 1000)
        old = and_(labelled_frames.c.label == "", _changed_ms < before_ms)
        with self._engine.begin() as connection:
            gone = list(connection.scalars(select(labelled_frames.c.name).where(old)))
            columns = (labelled_frames.c.camera, labelled_frames.c.label)
            sums = select(*columns, func.sum(labelled_frames.c.bytes)).where(~old).group_by(*columns)
            held: Counter[_Part] = Counter()
            for camera, label, size in connection.execute(sums):
                held[_Part(site_of(camera), bool(label))] += int(size)
            queues: dict[_Part, Iterator[Row[tuple[str, int]]]] = {}
            while held.total() > MOST_BYTES:
                part = _next_part(held)
                if part not in queues:
                    queues[part] = iter(connection.execute(_frames_of(part).where(~old)))
                frame = next(queues[part], None)
                if frame is None:  # another process has deleted some meanwhile
                    del held[part]
                    continue
                gone.append(frame.name)
                held[part] -= frame.bytes
        if gone:
            self.discard(gone)


class _Part(NamedTuple):
    """The frames of one site with a label, or those without."""

    site: str
    is_labelled: bool


def _frames_of(part: _Part) -> Select[tuple[str, int]]:
    """Return the query of the names and bytes of frames, oldest first."""
    is_labelled = labelled_frames.c.label != ""
    return (
        select(labelled_frames.c.name, labelled_frames.c.bytes)
        .where(Sight(frozenset({part.site})).where(labelled_frames.c.camera))
        .where(is_labelled if part.is_labelled else ~is_labelled)
        .order_by(_changed_ms)
    )


def _next_part(held: Mapping[_Part, int]) -> _Part:
    """Return the part whose oldest frame goes next, of parts with these bytes."""
    sites: Counter[str] = Counter()
    for part, size in held.items():
        sites[part.site] += size
    unlabelled = [part for part, size in held.items() if not part.is_labelled and size > RESERVE * MOST_BYTES]
    return max(
        unlabelled or [part for part, size in held.items() if size > 0],
        key=lambda part: (part.site != site_of(_IMPORTED), sites[part.site], not part.is_labelled),
    )


def check_class(label: str) -> None:
    """Raise ConfigError for a class name that a folder or a bundle cannot have."""
    if (
        len(label.encode(errors="surrogatepass")) > LONGEST_CLASS
        or label.startswith(".")
        or label == UNSURE
        or any(not each.isprintable() or each in "/\\" for each in label)
    ):
        raise ConfigError(
            f"class: expected at most {LONGEST_CLASS} bytes of printable UTF-8 without a slash or a leading dot, and "
            f"not `{UNSURE}`, got {label[:80]!r}. Correct it."
        )


def _check_count(label: str, sites: Collection[str], classes: Collection[tuple[str, str]]) -> None:
    """Raise ConfigError if a label is one class too many for these sites, or for all, which have these `classes`."""
    bounds = [({each for at, each in classes if at == site}, MOST_CLASSES, "a site") for site in sites]
    bounds.append(({each for _, each in classes}, MOST_SITES * MOST_CLASSES, "all sites"))
    for known, most, where in bounds:
        if label and label not in known and len(known) >= most:
            raise ConfigError(f"class: expected at most {most} at {where}, got another one. Use one of them.")


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
    return _IMPORTED, int.from_bytes(digest[:7]), int.from_bytes(digest[7:13])


def _exported(name: str, camera: str, at_ms: int) -> str:
    """Return the name of a frame's file in an export."""
    return f"{camera.replace('/', '_')}-{at_ms:014d}-{name.rpartition('/')[2]}.jpg"


def _identity(key: FrameKey) -> Identity:
    camera, boot, seq = key
    return Identity(CameraId(camera), boot, seq)
