"""The lag of the processors and of the recorders, and the decision whether the bridge accepts frames."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas.errors import error_text
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES, MAX_ANNOUNCEMENT_BYTES, MAX_LEDGER_BYTES
from schemas.topics import RECORDED_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import REQUEST_S
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.record_sizes import RecordSizes

log = structlog.get_logger()

LOG_AFTER: Final = 3
"""Failures in a row before a warning: a Kafka that has just started has no coordinator yet."""
SKIPPED: Final = 3
"""Readings in a row that are skipped while no confirmation waits for them, or after more readings without progress."""
FIRSTS_EVERY: Final = 8
"""Readings between two of the first offsets, which move only when Kafka deletes records, and two of the recorders' lag,
which takes minutes to become large."""
ALL_OFFSETS: Final = range(sys.maxsize)
MAX_UNRECORDED_BYTES: Final = 96 * 2**20
"""Maximum lag of the recorders per partition of a topic that they read, in bytes. At most half of what the topic
retains of a partition: the lag is an estimate that is some seconds old, and frames in Kafka still become verdicts or
dead letters. No number of verdicts would fit all fleets: one has 250 bytes, 2 KiB with a certificate, 60 KiB with the
pictures of each second and up to 1 MiB with evidence."""
MAX_UNRECORDED_LETTER_BYTES: Final = MAX_UNRECORDED_BYTES // 2
"""The same for dead letters of the bridges, which anybody can cause: strangers hold no frame back, and displace no dead
letter of a verified frame."""
RECORD_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        KafkaTopic.EVENTS: max(MAX_LEDGER_BYTES, MAX_ANNOUNCEMENT_BYTES) + 512,
        KafkaTopic.DEAD_LETTERS: DEAD_LETTER_PAYLOAD_BYTES + 1024,
    }
)
"""Bytes of a large record of these topics. Each dead letter counts as one, because senders choose the sizes. So does
each event until this bridge has sent one."""
LEAST_EVENT_BYTES: Final = 512
"""Bytes that an event counts at least."""
_RECORDED: Final = (KafkaTopic.VERDICTS, KafkaTopic.EVENTS, KafkaTopic.DEAD_LETTERS)
"""The topics that the recorders read."""


class _Unrecorded(NamedTuple):
    """A partition's records that the recorders have not read."""

    offset: int
    """The recorders' next offset."""
    end: int
    """The offset of the next record."""
    record_bytes: int

    @property
    def bytes(self) -> int:
        # Not counted from Kafka's first record: records that Kafka has deleted must not end the hold.
        return max(0, self.end - self.offset) * self.record_bytes


