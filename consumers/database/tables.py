"""The tables of the recorder's database, for SQLite and PostgreSQL. Times are Unix milliseconds."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    true,
)

metadata = MetaData()

SCHEMA_VERSION: Final = 1
"""Raised when a table changes its meaning; kept in `tallies`."""


def _text(name: str, doc: str | None = None, *, primary_key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=primary_key, nullable=False, doc=doc)


def _integer(name: str, doc: str | None = None, *, primary_key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=primary_key, autoincrement=False, nullable=False, doc=doc)


def _flag(name: str, doc: str | None = None) -> Column[bool]:
    return Column(name, Boolean, nullable=False, doc=doc)


def _number(name: str, doc: str | None = None) -> Column[float]:
    return Column(name, Float, nullable=False, doc=doc)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


frames = Table(
    "frames",
    metadata,
    _text("camera", primary_key=True),
    _integer("boot", primary_key=True),
    _integer("seq", primary_key=True),
    _integer("captured_ms"),
    _integer("processed_ms"),
    _integer("recorded_ms"),
    _integer("class_id"),
    _text("class_name"),
    _number("confidence"),
    _text("model_id"),
    _text("policy"),
    _integer("truth"),
    _integer("width"),
    _integer("height"),
    _integer("channels"),
    _integer("dropped_per_block"),
    _flag("whole"),
    _integer("profile"),
    _integer("frame_bytes"),
    _integer("pixel_bytes"),
    _integer("strip"),
    _number("entropy_bits"),
    _number("threshold_bits"),
    _flag("flagged"),
    Index("frames_by_age", "recorded_ms"),
    PrimaryKeyConstraint("camera", "boot", "seq").ddl_if(dialect="sqlite"),
    postgresql_partition_by="RANGE (recorded_ms)",
)
"""One row for each verdict, by the frame's identity.

PostgreSQL keeps them in partitions by the time of recording, see `consumers.database.frames_by_time`. SQLite keeps
them in the order of their arrival and the identities in an index: laid out by identity instead (WITHOUT ROWID), the
frames of many cameras cost it twice the time, since every row changes another page.
"""

boots = Table(
    "boots",
    metadata,
    _text("camera", primary_key=True),
    _integer("boot", primary_key=True),
    _integer("frames"),
    _integer("duplicates"),
    _integer("last_ms"),
    sqlite_with_rowid=False,
)
"""What was counted for each boot of a camera, purged frames included."""

archived = Table(
    "archived",
    metadata,
    _text("kind", primary_key=True),
    _text("camera", primary_key=True),
    _integer("boot", primary_key=True),
    _integer("first", primary_key=True),
    _integer("last"),
    sqlite_with_rowid=False,
)
"""The identities of purged rows as ranges, both ends included; `kind` is "frame" or "dead_letter".

Those of frames on PostgreSQL are of all that were ever recorded, and decide there which is new.
"""

spans = Table(
    "spans",
    metadata,
    _integer("from_ms", primary_key=True),
    _integer("to_ms"),
    _integer("frames"),
    _integer("bytes"),
)
"""The partitions of `frames` on PostgreSQL: from when to before when, how many frames, and what they count for."""

ledgers = Table(
    "ledgers",
    metadata,
    _text("camera", primary_key=True),
    _integer("boot", primary_key=True),
    _integer("revision"),
    _integer("started_ms"),
    _integer("first"),
    _integer("next"),
    _flag("closed"),
    _integer("frames_skipped"),
    _integer("frames_resent"),
    _integer("bytes_resent"),
    _integer("written_ms"),
    _integer("confirmed_to"),
    _bytes("message"),
    _integer("taken_ms"),
    sqlite_with_rowid=False,
)
"""The highest revision of each boot's ledger.

`message` is what the camera signed, with its shed ranges: the audit believes that only. `taken_ms` is when it was
recorded. Each camera has a bounded number of them; older ones are in `summed_ledgers`.
"""
Index("ledgers_by_age", ledgers.c.taken_ms)

summed_ledgers = Table(
    "summed_ledgers",
    metadata,
    _text("camera", primary_key=True),
    _integer("ledgers"),
    _integer("shed"),
    _integer("pending"),
    _integer("lost"),
    _integer("frames_skipped"),
    _integer("frames_resent"),
    _integer("bytes_resent"),
    _integer("started_ms"),
    sqlite_with_rowid=False,
)
"""Sums over the ledgers that were removed because a camera had too many: `consumers.conservation.ledger_table`.

They count what no other table knows: frames that were shed, and those that had no fate when their ledger was removed.
`started_ms` is when the first of these boots began.
"""

dead_letters = Table(
    "dead_letters",
    metadata,
    _text("topic", "Where the letter lies in Kafka.", primary_key=True),
    _integer("partition", "The same.", primary_key=True),
    _integer("offset", "The same.", primary_key=True),
    _text("stage", "Where it was refused."),
    _text("reason", "The name of the error."),
    _text("error", "What was expected, and what came."),
    _text("camera", "As the payload claims."),
    _flag("verified", "Whether its tag was right: then boot and seq are those of a published frame."),
    _integer("boot", "16 hexadecimal digits: one start of the camera."),
    _integer("seq", "Sequence number in that boot."),
    _text("origin", "The topic that it came from, of MQTT or Kafka."),
    _bytes("payload"),
    _integer("payload_bytes", "Length of the whole payload."),
    _integer("stored_bytes"),
    _integer("at_ms", "When it was refused."),
    _integer("recorded_ms", "When it was recorded."),
)
"""What was refused, by the place of the Kafka record that says so."""
Index("dead_letters_by_age", dead_letters.c.recorded_ms)
Index("dead_letters_by_kind", dead_letters.c.verified, dead_letters.c.recorded_ms)
Index(
    "dead_letters_verified",
    dead_letters.c.camera,
    dead_letters.c.boot,
    sqlite_where=dead_letters.c.verified == true(),
    postgresql_where=dead_letters.c.verified == true(),
)

evidence = Table(
    "evidence",
    metadata,
    _text("camera", primary_key=True),
    _integer("boot", primary_key=True),
    _integer("partition"),
    _integer("following"),
    _bytes("waiting"),
    _bytes("whole"),
    _bytes("dropped"),
    _integer("updated_ms"),
    Index("evidence_by_age", "updated_ms"),
)
Index(
    "evidence_waiting",
    evidence.c.camera,
    evidence.c.boot,
    evidence.c.following,
    sqlite_where=evidence.c.waiting != b"",
    postgresql_where=evidence.c.waiting != b"",
)
"""What is known of one boot of a camera, see `consumers.evidence.chain.Chain`; it changes with the offsets.

