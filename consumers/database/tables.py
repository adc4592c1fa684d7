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
    String,
    Table,
    Text,
    true,
)

metadata = MetaData()

SCHEMA_VERSION: Final = 11
"""Schema version, increased by one with each change of a table, next to a revision in `consumers.database.migrations`.
"""


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
    _text("class_group"),
    _text("best"),
    _integer("certified_patch"),
    _flag("certified"),
    _text("windows"),
    _number("p_value"),
    _number("p_value_threshold"),
    _integer("statistic"),
    _integer("scene"),
    Index("frames_by_age", "recorded_ms"),
    PrimaryKeyConstraint("camera", "boot", "seq").ddl_if(dialect="sqlite"),
    postgresql_partition_by="RANGE (recorded_ms)",
)
"""One row for each verdict, by the frame's identity.

PostgreSQL partitions the rows by recording time, see `consumers.database.frames_by_time`. SQLite keeps them in arrival
order and the identities in an index. Clustering by identity (WITHOUT ROWID) would double the write cost for many
cameras, because every row changes another page.
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
"""Counts for each boot of a camera, purged frames included."""

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
"""The identities of purged rows as ranges, both ends included; `kind` is "frame", "dead_letter" or "ledger".

On PostgreSQL, the ranges of frames cover all frames ever recorded and decide which are new.
"""

spans = Table(
    "spans",
    metadata,
    _integer("from_ms", primary_key=True),
    _integer("to_ms"),
    _integer("frames"),
    _integer("bytes"),
)
"""The partitions of `frames` on PostgreSQL: start, end (excluded), number of frames and their bytes."""

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

`message` is the camera's signed message with its shed ranges. The audit trusts only that column. `taken_ms` is the
recording time. Each camera has a bounded number of ledgers; older ones are in `summed_ledgers`.
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
"""Sums over the ledgers that were removed beyond a camera's limit: `consumers.conservation.ledger_table`.

They hold only counts that no other table has: shed frames, and frames without a fate at the removal. `started_ms` is
the start of the first of these boots.
"""

dead_letters = Table(
    "dead_letters",
    metadata,
    _text("topic", "Kafka topic of the letter; `@` and a time follow if its log was lost.", primary_key=True),
    _integer("partition", "The same.", primary_key=True),
    _integer("offset", "The same.", primary_key=True),
    _text("stage", "Stage that rejected the payload."),
    _text("reason", "The name of the error."),
    _text("error", "Error message: the expected and the received value."),
    _text("camera", "Camera that the payload claims."),
    _flag("verified", "Whether its tag was valid: then boot and seq identify a published frame."),
    _integer("boot", "16 hexadecimal digits: one start of the camera."),
    _integer("seq", "Sequence number in that boot."),
    _text("origin", "MQTT or Kafka topic of the payload."),
    _bytes("payload"),
    _integer("payload_bytes", "Length of the whole payload."),
    _integer("stored_bytes"),
    _integer("at_ms", "Time of the rejection."),
    _integer("recorded_ms", "Time of the recording."),
)
"""Rejected payloads, by the position of their Kafka record."""
Index("dead_letters_by_age", dead_letters.c.recorded_ms)
Index("dead_letters_by_kind", dead_letters.c.verified, dead_letters.c.recorded_ms)
DEAD_LETTERS_BY_CAMERA: Final = "dead_letters_verified"
Index(
    DEAD_LETTERS_BY_CAMERA,
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
    _bytes("track"),
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
"""The evidence of one boot of a camera, see `consumers.evidence.chain.Chain`. It changes with the offsets.

`partition` is that of its last verdicts. The recorder that holds the partition handles the evidence.
"""

probing = Table(
    "probing", metadata, _text("camera", primary_key=True), _number("own_share"), _number("commanded_share")
)
"""Cameras that were commanded to send more probes, and their own setting of the probe share."""

alerts = Table(
    "alerts",
    metadata,
    _text("alert_id", "Deterministic id: the same evidence always gives the same id.", primary_key=True),
    _text("camera", "As `site/camera`."),
    _integer("boot", "16 hexadecimal digits: one start of the camera."),
    _text("kind", "Kind of the evidence."),
    _integer("raised_ms", "Time at which it was raised."),
    _integer("first", "Sequence number of the first frame."),
    _integer("last", "Sequence number of the last frame."),
    _integer("checked", "Frames that were checked for it."),
    _integer("flagged", "Checked frames whose entropy or p-value is below the threshold."),
    _number("mean_entropy_bits", "Mean entropy over the checked frames; 0 unless the kind is `strip`."),
    _number("threshold_bits", "Entropy below which a frame is suspect."),
    _number("baseline_bits", "Median entropy of the camera before the alert; 0 without a history."),
    _number("evidence_octaves", "Sum of the frames' distances below their baseline."),
    _number("mean_p_value", "Geometric mean of the checked frames' p-values; 0 unless the kind is `combined`."),
    _number("p_value_threshold", "P-value below which a frame is suspect."),
    _number("baseline_p_value", "Median p-value of the camera before the alert; 0 without a history."),
    _integer("statistic", "A `Statistic`: the one that finds most of the frames most unusual; 0 for none."),
    _text("window", "Window of the frame on which the label depends; empty if no frame was examined for stickers."),
    _bytes("message"),
    _flag("published", "Whether Kafka has confirmed it."),
    _text("wanted", "Kind `sighting`: the class or group that the camera sees; empty for other kinds."),
    _number("confidence", "Kind `sighting`: mean confidence of the agreeing frames, 0 to 1; 0 for other kinds."),
    _integer("ended_ms", "Kind `sighting`: time of the last agreeing frame, once it has ended; 0 until then."),
    _integer("partition", "Kind `sighting`: partition of the camera's verdicts; 0 for other kinds."),
    Index("alerts_by_age", "raised_ms"),
    Index("alerts_by_camera", "camera", "wanted", "raised_ms"),
)
"""Alerts, and whether Kafka has confirmed them."""
Index(
    "alerts_of_sightings",
    alerts.c.raised_ms,
    sqlite_where=alerts.c.wanted != "",
    postgresql_where=alerts.c.wanted != "",
)
Index(
    "alerts_by_end",
    alerts.c.ended_ms,
    sqlite_where=alerts.c.wanted != "",
    postgresql_where=alerts.c.wanted != "",
)

sighting_rules = Table(
    "sighting_rules",
    metadata,
    _text("cameras", "Group of cameras, such as `north/gate-*`.", primary_key=True),
    _text("wanted", "Class or group.", primary_key=True),
    _integer("frames"),
    _number("confidence"),
    _number("absent_s"),
    _number("cooldown_s"),
    _text("who"),
    _integer("at_ms", "Time of the decision."),
)
"""The classes and groups of which users want to be notified; see `consumers.sightings.rules_table`."""

mutes = Table(
    "mutes",
    metadata,
    _text("subject", "A camera as `site/camera`, or the id of an alert.", primary_key=True),
    _integer("until_ms", "End of the mute."),
    _text("reason"),
    _text("who"),
    _integer("at_ms", "Time of the decision."),
)
"""Cameras and alerts that a person has muted; see `consumers.database.mutes`."""

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
"""The last status and meta message of each camera, and the start of its state by the recorder's clock."""

