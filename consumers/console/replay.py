"""Replay of dead letters: rejected frames go back to the frames topic after the cause is fixed.

Only frames with a verified identity are sent. The processors check their tags again. The recorder compares
identities, so a frame recorded meanwhile counts as a duplicate. A dead letter holds only the beginning of a large
frame. The rest is read from Kafka while Kafka retains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from aiokafka.errors import KafkaError
from sqlalchemy import Connection, case, func, select

from consumers.console.access.sight import Sight
from consumers.database.archive import RowKind
from consumers.database.runs import boot_numbers
from consumers.database.tables import dead_letters
from consumers.records.batch import STAGE as RECORDER
from schemas.errors import BrokerError, error_text
from schemas.identity import CameraId
from schemas.messages.cloudevents import camera_source, event_headers, frame_event_id
from schemas.pointillist_pb2 import Frame
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.sender import PlainRecord, Sender

MOST: Final = 10_000
"""Maximum number of frames in one replay."""
MOST_BYTES: Final = 128_000_000
"""Maximum bytes of these frames, which are all in memory at once. One frame is replayed in any case."""
_AT_ONCE: Final = 500
_PATIENCE_S: Final = 30.0
"""Seconds that Kafka has to accept the frames, and in which the search for large ones must read another record."""


@dataclass(frozen=True)
class Letter:
    """A rejected frame with a verified identity."""

    camera: str
    boot: int
    seq: int
    origin: str
    payload: bytes
    payload_bytes: int
    topic: str
    partition: int
    offset: int

    @property
    def is_complete(self) -> bool:
        """Whether the letter holds all of the frame."""
        return len(self.payload) == self.payload_bytes


@dataclass(frozen=True)
class ReplayOutcome:
    """The outcome of a replay."""

    sent: int = 0
    recorded: int = 0
    """Frames recorded meanwhile: not sent."""
    gone: int = 0
    """Frames too large for a letter and no longer in Kafka."""

    def __add__(self, other: ReplayOutcome) -> ReplayOutcome:
        return ReplayOutcome(self.sent + other.sent, self.recorded + other.recorded, self.gone + other.gone)

    def __str__(self) -> str:
        summary = f"{self.sent} sent again"
        summary += f", {self.recorded} recorded meanwhile" if self.recorded else ""
        return summary + (f", {self.gone} no longer in Kafka" if self.gone else "")


def reasons(connection: Connection, sight: Sight) -> list[dict[str, Any]]:
    """Return the number of letters of each reason that name cameras of these sites, the most frequent first."""
    kinds = (dead_letters.c.reason, dead_letters.c.stage, dead_letters.c.verified)
    totals = (func.count().label("letters"), func.max(dead_letters.c.recorded_ms).label("newest_ms"))
    query = (
        select(*kinds, *totals, func.max(dead_letters.c.error).label("error"))
        .where(sight.where(dead_letters.c.camera))
        .group_by(*kinds)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda each: -each["letters"])


def is_frame(reason: Mapping[str, Any]) -> bool:
    """Return whether dead letters of this reason hold frames with a verified identity. The recorder's hold verdicts."""
    return bool(reason["verified"] and reason["stage"] != RECORDER)