`partition` is the one of its last verdicts: whoever holds that looks after it.
"""

probing = Table("probing", metadata, _text("camera", primary_key=True), _number("own_share"), _number("told_share"))
"""Cameras that were told to send more probes, and the share that is their own setting."""

alerts = Table(
    "alerts",
    metadata,
    _text("alert_id", "The same for the same evidence, however often it is raised.", primary_key=True),
    _text("camera", "As `site/camera`."),
    _integer("boot", "16 hexadecimal digits: one start of the camera."),
    _text("kind", "What it is about."),
    _integer("raised_ms", "When it was raised."),
    _integer("first", "Sequence number of the first frame."),
    _integer("last", "Sequence number of the last frame."),
    _integer("checked", "Frames that STRIP has checked for it."),
    _integer("flagged", "Those whose entropy lay below the threshold."),
    _number("mean_entropy_bits", "Over the checked frames."),
    _number("threshold_bits", "The entropy below which a frame is suspect."),
    _number("baseline_bits", "Median entropy of the camera before; 0 when it had no history."),
    _number("evidence_octaves", "The sum of how deep the frames lay below their baseline."),
    _bytes("message"),
    _flag("published", "Whether Kafka is known to hold it."),
    Index("alerts_by_age", "raised_ms"),
)
"""Alerts, and whether Kafka is known to hold them."""

cameras = Table(
    "cameras",
    metadata,
    _text("camera", primary_key=True),
    _integer("state"),
    _integer("state_ms"),
    _text("detail"),
    _bytes("status"),
    _bytes("meta"),
    _integer("seen_ms"),
    sqlite_with_rowid=False,
)
Index("cameras_by_age", cameras.c.seen_ms)
"""The last status and meta message of each camera, and since when its state holds by the recorder's clock."""

camera_states = Table(
    "camera_states",
    metadata,
    _text("camera", primary_key=True),
    _text("state", "One of `consumers.cameras.state.State`."),
    _text("reason", "Why, in plain words; empty for a camera that is online."),
    _integer("since_ms", "When the state began."),
    _number("patience_s", "Without a frame for this long the camera is silent, whatever stands here."),
    _integer("saved_ms"),
    Index("camera_states_by_age", "saved_ms"),
    sqlite_with_rowid=False,
)
"""The state of each camera, written by the recorder when it changes; see `consumers.cameras.saved`."""

shown = Table(
    "shown",
    metadata,
    _text("camera", primary_key=True),
    _integer("heard_ms"),
    _text("state"),
    Index("shown_by_age", "heard_ms"),
    sqlite_with_rowid=False,
)
"""The cameras heard last as the pages show them, see `consumers.cameras.snapshots`."""

live_audit = Table("live_audit", metadata, _integer("only", primary_key=True), _text("document"))
"""The last result of the live audit, one row; see `consumers.conservation.result`."""

history = Table(
    "history",
    metadata,
    _integer("minute_ms", "When the minute began.", primary_key=True),
    _integer("frames", "Frames recorded in it."),
    _integer("frame_bytes", "Their bytes as messages."),
    _integer("raw_bytes", "Their bytes as captured."),
    _integer("late_ms", "From capture to record, summed over the frames."),
    _integer("slowest_ms", "The longest of these times."),
    _integer("judged", "Frames whose truth is known and that nobody attacked."),
    _integer("judged_correct", "Those of them whose class was right."),
    _integer("attacked", "Frames under an attack whose truth is known."),
    _integer("attacked_correct", "Those of them whose class was right."),
    _integer("checked", "Frames that STRIP has checked."),
    _integer("flagged", "Those whose entropy lay below the threshold."),
    _integer("strip_shed", "Frames that were to be checked when its queue was full."),
)
"""Sums over the frames recorded in each minute, of all cameras; see `consumers.database.history`."""

quarantine = Table(
    "quarantine",
    metadata,
    _text("name", primary_key=True),
    _integer("bytes"),
    _integer("at_ms"),
    Index("quarantine_by_age", "at_ms", "bytes"),
)
"""The files in the quarantine, without their ending."""

offsets = Table(
    "offsets",
    metadata,
    _text("topic", primary_key=True),
    _integer("partition", primary_key=True),
    _integer("next"),
    _integer("epoch"),
    sqlite_with_rowid=False,
)
"""Where to go on in Kafka: written with the effect of all that came before.

Each recorder that takes a partition up counts `epoch` on: who had it before writes nothing of it any more.
"""

tallies = Table("tallies", metadata, _text("name", primary_key=True), _integer("value"), sqlite_with_rowid=False)
"""Counts that outlive the rows they were taken from."""
