"""The conversion of Kafka records to rows: the input of one transaction of the recorder.

An unreadable record becomes a dead letter of the stage "recorder", with the position of the record.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

import structlog
from google.protobuf.message import DecodeError

from consumers.records.rows import MOST_WINDOWS, FrameRow, LedgerRow, LetterRow, Window, windows_text
from consumers.settings import RecordsSettings
from schemas.errors import MalformedError, TooManyBootsError, UserError, WireError, typed_text
from schemas.evidence.track import NO_SCENE
from schemas.identity import BOOT_ID_LIMIT, SEQ_LIMIT, CameraId, camera_id_on_wire
from schemas.keys.keys import KeyRing
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES, MAX_ANNOUNCEMENT_BYTES, MAX_CAMERAS
from schemas.messages.camera_status import check_announcement
from schemas.messages.dead_letters import dead_letter
from schemas.messages.frame import TIME_LIMIT, open_message
from schemas.messages.ledger import open_ledger
from schemas.messages.server_messages import check_statement, open_pictures, open_statement
from schemas.pointillist_pb2 import (
    NO_STATISTIC,
    Candidate,
    DeadLetter,
    Ledger,
    Meta,
    Refusal,
    Statistic,
    Status,
    Verdict,
)
from schemas.pointillist_pb2 import Window as SentWindow
from schemas.printable import printable
from schemas.runtime.boot_rate import BOOTS_PER_S, BootRate

log = structlog.get_logger()

STAGE: Final = "recorder"
_COUNT_LIMIT: Final = 2**63
_TEXT: Final = 500
BEST: Final = 3
"""Number of a verdict's best classes that are recorded."""
_LETTER_OVERHEAD: Final = 200
_STATISTICS: Final = frozenset(Statistic.values())
_FOR_BRIDGES: Final = (b"pointillist.v1.KeyRequest", b"pointillist.v1.ProbeRequest")

Partition = tuple[str, int]
"""Topic and partition."""
Span = tuple[int, int]
"""The first offset in the log of a partition, and the offset after its last."""
Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""
BootKey = tuple[str, int]
"""Camera and boot."""
FrameKey = tuple[str, int, int]
"""Camera, boot and sequence number."""


class Record(Protocol):
    """The fields of a Kafka record that the recorder reads."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    """Unix time in milliseconds at which Kafka appended it."""
    headers: Sequence[tuple[str, bytes | None]]
    """Kafka allows a header without a value."""


@dataclass(slots=True)
class Batch:
    """The content of a run of Kafka records."""

    recorded_ms: int
    offsets: dict[Partition, tuple[int, int]] = field(default_factory=dict)
    """For each topic and partition, the offset of the first record and the offset after the last."""
    verdicts: dict[FrameKey, Verdict] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    """The partition of each camera's last verdict."""
    repeated: Counter[BootKey] = field(default_factory=Counter)
    """Number of verdicts whose identity came earlier in this batch."""
    ledgers: dict[BootKey, LedgerRow] = field(default_factory=dict)
    letters: dict[Place, LetterRow] = field(default_factory=dict)
    statuses: list[tuple[str, Status]] = field(default_factory=list)
    """Status messages, signed by their camera."""
    metas: list[tuple[str, Meta]] = field(default_factory=list)
    """Meta messages, signed by their camera."""
    refusals: list[tuple[str, Refusal]] = field(default_factory=list)
    """Rejections of cameras' frames, signed by processors."""

    def delay(self, delay_ms: int) -> None:
        """Add milliseconds to every time of recording."""
        self.recorded_ms += delay_ms
        for boot, ledger in self.ledgers.items():
            self.ledgers[boot] = ledger._replace(taken_ms=ledger.taken_ms + delay_ms)
        for place, letter in self.letters.items():
            self.letters[place] = letter._replace(recorded_ms=letter.recorded_ms + delay_ms)

    def __len__(self) -> int:
        return sum(until - first for first, until in self.offsets.values())


def read(
    records: Iterable[Record],
    settings: RecordsSettings,
    keys: KeyRing,
    recorded_ms: int,
    boots: BootRate | None = None,
) -> Batch:
    """Parse the records of one poll; the records of one partition are in the order of their offsets.

    Everything is verified under `keys`, except dead letters that claim no identity: others than our roles may write to
    Kafka. A verdict or ledger of a boot that `boots` does not accept becomes a dead letter; None accepts all. A record
    that raises an unexpected error becomes one too.
    """
    batch = Batch(recorded_ms)
    for record in records:
        partition = (record.topic, record.partition)
        first, _ = batch.offsets.get(partition, (record.offset, 0))
        batch.offsets[partition] = (first, record.offset + 1)
        try:
            if record.topic == settings.verdicts_topic:
                _add_verdict(batch, record, keys, boots)
            elif record.topic == settings.events_topic:
                _add_event(batch, record, keys, boots)
            else:
                _add_dead_letter(batch, record, keys)
        except WireError as error:
            refuse(batch, record, error)
        except (UserError, MemoryError):  # not the record's fault
            raise
        except Exception as error:
            # Without a letter, the record would be read again without end, and block all later ones.
            log.exception("record_rejected_by_defect", topic=record.topic, offset=record.offset)
            refuse(batch, record, MalformedError(typed_text(error)))
    return batch