def letters(connection: Connection, reason: str, sight: Sight) -> tuple[list[Letter], int]:
    """Return the unrecorded frames rejected for a reason, each once, oldest first, and the number of recorded ones.

    Only frames of these sites count. Beyond `MOST` or `MOST_BYTES`, the frames rejected least often are returned, the
    newest of them. Frames that fail again, and old ones that Kafka no longer holds, therefore keep no others back.
    """
    identity = dead_letters.c["camera", "boot", "seq"]
    frames = (dead_letters.c.verified, dead_letters.c.stage != RECORDER, sight.where(dead_letters.c.camera))
    newest_ms = func.max(case((dead_letters.c.reason == reason, dead_letters.c.recorded_ms)))
    size = func.max(case((dead_letters.c.reason == reason, dead_letters.c.payload_bytes)))
    rejected = (
        select(*identity, func.count().label("letters"), newest_ms.label("newest_ms"), size.label("bytes"))
        .where(*frames)
        .group_by(*identity)
    )
    rows = connection.execute(rejected.having(newest_ms.is_not(None))).all()
    boots = {(camera, boot) for camera, boot, *_ in rows}
    recorded = {boot: boot_numbers(connection, RowKind.FRAME, *boot) for boot in boots}
    waiting = [row for row in rows if row.seq not in recorded[row.camera, row.boot]]
    waiting.sort(key=lambda row: (row.letters, -row.newest_ms, -row.seq))
    ends = accumulate(row.bytes for row in waiting[:MOST])
    chosen = {
        tuple(row[:3]) for row, end in zip(waiting, ends, strict=False) if end <= max(MOST_BYTES, waiting[0].bytes)
    }
    columns = [dead_letters.c[name] for name in Letter.__dataclass_fields__]
    query = select(*columns).where(*frames, dead_letters.c.reason == reason).order_by(dead_letters.c.recorded_ms)
    found: dict[tuple[str, int, int], Letter] = {}
    for row in connection.execute(query, execution_options={"yield_per": _AT_ONCE}):
        letter = Letter(*row)
        if (key := (letter.camera, letter.boot, letter.seq)) in chosen:
            found[key] = letter
    return list(found.values()), len(rows) - len(waiting)


async def replay(kafka: KafkaAddress, topic: str, found: Sequence[Letter], recorded: int) -> ReplayOutcome:
    """Send the frames of `found` to `topic` again. Raises BrokerError if Kafka does not accept them all.

    A camera's frames are sent in their order, because a processor waits only briefly for a key frame of `video`.
    Frames sent before the error may arrive twice; each is recorded once.
    """
    payloads = sorted(await _payloads(kafka, topic, found), key=_order)
    sender = Sender(kafka)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await sender.send(topic, [_record(letter, payload) for letter, payload in payloads], once=True)
    except (KafkaError, OSError, TimeoutError) as error:
        why = error_text(error)
        raise BrokerError(f"Kafka: expected it to accept the frames within {_PATIENCE_S:g} s, got {why}") from None
    finally:
        await sender.close()
    return ReplayOutcome(len(payloads), recorded, len(found) - len(payloads))


def _order(found: tuple[Letter, bytes]) -> tuple[str, int, int]:
    letter, _ = found
    return letter.camera, letter.boot, letter.seq


def _record(letter: Letter, payload: bytes) -> PlainRecord:
    camera = CameraId(letter.camera)
    headers = event_headers(camera_source(camera), Frame, frame_event_id(letter.boot, letter.seq))
    return PlainRecord(camera.encode(), payload, headers)


async def _payloads(kafka: KafkaAddress, topic: str, found: Sequence[Letter]) -> list[tuple[Letter, bytes]]:
    whole = [(letter, letter.payload) for letter in found if letter.is_complete]
    cut = [letter for letter in found if not letter.is_complete]
    if not cut:
        return whole
    try:
        async with asyncio.timeout(_PATIENCE_S) as patience, Reader(kafka, topic) as reader:
            return whole + await _read_back(reader, cut, patience)
    except (KafkaError, OSError, TimeoutError) as error:
        why = error_text(error)
        raise BrokerError(f"Kafka: expected frames, got {why}. Replay them again when it answers.") from None


async def _read_back(reader: Reader, cut: Sequence[Letter], patience: asyncio.Timeout) -> list[tuple[Letter, bytes]]:
    """Read truncated frames back. The letters do not hold their offsets, so each partition is read through once.

    A topic holds gigabytes: `patience` begins again with each batch of records.
    """
    loop = asyncio.get_running_loop()
    wanted = {(letter.camera, letter.payload[:256]): letter for letter in cut}
    found: list[tuple[Letter, bytes]] = []
    async for batch in reader.fetch_until(await reader.ends(reader.assignment())):
        if batch:
            patience.reschedule(loop.time() + _PATIENCE_S)
        for records in batch.values():
            for record in records:
                letter = wanted.pop(((record.key or b"").decode(errors="replace"), (record.value or b"")[:256]), None)
                if letter is not None:
                    found.append((letter, record.value))
        if not wanted:
            break
    return found