camera_states = Table(
    "camera_states",
    metadata,
    _text("camera", primary_key=True),
    _text("state", "One of `consumers.cameras.state.State`."),
    _text("reason", "Reason in plain words; empty for an online camera."),
    _integer("since_ms", "Start of the state."),
    _number("patience_s", "Seconds without a frame after which the camera is silent, whatever this row states."),
    _integer("saved_ms"),
    Index("camera_states_by_age", "saved_ms"),
    sqlite_with_rowid=False,
)
"""The state of each camera, written by the recorder when it changes; see `consumers.cameras.saved`."""

camera_snapshots = Table(
    "camera_snapshots",
    metadata,
    _text("camera", primary_key=True),
    _integer("heard_ms"),
    _text("state"),
    Index("camera_snapshots_by_age", "heard_ms"),
    sqlite_with_rowid=False,
)
"""The last frames of each camera for its snapshot, see `consumers.cameras.snapshots`."""

live_audit = Table("live_audit", metadata, _integer("only", primary_key=True), _text("document"))
"""The last result of the live audit, one row; see `consumers.conservation.result`."""

comparisons = Table(
    "comparisons",
    metadata,
    _text("camera", primary_key=True),
    _integer("boot", primary_key=True),
    _integer("seq", primary_key=True),
    _integer("begun_ms", primary_key=True),
    _text("digest"),
    _text("slot"),
    _integer("captured_ms"),
    _integer("saved_ms"),
    _text("live_class"),
    _number("live_confidence"),
    _text("candidate_class"),
    _number("candidate_confidence"),
    _flag("differs"),
    _text("error"),
    _bytes("picture"),
    Index("comparisons_by_age", "saved_ms"),
)
"""The answers of the live model and of a candidate to the same frame, see `consumers.database.comparisons`. Pictures
stay sealed."""

rollouts = Table(
    "rollouts",
    metadata,
    _integer("begun_ms", primary_key=True),
    _text("digest", primary_key=True),
    _text("model_id"),
    _text("slot"),
    _text("outcome"),
    _integer("at_ms"),
    _text("report"),
)
"""Each rollout with the newest assessment, see `consumers.database.comparisons`."""

history = Table(
    "history",
    metadata,
    _integer("minute_ms", "Start of the minute.", primary_key=True),
    _integer("frames", "Frames recorded in the minute."),
    _integer("frame_bytes", "Bytes of these frames as messages."),
    _integer("raw_bytes", "Bytes of these frames as captured."),
    _integer("late_ms", "Time from capture to record, summed over the frames."),
    _integer("slowest_ms", "Longest time from capture to record."),
    _integer("judged", "Unattacked frames with a known class."),
    _integer("judged_correct", "Frames of these with the correct verdict."),
    _integer("attacked", "Attacked frames with a known class."),
    _integer("attacked_correct", "Frames of these with the correct verdict."),
    _integer("checked", "Frames that STRIP has checked."),
    _integer("flagged", "Checked frames whose entropy or p-value is below the threshold."),
    _integer("strip_shed", "Probes that STRIP skipped because its queue was full."),
)
"""Sums over the frames of all cameras recorded in each minute; see `consumers.database.history`."""

quarantine = Table(
    "quarantine",
    metadata,
    _text("name", primary_key=True),
    _integer("bytes"),
    _integer("at_ms"),
    Index("quarantine_by_age", "at_ms", "bytes"),
)
"""The files in the quarantine, without their extension."""

offsets = Table(
    "offsets",
    metadata,
    _text("topic", primary_key=True),
    _integer("partition", primary_key=True),
    _integer("next"),
    _integer("epoch"),
    sqlite_with_rowid=False,
)
"""The next offset in Kafka, written with the effect of all earlier records.

A recorder that claims a partition increases `epoch`. The previous owner can then no longer write for it.
"""

tallies = Table("tallies", metadata, _text("name", primary_key=True), _integer("value"), sqlite_with_rowid=False)
"""Counts that outlive the rows that they were counted from."""

versions = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))
"""The version of these tables, one row in Alembic's form."""
