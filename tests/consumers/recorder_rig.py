"""Messages, Kafka records and a store without Kafka for the recorder's tests."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import func, select

from benchmarks.harness.recorder_store import MadeRecord, RecorderStore, open_store, settings_in
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.database.migrations import VERSION_TALLY
from consumers.database.tables import SCHEMA_VERSION, metadata, tallies, versions
from consumers.settings import Bounds, RecorderSettings
from schemas.evidence.rule import EvidenceRule
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.messages.frame import sign_message
from schemas.messages.server_messages import seal_pictures, sign_statement
from schemas.pointillist_pb2 import CHECKED, NOT_PROBED, DeadLetter, Ledger, Meta, Range, Refusal, Status, Verdict

SECRET = b"a fleet secret for the recorder's tests"
KEYS = KeyRing(SECRET)
"""The keys of the whole fleet."""
RECORDER_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.RECORDER))
BOOT = 0x1234_5678_9ABC_DEF0 >> 1
CAMERA = "lab/door"


def picture(kind: str, side: int = 8) -> bytes:
    """Return a small picture as PNG or JPEG.

    A red and a white half, so that it counts neither as black nor as without contrast.
    """
    data = io.BytesIO()
    image = Image.new("RGB", (side, side), (200, 30, 60))
    image.paste((255, 255, 255), (0, 0, side // 2, side))
    image.save(data, kind)
    return data.getvalue()


PNG = picture("PNG")


def verdict(seq: int, *, boot: int = BOOT, flagged: bool | None = None, **fields: object) -> Verdict:
    """Return the verdict on one frame; a checked probe if `flagged` is given."""
    now_ms = time.time_ns() // 10**6
    made = Verdict(
        boot_id=boot,
        seq=seq,
        captured_ms=now_ms - 20,
        processed_ms=now_ms - 5,
        class_id=3,
        class_name="stop",
        confidence=0.9,
        model_id="scene-1",
        policy="resize",
        truth=1 + 2 * 3,
        width=32,
        height=24,
        channels=3,
        dropped_per_block=16,
        frame_bytes=1768,
        pixel_bytes=1728,
        strip=NOT_PROBED if flagged is None else CHECKED,
        entropy_bits=0.0 if flagged is None else (2**-10 if flagged else 1.5),
        threshold_bits=0.0 if flagged is None else 0.5,
        flagged=bool(flagged),
        evidence=PNG if flagged else b"",
    )
    made.MergeFrom(Verdict(**fields))  # type: ignore[arg-type]  # the caller names fields of the message
    return made


def ledger(revision: int, following: int, shed: Iterable[tuple[int, int]] = (), *, boot: int = BOOT) -> Ledger:
    """Return the ledger of a boot that has published the numbers 0 to `following` - 1."""
    ranges = [Range(first=first, last=last) for first, last in shed]
    return Ledger(boot_id=boot, revision=revision, next=following, shed=ranges)


def signed(message: Ledger | Status | Meta | Refusal, camera: str = CAMERA) -> bytes:
    """Return a message as its camera sends it: signed."""
    return sign_message(KEYS.current(CameraId(camera)), message)


def sign_as_processor(message: Verdict | DeadLetter, camera: str = CAMERA) -> bytes:
    """Return a message as a processor sends it: signed, with sealed pictures."""
    if isinstance(message, DeadLetter):
        return sign_statement(KEYS, message.camera_id, message)
    sealed = Verdict()
    sealed.CopyFrom(message)
    seal_pictures(sealed, CameraId(camera), KEYS)
    return sign_statement(KEYS, camera, sealed)


def dead_letter(seq: int, *, verified: bool, boot: int = BOOT, **fields: object) -> DeadLetter:
    """Return a dead letter of the stage `classify`."""
    made = DeadLetter(
        origin_topic="pointillist.frames.v1",
        stage="classify",
        reason="bad_pixels",
        error="expected 8 pixels",
        camera_id=CAMERA,
        verified=verified,
        boot_id=boot,
        seq=seq,
        payload=b"payload",
        payload_bytes=7,
        at_ms=time.time_ns() // 10**6,
    )
    made.MergeFrom(DeadLetter(**fields))  # type: ignore[arg-type]  # the caller names fields of the message
    return made


class Rig(RecorderStore):
    """A store on its own database, fed with records without a Kafka."""

    def __init__(
        self,
        folder: Path,
        url: str,
        rule: EvidenceRule | None = None,
        bounds: Bounds | None = None,
        group: str | None = None,
    ) -> None:
        self.folder = folder
        self.url = url
        self.bounds = bounds or Bounds()
        settings = RecorderSettings(
            kafka="127.0.0.1:1",
            database=url,
            quarantine=str(folder / "quarantine"),
            bounds=self.bounds,
            evidence=rule or EvidenceRule(),
        )
        # Tests share groups on SQLite too, where the stores write one after the other.
        super().__init__(settings.model_copy(update={"group": group}), RECORDER_KEYS)

    def empty(self) -> None:
        """Restore the tables of a new database, for a PostgreSQL database that other tests use too."""
        with self.engine.begin() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'frames'::regclass")
            dropped = [f"DROP TABLE {partition}" for (partition,) in cursor.fetchall()]
            emptied = [f"DELETE FROM {table}" for table in metadata.tables]
            version = [
                f"INSERT INTO {versions.name} VALUES ('{SCHEMA_VERSION}')",
                f"INSERT INTO {tallies.name} VALUES ('{VERSION_TALLY}', {SCHEMA_VERSION})",
            ]
            cursor.execute("; ".join([*dropped, *emptied, *version]))

    def record(self, topic: str, key: bytes, value: bytes, kind: str = "", offset: int | None = None) -> MadeRecord:
        """Return the next record of a topic with one partition."""
        found = self.offsets.get((topic, 0), 0) if offset is None else offset
        return MadeRecord(topic, 0, found, key, value, [("ce_type", f"pointillist.v1.{kind}".encode())])

    def records_of(self, topic: str, key: bytes, values: Iterable[bytes], kind: str) -> list[MadeRecord]:
        """Return messages as the next records of a topic."""
        start = self.offsets.get((topic, 0), 0)
        return [self.record(topic, key, value, kind, start + n) for n, value in enumerate(values)]

    def verdict_records(self, verdicts: Iterable[Verdict], camera: str = CAMERA) -> list[MadeRecord]:
        """Return verdicts as the next records of their topic."""
        values = (sign_as_processor(made, camera) for made in verdicts)
        return self.records_of(self.settings.verdicts_topic, camera.encode(), values, "Verdict")

    def verdicts(self, verdicts: Iterable[Verdict], camera: str = CAMERA) -> TransactionEffect:
        """Record verdicts in one transaction."""
        return self.feed(self.verdict_records(verdicts, camera))

    def ledgers(self, ledgers: Iterable[Ledger], camera: str = CAMERA) -> TransactionEffect:
        """Record ledgers in one transaction."""
        values = (signed(made, camera) for made in ledgers)
        return self.feed(self.records_of(self.settings.events_topic, camera.encode(), values, "Ledger"))

    def ledger(self, message: Ledger, camera: str = CAMERA) -> TransactionEffect:
        """Record one ledger."""
        return self.ledgers([message], camera)

    def letters(self, letters: Iterable[DeadLetter]) -> TransactionEffect:
        """Record dead letters in one transaction."""
        values = map(sign_as_processor, letters)
        return self.feed(self.records_of(self.settings.dead_letters_topic, b"", values, "DeadLetter"))

    def letter(self, message: DeadLetter) -> TransactionEffect:
        """Record one dead letter."""
        return self.letters([message])

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        with self.engine.begin() as connection:
            return connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0


def new_database(file: Path) -> str:
    """Write a recorder's SQLite database without records. Return its URL."""
    file.write_bytes(_new_database())
    return f"sqlite:///{file}"


@cache
def _new_database() -> bytes:
    # A copy takes less time than creating the tables.
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        open_store(settings, RECORDER_KEYS).engine.dispose()
        return Path(settings.database.removeprefix("sqlite:///")).read_bytes()


MakeRig = Callable[..., Rig]

ON_POSTGRESQL = pytest.mark.parametrize(
    "make_rig", [pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))], indirect=True
)
"""The mark of tests for behaviour that only PostgreSQL has."""