def refusal(record: Record, recorded_ms: int, error: WireError, settings: RecordsSettings, keys: KeyRing) -> Batch:
    """Return a batch with `record` as a dead letter: the database accepted no other row for it.

    The letter of a valid verdict names its frame, which would count as lost otherwise.
    """
    batch = Batch(recorded_ms, offsets={(record.topic, record.partition): (record.offset, record.offset + 1)})
    identity = None
    if record.topic == settings.verdicts_topic:
        with suppress(WireError):
            identity = _identity(open_statement(Verdict, _camera(record.key), record.value or b"", keys))
    refuse(batch, record, error, identity)
    return batch


def refuse(batch: Batch, record: Record, error: WireError, identity: tuple[int, int] | None = None) -> None:
    """Add the record as a dead letter of the recorder; `identity` is a frame's verified boot and number."""
    place = record.topic, record.partition, record.offset
    camera = (record.key or b"").decode(errors="replace")
    letter = dead_letter(STAGE, error.reason, str(error), place, camera, record.value or b"", batch.recorded_ms)
    if identity is not None:
        letter.verified = True
        letter.boot_id, letter.seq = identity
    batch.letters[place] = _letter_row(record, letter, batch.recorded_ms)


@lru_cache(MAX_CAMERAS)
def _camera(key: bytes | None) -> CameraId:
    try:
        return camera_id_on_wire((key or b"").decode())
    except UnicodeDecodeError:
        raise MalformedError("record key: expected a camera id, got bytes that are no text") from None


def clean(text: str) -> str:
    """Return bounded text that any database accepts, and that any terminal may show: PostgreSQL rejects NUL."""
    return printable(text[:_TEXT])


_name = lru_cache(8192)(clean)
"""For the names that occur in every verdict. The argument is cut before the call, so that the cache stays small."""


def check_identity(boot_id: int, seq: int) -> None:
    """Raise MalformedError for a boot id or a sequence number out of range."""
    if not (0 < boot_id < BOOT_ID_LIMIT and seq < SEQ_LIMIT):
        raise MalformedError(f"identity: expected 0 < boot_id < 2**63 and seq < 2**53, got {boot_id} and {seq}")


def _identity(verdict: Verdict) -> tuple[int, int]:
    check_identity(verdict.boot_id, verdict.seq)
    return verdict.boot_id, verdict.seq


def _check_boot(record: Record, camera: str, boot: int, boots: BootRate | None) -> None:
    # Use the writing time: a backlog in Kafka is read faster than it was written.
    if boots is not None and not boots.accepts(camera, boot, record.timestamp / 1000):
        raise TooManyBootsError(
            f"boot {boot:016x} of {camera}: expected at most about {BOOTS_PER_S:g} new boot per second, got more"
        )


def _add_verdict(batch: Batch, record: Record, keys: KeyRing, boots: BootRate | None) -> None:
    camera = _camera(record.key)
    verdict = open_statement(Verdict, camera, record.value or b"", keys)
    boot, seq = _identity(verdict)
    try:
        _check_boot(record, camera, boot, boots)
    except TooManyBootsError as error:
        refuse(batch, record, error, (boot, seq))
        return
    if (camera, boot, seq) in batch.verdicts:
        batch.repeated[camera, boot] += 1
    else:
        batch.verdicts[camera, boot, seq] = verdict
        try:
            open_pictures(verdict, camera, keys)
        except MalformedError as error:  # the verdict stays valid without them
            log.error("pictures_not_opened", error=str(error))
            verdict.preview = verdict.evidence = verdict.as_sent = b""
    batch.partitions[camera] = record.partition


def frame_row(key: FrameKey, verdict: Verdict, recorded_ms: int) -> FrameRow:
    """Return the verdict as a row. Not-a-number becomes zero."""
    confidence, entropy, threshold = verdict.confidence, verdict.entropy_bits, verdict.threshold_bits
    if not math.isfinite(confidence + entropy + threshold):
        confidence, entropy, threshold = finite(confidence), finite(entropy), finite(threshold)
    # Not by FrameRow's constructor, a slow function of many arguments.
    values = (
        *key,
        min(verdict.captured_ms, TIME_LIMIT),
        min(verdict.processed_ms, TIME_LIMIT),
        recorded_ms,
        verdict.class_id,
        _name(verdict.class_name[:_TEXT]),
        confidence,
        _name(verdict.model_id[:_TEXT]),
        _name(verdict.policy[:_TEXT]),
        verdict.truth,
        verdict.width,
        verdict.height,
        verdict.channels,
        verdict.dropped_per_block,
        verdict.whole,
        verdict.profile,
        verdict.frame_bytes,
        verdict.pixel_bytes,
        verdict.strip,
        entropy,
        threshold,
        verdict.flagged,
        _name(verdict.class_group[:_TEXT]),
        _best(verdict.best),
        verdict.certified_patch,
        verdict.certified,
        _windows(verdict.windows),
        finite(verdict.p_value),
        finite(verdict.p_value_threshold),
        verdict.statistic if verdict.statistic in _STATISTICS else NO_STATISTIC,
        verdict.scene if verdict.HasField("scene") and verdict.scene < SEQ_LIMIT else NO_SCENE,
    )
    return FrameRow._make(values)


