"""The recorder's writes: one transaction holds a batch's effect and the offsets that it reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Engine, bindparam, func, inspect, select, update

from consumers.cameras.transaction_effect import TransactionEffect
from consumers.conservation.ledger_table import LedgerTable
from consumers.database.archive import Archive, is_recorded
from consumers.database.cameras import CameraRows
from consumers.database.damage import adopt_decisions, damaged_files
from consumers.database.dead_letters import DeadLetters, rename_topics
from consumers.database.engine import PreparedStatement, upsert
from consumers.database.frames import Frames
from consumers.database.frames_by_key import FramesByKey
from consumers.database.frames_by_time import FramesByTime
from consumers.database.history import History
from consumers.database.migrations import prepare_tables
from consumers.database.tables import dead_letters, offsets
from consumers.database.tallies import FRAME_BYTES, Tallies, tally
from consumers.database.turns import wait_to_prepare
from consumers.evidence.quarantine import Quarantine
from consumers.evidence.watch import Watch
from consumers.records.batch import Batch, BootKey, FrameKey, Partition, Span, frame_row
from consumers.settings import RecorderSettings
from consumers.sightings.rules_table import read_rules
from consumers.sightings.sightings import Sightings, SightingUpdate
from schemas.clock import unix_ms
from schemas.keys.sealing import PreviewBox
from schemas.pointillist_pb2 import CHECKED


class OffsetConflictError(Exception):
    """Another recorder has moved the stored offsets. Resume from them."""


class _MissingPicturesError(Exception):
    """Alarms of a transaction need pictures that are not in memory."""

    def __init__(self, keys: Sequence[FrameKey]) -> None:
        super().__init__(f"pictures are missing: {len(keys)} frames")
        self.keys = keys


@dataclass
class _AlarmPictures:
    """The pictures for the alarms of a transaction: those in memory, and those that were `read` before it.

    A read within the transaction may stall, and readers rely on a commit soon after the time of recording.
    """

    in_memory: Callable[[FrameKey], bytes | None]
    """Returns the PNG of a frame, empty if it has none; None if it has to be read."""
    read: Mapping[FrameKey, bytes] | None
    missing: list[FrameKey] = field(default_factory=list)

    def __call__(self, key: FrameKey) -> bytes:
        """Return the PNG of a frame, empty without one."""
        png = self.in_memory(key)
        if png is None:
            self.missing.append(key)
            png = (self.read or {}).get(key, b"")
        return png

    def check(self) -> None:
        """Raise `_MissingPicturesError` if pictures have to be read first."""
        if self.missing and self.read is None:
            raise _MissingPicturesError(self.missing)


class Store:
    """The database and the quarantine. All methods are for one thread, the recorder's database thread."""

    def __init__(self, engine: Engine, settings: RecorderSettings, box: PreviewBox) -> None:
        """`box` seals flagged frames and thumbnails. Raises ConfigError for a quarantine that fsspec cannot open."""
        self.engine = engine
        self.quarantine = Quarantine(settings.quarantine, engine, box)
        self.tallies = Tallies(engine)
        self.archive = Archive(engine)
        self._alone = settings.group is None
        self.frames: Frames = (
            FramesByKey(engine, self.archive, self.tallies, alone=self._alone)
            if engine.dialect.name == "sqlite"
            else FramesByTime(engine, self.tallies)
        )
        self.watch = Watch(engine, settings.evidence, self.frames, box)
        self.sightings = Sightings(engine, box)
        self.camera_rows = CameraRows(engine)
        self.history = History(engine)
        self.ledgers = LedgerTable(engine)
        self._first_offset = PreparedStatement(engine, upsert(engine, offsets).on_conflict_do_nothing())
        place = (offsets.c.topic == bindparam("of"), offsets.c.partition == bindparam("part"))
        mine = (offsets.c.next == bindparam("before"), offsets.c.epoch == bindparam("mine"))
        moved = update(offsets).where(*place, *mine).values(next=bindparam("following"))
        self._move_offset = PreparedStatement(engine, moved)
        self._epoch_of = PreparedStatement(engine, select(offsets.c.epoch).where(*place).with_for_update())
        insertion = upsert(engine, offsets)
        taken = insertion.on_conflict_do_update(
            index_elements=[offsets.c.topic, offsets.c.partition],
            set_={"epoch": offsets.c.epoch + insertion.excluded.epoch},
        )
        self._claim = PreparedStatement(engine, taken.returning(offsets.c.next, offsets.c.epoch))
        self._verdicts_topic = settings.verdicts_topic
        self._epochs: dict[Partition, int] = {}
        """The epochs of the partitions that this recorder has claimed."""
        self.dead_letters = DeadLetters(engine, self.archive, self.tallies, settings.bounds)

    def prepare(self) -> None:
        """Create or upgrade the tables, and load the state.

        A database that replaces a damaged one gets the quarantined files, sighting rules and mutes of that one. Raises
        `StateError` for tables of a later release.
        """
        damaged = damaged_files(Path(self.engine.url.database or "")) if self.engine.dialect.name == "sqlite" else []
        with self.engine.begin() as connection:
            wait_to_prepare(connection)
            is_new = not inspect(connection).has_table(offsets.name)
            prepare_tables(connection)
            if damaged:
                self.quarantine.adopt(connection, unix_ms())
                if is_new:
                    adopt_decisions(connection, damaged[-1])
            self.reload(connection)

    def reload(self, connection: Connection) -> None:
        """Load the cached state from the database again."""
        self.archive.forget()
        self.frames.forget()
        held = {partition for topic, partition in self._epochs if topic == self._verdicts_topic}
        self.watch.load(connection, None if self._alone else held)
        self.sightings.adopt(read_rules(connection))
        self.sightings.load(connection, None if self._alone else held, unix_ms())

    def claim(self, topics: Collection[str], spans: Mapping[Partition, Span]) -> dict[Partition, int]:
        """Claim these partitions, all that this recorder now has of `topics`. Return the next offset of each.

        The previous owner can then no longer write for them, and this recorder reloads its cache. An offset beyond the
        end of its log belongs to an earlier log: the current one is read from its beginning, and the stored letters of
        the earlier one get another topic.
        """
        before = self._epochs
        found: dict[Partition, int] = {}
        self._epochs = {place: epoch for place, epoch in before.items() if place[0] not in topics}
        try:
            with self.engine.begin() as connection:
                for place, (begin, end) in sorted(spans.items()):
                    topic, partition = place
                    row = self._claim.run(connection, topic=topic, partition=partition, next=begin, epoch=1)
                    ((following, self._epochs[place]),) = row.fetchall()
                    if following > end:
                        values = {"of": topic, "part": partition, "before": following, "mine": self._epochs[place]}
                        self._move_offset.run(connection, **values, following=begin)
                        # Also of the verdicts and events: a letter of the recorder has the position of its record.
                        of_log = dead_letters.c.topic == topic, dead_letters.c.partition == partition
                        rename_topics(connection, unix_ms(), *of_log)
                        following = begin
                    found[place] = following
                self.reload(connection)
        except BaseException:
            self._epochs = before
            raise
        return found

    def write(self, batch: Batch, expected: dict[Partition, int | None]) -> TransactionEffect:
        """Write the quarantine's files of the batch, then commit it.

        The time that the files take is added to the batch's times: readers rely on a commit soon after them. If an
        alarm needs pictures that are not in memory, as after a restart, the transaction is rolled back, the pictures
        are read, and it runs again. Raises `OffsetConflictError` if the stored offsets differ from `expected` (None: no
        offset yet).
        """
        try:
            begun_s = time.monotonic()
            kept = self._keep_evidence(batch)
            if kept:
                batch.delay(round(1000 * (time.monotonic() - begun_s)))
            begun_s = time.monotonic()
            try:
                return self._write(batch, expected, kept)
            except _MissingPicturesError as missing:
                self.frames.forget()
                pictures = self.quarantine.read_some(missing.keys)
                batch.delay(round(1000 * (time.monotonic() - begun_s)))
                return self._write(batch, expected, kept, pictures)
        except BaseException:
            self.frames.forget()
            raise

    def _write(
        self,
        batch: Batch,
        expected: dict[Partition, int | None],
        kept: Mapping[FrameKey, int],
        pictures: Mapping[FrameKey, bytes] | None = None,
    ) -> TransactionEffect:
        """Commit the batch. `pictures` were read for its alarms.

        Raises `_MissingPicturesError` without them, if an alarm needs some that are not in memory.
        """
        written = TransactionEffect(verdicts=batch.verdicts, recorded_ms=batch.recorded_ms, refusals=batch.refusals)
        if batch.verdicts:
            self.frames.make_room(batch.recorded_ms)
        with self.engine.begin() as connection:
            self._move_offsets(connection, batch, expected)
            touched: set[BootKey] = set()
            if batch.verdicts:
                self._record_frames(connection, batch, written, kept)
                touched.update((row.camera, row.boot) for row in written.rows)
            if batch.letters:
                written.letters = self.dead_letters.record(connection, list(batch.letters.values()))
                touched.update((row.camera, row.boot) for row in written.letters if row.verified)
            if batch.statuses or batch.metas:
                written.cameras = self.camera_rows.update(connection, batch)
            if batch.ledgers:
                self.ledgers.record(connection, batch.ledgers.values())
                touched.update(batch.ledgers)
            pending = self.watch.fold(connection, written.rows)
            picture_of = _AlarmPictures(partial(self._picture_of, batch), pictures)
            raised = self.watch.read(connection, pending, touched, batch.recorded_ms, picture_of, batch.partitions)
            picture_of.check()
            sighted = self.sightings.read(connection, written.rows, batch.verdicts, batch.partitions)
            if written.rows:
                self.history.add(connection, written.rows, batch.recorded_ms)
                self.frames.count(connection, written.rows)
        self.watch.commit(raised)
        self.sightings.commit(sighted)
        written.alerts = raised.alerts
        written.sightings = sighted.alerts
        written.chains = raised.chains
        return written

    def read_on(self) -> TransactionEffect:
        """Apply the rule where the wait for a missing frame has expired, or another recorder wrote it.

        Return the effect.
        """
        try:
            return self._read_on()
        except _MissingPicturesError as missing:
            return self._read_on(self.quarantine.read_some(missing.keys))

    def _read_on(self, pictures: Mapping[FrameKey, bytes] | None = None) -> TransactionEffect:
        waiting = self.watch.overdue()
        if not self._alone:
            waiting |= self.watch.next_waiting()
        if not waiting:
            return TransactionEffect()
        with self.engine.begin() as connection:
            for partition in sorted(set(waiting.values())):
                if not self._holds(connection, partition):
                    self.watch.release(partition)
                    waiting = {boot: its for boot, its in waiting.items() if its != partition}
            picture_of = _AlarmPictures(self.quarantine.recent, pictures)
            raised = self.watch.read(connection, {}, waiting, unix_ms(), picture_of, {})
            picture_of.check()
        self.watch.commit(raised)
        return TransactionEffect(alerts=raised.alerts, chains=raised.chains)

    def tend_sightings(self) -> None:
        """Read the sighting rules, and end the sightings whose class has been absent."""
        now_ms = unix_ms()
        with self.engine.begin() as connection:
            self.sightings.adopt(read_rules(connection))
            over = self.sightings.find_ended(now_ms)
            for partition in sorted({each.partition for each in over.values()}):
                if not self._holds(connection, partition):
                    self.sightings.release(partition)
                    over = {key: each for key, each in over.items() if each.partition != partition}
            ended = self.sightings.end(connection, over) if over else SightingUpdate()
        self.sightings.commit(ended)
        self.sightings.purge(now_ms)

    def _holds(self, connection: Connection, partition: int) -> bool:
        """Return whether this recorder holds this partition of the verdicts, and lock it until the transaction ends."""
        mine = self._epochs.get((self._verdicts_topic, partition))
        if self._alone and mine is None:
            return True
        row = self._epoch_of.run(connection, of=self._verdicts_topic, part=partition).fetchone()
        return row is not None and row[0] == mine

    def _move_offsets(self, connection: Connection, batch: Batch, expected: dict[Partition, int | None]) -> None:
        # All recorders lock in the same order, so no deadlock can occur.
        for (topic, partition), (_, following) in sorted(batch.offsets.items()):
            before, mine = expected[topic, partition], self._epochs.get((topic, partition), 0)
            if before is None:
                values = {"topic": topic, "partition": partition, "next": following, "epoch": mine}
                moved = self._first_offset.run(connection, **values)
            else:
                values = {"of": topic, "part": partition, "before": before, "mine": mine}
                moved = self._move_offset.run(connection, **values, following=following)
            if moved.rowcount != 1:
                raise OffsetConflictError(f"{topic} partition {partition}: expected offset {before} in the database")

    def _record_frames(
        self, connection: Connection, batch: Batch, written: TransactionEffect, kept: Mapping[FrameKey, int]
    ) -> None:
        rows = {key: frame_row(key, verdict, batch.recorded_ms) for key, verdict in batch.verdicts.items()}
        written.rows = self.frames.record(connection, rows, batch.repeated, batch.recorded_ms)
        written.duplicates = len(rows) + batch.repeated.total() - len(written.rows)
        if kept:
            for row in written.rows:
                key = row.camera, row.boot, row.seq
                if key in kept:
                    self.quarantine.enter(connection, key, kept[key], batch.recorded_ms)

    def _keep_evidence(self, batch: Batch) -> dict[FrameKey, int]:
        """Write the quarantine's files of new frames. Return their bytes."""
        some = {
            key: verdict
            for key, verdict in batch.verdicts.items()
            if verdict.flagged and verdict.strip == CHECKED and verdict.evidence
        }
        if not some:
            return {}
        with self.engine.begin() as connection:
            new = [key for key in some if not is_recorded(connection, key)]
        return {
            key: self.quarantine.write(frame_row(key, some[key], batch.recorded_ms), some[key].evidence) for key in new
        }

    def _picture_of(self, batch: Batch, key: FrameKey) -> bytes | None:
        """Return the PNG of a frame of the batch, empty if it has none, or of one written lately; None for others."""
        verdict = batch.verdicts.get(key)
        if verdict is not None and verdict.evidence:
            return verdict.evidence
        png = self.quarantine.recent(key)
        return b"" if png is None and verdict is not None else png

    def bytes_held(self) -> dict[str, int]:
        """Return the bytes of each store, by their names in the metrics."""
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
                database = pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one()
            else:
                database = connection.scalar(select(func.pg_database_size(func.current_database()))) or 0
            return {
                "database": int(database),
                "frames": tally(connection, FRAME_BYTES),
                "quarantine": self.quarantine.bytes_held(connection),
                **self.dead_letters.bytes_held(connection),
            }