class Backlog:
    """The poller of the processors' lag in frames and of the recorders' lag, which it converts to bytes.

    Kafka deletes its oldest records even if they are unread, and they would be lost. Therefore the bridge rejects
    frames while any partition has more than `limit_bytes` of unprocessed frames or `MAX_UNRECORDED_BYTES` of unrecorded
    verdicts or dead letters, until it has less than half of that. In the same way it rejects events while too many are
    unrecorded. The estimate needs no stored state: offsets come from Kafka, sizes of frames from the records that this
    bridge sent, sizes of verdicts from the recorders' commits. If no recorder ever committed, only frames hold frames
    back.
    """

    def __init__(
        self,
        bootstrap: KafkaAddress,
        client: str,
        group: str,
        limit_bytes: int,
        interval_s: float,
        hold: Callable[[bool], None],
        advance: Callable[[Mapping[int, int] | None], None],
        waits: Callable[[], bool] = lambda: True,
        unprocessed_mean: Callable[[int], float] = lambda _: 0.0,
        lost: Callable[[int, range], None] = lambda *_: None,
        on_health: Callable[[bool, str], None] = lambda *_: None,
        hold_events: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`hold` is called with whether frames are held back, at each change, `hold_events` with whether events are.
        `advance` is called with the next offset of the group per partition, or None if Kafka has never answered. While
        nothing `waits` for an advance, or the group makes no progress, up to `SKIPPED` readings are skipped.
        `unprocessed_mean` returns the mean size of a partition's unprocessed records, or 0 if it is unknown: then that
        of the recent ones stands for it. `lost` is called with a partition and the offsets of unprocessed records that
        Kafka no longer has. `on_health` is called with whether the lag can be read, and with the error."""
        self.sizes = RecordSizes()
        self._event_sizes = RecordSizes()
        self._event_bytes: dict[int, int] = {}
        """The largest mean size of a partition's events since all were recorded."""
        self.bytes = 0
        """The lag in bytes of the partition with the largest lag."""
        self.holding = False
        """Whether frames are held back."""
        self.holding_events = False
        self._full: frozenset[KafkaTopic] = frozenset()
        """The topics with a partition above its limit."""
        self._unrecorded: dict[TopicPartition, _Unrecorded] = {}
        """The recorders' lag in each partition."""
        self._unread = 0
        """Failures in a row to read the recorders' lag."""
        self._bootstrap = bootstrap
        self._client = client
        self._group = group
        self._limit_bytes = limit_bytes
        self._interval_s = interval_s
        self._hold = hold
        self._hold_events = hold_events
        self._advance = advance
        self._waits = waits
        self._unprocessed_mean = unprocessed_mean
        self._lost = lost
        self._on_health = on_health
        self._delivered: dict[int, int] = {}
        """The offset after the last delivered record of each partition."""
        self._firsts: dict[TopicPartition, int] = {}
        self._readings = 0
        self._done: Mapping[int, int] = {}
        self._unmoved = 0
        """Readings since the last progress of the group."""

    async def run(self, partitions: list[int]) -> None:
        """Poll until cancelled. While Kafka does not respond, the last result holds."""
        backoff = Backoff()
        name = f"{self._client}-backlog"
        while True:
            try:
                async with Reader(self._bootstrap, name=name) as reader, Admin(self._bootstrap, name=name) as admin:
                    self._readings = 0
                    while True:
                        async with asyncio.timeout(REQUEST_S):
                            places = await self._places(reader, admin, partitions)
                        if backoff.failures >= LOG_AFTER:
                            self._on_health(True, "")
                        backoff.reset()
                        done = {partition: done for partition, (done, _) in places.items()}
                        for partition, offset in done.items():
                            if offset < self._done.get(partition, 0):
                                self._lost(partition, ALL_OFFSETS)  # the topic was made again
                        self._unmoved = self._unmoved + 1 if done == self._done else 0
                        self._done = done
                        self._advance(done)
                        if self._readings % FIRSTS_EVERY == 1:
                            await self._read_unrecorded(reader, admin)
                        self.observe({partition: end - done for partition, (done, end) in places.items()})
                        for _ in range(SKIPPED + 1):
                            await asyncio.sleep(self._interval_s)
                            if self.holding or (self._unmoved <= SKIPPED and self._waits()):
                                break
            except Exception as error:
                # Any error of the client library. The last progress holds: Kafka may have lost the end of its log.
                if not self._done and backoff.failures + 1 >= LOG_AFTER:
                    self._advance(None)  # each time: what was sent since the last one is unknown too
                if backoff.failures + 1 == LOG_AFTER:
                    log.warning("lag_not_read", group=self._group, error=repr(error)[:300])
                    self._on_health(False, f"not read: {error_text(error)}")
            await backoff.wait()

    def deliver(self, partition: int, first_offset: int, count: int) -> None:
        """Record that Kafka has appended `count` records from `first_offset` on. A negative offset is unknown.

        If Kafka has given these offsets before, it has lost the end of its log, as by a power cut.
        """
        if first_offset >= 0:
            if first_offset < (end := self._delivered.get(partition, 0)):
                self._lost(partition, range(first_offset, end))
            self._delivered[partition] = first_offset + count

    def deliver_unrecorded(self, topic: KafkaTopic, partition: int, end: int, count: int, size: int) -> None:
        """Record that Kafka has appended `count` events or dead letters of `size` bytes up to the offset `end`.

        The next reading is seconds away.
        """
        if topic is KafkaTopic.EVENTS:
            self._event_sizes.add(partition, count, size)
        place = TopicPartition(topic.value, partition)
        lag = self._unrecorded.get(place)
        if lag is not None and end > lag.end:
            self._unrecorded[place] = _Unrecorded(lag.offset, end, self._weight(place, lag.record_bytes))
            self._judge_unrecorded(topic)
            self._change_holds()

    def accepts_letters(self, waiting: int) -> bool:
        """Return whether Kafka has room for another dead letter of this bridge, of which `waiting` are not sent yet."""
        found = self._unrecorded_bytes(KafkaTopic.DEAD_LETTERS)
        return found is None or found + waiting * RECORD_BYTES[KafkaTopic.DEAD_LETTERS] < MAX_UNRECORDED_LETTER_BYTES

    def observe(self, unprocessed: Mapping[int, int]) -> None:
        """Update the number of unprocessed records of each partition."""
        self.bytes = round(
            max(count * (self._unprocessed_mean(p) or self.sizes.mean(p)) for p, count in unprocessed.items())
        )
        self._judge(KafkaTopic.FRAMES, self.bytes, self._limit_bytes)
        for topic in _RECORDED:
            self._judge_unrecorded(topic)
        self._change_holds()

    def _change_holds(self) -> None:
        if bool(self._full - {KafkaTopic.EVENTS}) != self.holding:
            self.holding = not self.holding
            self._hold(self.holding)
        if (KafkaTopic.EVENTS in self._full) != self.holding_events:
            self.holding_events = not self.holding_events
            self._hold_events(self.holding_events)

    def _weight(self, place: TopicPartition, recorded_mean: int) -> int:
        """Return the bytes that each unrecorded record of a partition counts.

        A verdict counts the mean of the recorders. An event counts the mean of those that this bridge has sent lately,
        or an earlier, larger one until all are recorded: large events may be followed by small ones.
        """
        if place.topic != KafkaTopic.EVENTS:
            return RECORD_BYTES.get(place.topic, recorded_mean)
        mean, lag = round(self._event_sizes.mean(place.partition)), self._unrecorded.get(place)
        earlier = self._event_bytes.get(place.partition, 0) if lag is not None and lag.bytes else 0
        found = self._event_bytes[place.partition] = max(mean, earlier)
        return max(LEAST_EVENT_BYTES, found) if found else RECORD_BYTES[place.topic]

    def _unrecorded_bytes(self, topic: KafkaTopic) -> int | None:
        """Return the recorders' lag in the partition of `topic` with the largest lag; None if they never committed."""
        return max((lag.bytes for place, lag in self._unrecorded.items() if place.topic == topic), default=None)

    def _judge_unrecorded(self, topic: KafkaTopic) -> None:
        self._judge(topic, self._unrecorded_bytes(topic) or 0, MAX_UNRECORDED_BYTES)

    def _judge(self, topic: KafkaTopic, backlog_bytes: int, limit_bytes: int) -> None:
        """Update whether `topic` is full: from above the limit until half of it."""
        was_full = topic in self._full
        is_full = backlog_bytes > (limit_bytes // 2 if was_full else limit_bytes)
        if is_full != was_full:
            self._full ^= {topic}
            event = "backpressure_started" if is_full else "backpressure_ended"
            log.info(event, topic=topic.value, backlog_bytes=backlog_bytes)

    async def _places(self, reader: Reader, admin: Admin, partitions: list[int]) -> dict[int, tuple[int, int]]:
        """Return, per partition, the group's next offset and the offset of the next record."""
        places = [TopicPartition(KafkaTopic.FRAMES.value, partition) for partition in partitions]
        committed = await admin.committed(self._group)
        if self._readings % FIRSTS_EVERY == 0:
            firsts = await reader.beginnings(places)
            for place, first in firsts.items():
                if first > max(done := committed.get(place, 0), self._firsts.get(place, 0)):
                    self._lost(place.partition, range(done, first))  # deleted by retention
            self._firsts = firsts
        self._readings += 1
        delivered = dict(self._delivered)  # before the ends are read: later records may lie beyond them
        ends = await reader.ends(places)
        found = {}
        for place in places:
            if ends[place] < (before := delivered.get(place.partition, 0)):
                self._lost(place.partition, range(ends[place], before))
                self._delivered[place.partition] = ends[place]
            done = max(self._firsts[place], committed.get(place, 0))
            found[place.partition] = (done, max(done, ends[place]))
        return found

    async def _read_unrecorded(self, reader: Reader, admin: Admin) -> None:
        """Update the recorders' lag. If that fails, the last result holds."""
        try:
            async with asyncio.timeout(REQUEST_S):
                committed = await admin.committed_with_notes(RECORDED_GROUP)
                lagging = {
                    place: (offset, self._weight(place, int(note)))
                    for place, (offset, note) in committed.items()
                    if place.topic in _RECORDED and note.isdecimal()
                }
                ends = await reader.ends(list(lagging))
        except (KafkaError, OSError, TimeoutError) as error:
            self._unread += 1
            if self._unread == LOG_AFTER:
                log.warning("lag_not_read", group=RECORDED_GROUP, error=repr(error)[:300])
            return
        self._unread = 0
        self._unrecorded = {place: _Unrecorded(offset, ends[place], size) for place, (offset, size) in lagging.items()}