def _windows(windows: Sequence[SentWindow]) -> str:
    if not windows:
        return ""
    return windows_text(
        Window(each.left, each.top, each.right, each.bottom, finite(each.dependence)) for each in windows[:MOST_WINDOWS]
    )


def _best(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return ""
    shown = ((_name(each.class_name[:_TEXT]), 100 * finite(each.confidence)) for each in candidates[:BEST])
    return ", ".join(f"{name} {percent:.0f} %" for name, percent in shown)


def finite(value: float) -> float:
    """Return a finite value as it is, and any other as zero."""
    return value if math.isfinite(value) else 0.0


def _add_event(batch: Batch, record: Record, keys: KeyRing, boots: BootRate | None) -> None:
    camera, value = _camera(record.key), record.value or b""
    kind = next((value or b"" for name, value in record.headers if name == "ce_type"), b"")
    if kind == b"pointillist.v1.Ledger":
        # Bridges reject those under revoked keys. One that they accepted before still accounts for its boot.
        ledger = open_ledger(camera, value, keys.every_generation())
        _check_boot(record, camera, ledger.boot_id, boots)
        known = batch.ledgers.get((camera, ledger.boot_id))
        if known is None or known.revision < ledger.revision:
            batch.ledgers[camera, ledger.boot_id] = ledger_row(
                (camera, ledger.boot_id), ledger, value, batch.recorded_ms
            )
    elif kind == b"pointillist.v1.Status":
        _check_announcement_size(kind, value)
        status = open_message(Status, camera, value, keys)
        check_announcement(status)
        batch.statuses.append((camera, status))
    elif kind == b"pointillist.v1.Meta":
        _check_announcement_size(kind, value)
        meta = open_message(Meta, camera, value, keys)
        check_announcement(meta)
        batch.metas.append((camera, meta))
    elif kind == b"pointillist.v1.Refusal":
        refusal = open_message(Refusal, camera, value, keys)
        refusal.detail = clean(refusal.detail)
        batch.refusals.append((camera, refusal))
    elif kind not in _FOR_BRIDGES:
        raise MalformedError(
            f"ce_type: expected pointillist.v1.Ledger, Status, Meta, Refusal or a request, got {kind[:80]!r}"
        )


def _check_announcement_size(kind: bytes, value: bytes) -> None:
    if len(value) > MAX_ANNOUNCEMENT_BYTES:
        name = kind.decode().removeprefix("pointillist.v1.")
        raise MalformedError(
            f"record value: expected a {name} of at most {MAX_ANNOUNCEMENT_BYTES} bytes, got {len(value)}"
        )


def ledger_row(key: BootKey, ledger: Ledger, message: bytes, taken_ms: int = 0) -> LedgerRow:
    """Return the ledger as a row, with its signed `message`, recorded at `taken_ms`."""
    return LedgerRow(
        *key,
        ledger.revision,
        ledger.started_ms,
        ledger.first,
        ledger.next,
        ledger.closed,
        ledger.frames_skipped,
        ledger.frames_resent,
        ledger.bytes_resent,
        ledger.written_ms,
        min(ledger.confirmed_to, ledger.next),
        message,
        taken_ms,
    )


def _add_dead_letter(batch: Batch, record: Record, keys: KeyRing) -> None:
    try:
        letter = DeadLetter.FromString(record.value or b"")
    except DecodeError:
        raise MalformedError("record value: expected a pointillist.v1.DeadLetter, got other bytes") from None
    if letter.verified:
        check_statement(DeadLetter, letter.camera_id, record.value or b"", keys)
        check_identity(letter.boot_id, letter.seq)
        camera_id_on_wire(letter.camera_id)
    batch.letters[record.topic, record.partition, record.offset] = _letter_row(record, letter, batch.recorded_ms)


def _letter_row(record: Record, letter: DeadLetter, recorded_ms: int) -> LetterRow:
    payload = letter.payload[:DEAD_LETTER_PAYLOAD_BYTES]
    error, origin = clean(letter.error), clean(letter.origin_topic)
    camera = clean(letter.camera_id[:140])
    return LetterRow(
        record.topic,
        record.partition,
        record.offset,
        clean(letter.stage[:40]),
        clean(letter.reason[:40]),
        error,
        camera,
        letter.verified,
        # The claims of an unverified letter prove nothing; they only have to fit the column.
        letter.boot_id if letter.boot_id < BOOT_ID_LIMIT else 0,
        letter.seq if letter.seq < SEQ_LIMIT else 0,
        origin,
        payload,
        min(letter.payload_bytes, _COUNT_LIMIT - 1),
        len(payload) + len(error) + len(origin) + len(camera) + _LETTER_OVERHEAD,
        min(letter.at_ms, TIME_LIMIT),
        recorded_ms,
    )
