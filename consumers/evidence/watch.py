"""Evidence in the database: it folds new frames into their chains, raises alerts and tracks waiting chains."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, bindparam, select

from consumers.database.alerts import alert_row
from consumers.database.archive import RowKind, keeps_all, load
from consumers.database.engine import PreparedStatement, upsert
from consumers.database.frames import Frames
from consumers.database.tables import alerts, dead_letters, evidence, frames, ledgers
from consumers.evidence.chain import Chain, raise_alert
from consumers.evidence.chains import Chains
from consumers.evidence.thumbnails import thumbnail
from consumers.records.batch import BootKey, FrameKey
from consumers.records.rows import FrameRow, Window, windows_of
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, Probe
from schemas.keys.sealing import PreviewBox
from schemas.pointillist_pb2 import CHECKED, Alert, Ledger
from schemas.ranges import RangeSet

_LOOKED_AT_ONCE: Final = 200
"""Number of waiting chains checked at once: another recorder may have written their missing frame."""

Pending = dict[BootKey, Chain]
"""Chains with frames folded in by the current transaction."""


@dataclass(slots=True)
class EvidenceUpdate:
    """The evidence that a transaction has read."""

    alerts: list[Alert] = field(default_factory=list)
    chains: Pending = field(default_factory=dict)
    """Every chain that was folded into or read, in its new state."""
    partitions: dict[BootKey, int] = field(default_factory=dict)
    """The partitions of those chains."""


class Watch:
    """The chains whose checked frames wait for an earlier frame. For the database thread only.

    The state in memory changes in `commit`, after the database has it.
    """

    def __init__(self, engine: Engine, rule: EvidenceRule, recorded: Frames, box: PreviewBox) -> None:
        """`box` seals the thumbnails of alerts."""
        self._rule = rule
        self._recorded = recorded
        self._box = box
        self._chains = Chains(engine)
        self._waiting: dict[BootKey, tuple[int, float, int]] = {}
        """For each waiting chain: its next sequence number, the start of the wait, and its partition."""
        mine = (frames.c.camera == bindparam("of"), frames.c.boot == bindparam("in_boot"))
        span = (frames.c.seq >= bindparam("since"), frames.c.seq <= bindparam("until"))
        standing = select(evidence.c.camera, evidence.c.boot, evidence.c.following, evidence.c.partition)
        waiting = standing.where(evidence.c.waiting != b"")
        # Literals, for a partial index of these chains: there may be hundreds of thousands of others.
        self._left_waiting = waiting.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}).string
        self._classes = PreparedStatement(engine, select(frames.c.class_id).where(*mine, *span))
        examined = select(frames.c.windows).where(*mine, *span, frames.c.windows != bindparam("none"))
        self._examined = PreparedStatement(engine, examined.order_by(frames.c.seq.desc()))
        self._alert = upsert(engine, alerts).on_conflict_do_nothing()

    def load(self, connection: Connection, held: Collection[int] | None) -> None:
        """Load the waiting chains of an earlier recorder in the partitions `held`; None loads all."""
        rows = connection.exec_driver_sql(self._left_waiting)
        now = time.monotonic()
        self._waiting = {
            (camera, boot): (following, now, partition)
            for camera, boot, following, partition in rows
            if held is None or partition in held
        }

    def release(self, partition: int) -> None:
        """Drop the chains of a partition that another recorder has claimed."""
        self._waiting = {boot: stands for boot, stands in self._waiting.items() if stands[2] != partition}

    def fold(self, connection: Connection, rows: Sequence[FrameRow]) -> Pending:
        """Fold the new rows of `frames` that STRIP checked into their chains."""
        new: defaultdict[BootKey, list[Probe]] = defaultdict(list)
        for row in rows:
            if row.strip == CHECKED:
                probe = Probe(
                    row.seq, row.entropy_bits, row.threshold_bits, bool(row.flagged), row.class_id,
                    row.p_value, row.p_value_threshold, row.statistic, row.scene,
                )  # fmt: skip
                new[row.camera, row.boot].append(probe)
        return {boot: chain.fold(new[boot]) for boot, chain in self._chains.of(connection, new).items()}

    def overdue(self) -> dict[BootKey, int]:
        """Return the boots whose wait for a missing frame has expired, with their partitions."""
        before = time.monotonic() - self._rule.patience_s
        return {boot: partition for boot, (_, since, partition) in self._waiting.items() if since <= before}

    def next_waiting(self) -> dict[BootKey, int]:
        """Return some of the waiting boots in turn, with their partitions.

        If several recorders share the work, one may write the dead letter that another's chain waits for.
        """
        some = dict(itertools.islice(self._waiting.items(), _LOOKED_AT_ONCE))
        for boot, stands in some.items():
            del self._waiting[boot]
            self._waiting[boot] = stands
        return {boot: partition for boot, (_, _, partition) in some.items()}

    def read(
        self,
        connection: Connection,
        pending: Pending,
        touched: Collection[BootKey],
        now_ms: int,
        picture_of: Callable[[FrameKey], bytes],
        partitions: Mapping[str, int],
    ) -> EvidenceUpdate:
        """Apply the rule to the `pending` chains, and to waiting chains of `touched` boots.

        Writes chains and unpublished alerts. `picture_of` returns the PNG of a flagged frame, empty without one.
        `partitions` are those of the pending boots' cameras.
        """
        raised = EvidenceUpdate()
        overdue = self.overdue()
        chains = pending | self._chains.of(connection, (self._waiting.keys() & set(touched)) - pending.keys())
        stretches = {boot: (each.following, each.waiting[-1].seq) for boot, each in chains.items() if each.waiting}
        complete = self._recorded.complete(connection, stretches) if stretches else set()
        for boot, chain in sorted(chains.items()):
            if boot in complete or (boot not in pending and boot in overdue):
                until = chain.waiting[-1].seq + 1 if chain.waiting else chain.following
            else:
                until = _accounted_until(connection, boot, chain)

            def classes(first: int, last: int, boot: BootKey = boot) -> list[int]:
                cursor = self._classes.run(connection, of=boot[0], in_boot=boot[1], since=first, until=last)
                return [class_id for (class_id,) in cursor.fetchall()]

            after, alarms = chain.read(until, self._rule, classes)
            if boot not in pending and after == chain and chain.waiting:
                continue  # nothing new; a chain that waits for nothing, as after damage, leaves the waiting ones
            for found in alarms:
                window = self._window(connection, boot, found.alarm)
                alert = raise_alert(*boot, found, now_ms, _thumbnail(boot, found.alarm, picture_of), window)
                if connection.execute(self._alert, alert_row(alert, 0, self._box)).rowcount:
                    raised.alerts.append(alert)
            raised.chains[boot] = after
            waited = self._waiting.get(boot)
            raised.partitions[boot] = partitions.get(boot[0], waited[2] if waited is not None else 0)
        if raised.chains:
            self._chains.put(connection, raised.chains, raised.partitions, now_ms)
        return raised

    def _window(self, connection: Connection, boot: BootKey, alarm: Alarm) -> Window | None:
        """Return the window on which the label depends most, in the last frame of the alarm that was examined.

        None if no frame was examined, or if the label depends on no window.
        """
        since, until = alarm.run[0].seq, alarm.run[-1].seq
        row = self._examined.run(connection, of=boot[0], in_boot=boot[1], since=since, until=until, none="").fetchone()
        windows = windows_of(row[0]) if row is not None else []
        return max((each for each in windows if each.dependence), key=lambda each: each.dependence, default=None)

    def commit(self, raised: EvidenceUpdate) -> None:
        """Apply `raised` in memory: its transaction is durable."""
        now = time.monotonic()
        for boot, chain in raised.chains.items():
            if not chain.waiting:
                self._waiting.pop(boot, None)
            elif boot not in self._waiting or self._waiting[boot][0] != chain.following:
                self._waiting[boot] = (chain.following, now, raised.partitions[boot])


def _accounted_until(connection: Connection, boot: BootKey, chain: Chain) -> int:
    """Return the first sequence number without a known fate, from the chain's next number to its last waiting frame."""
    if not chain.waiting:
        return chain.following
    last = chain.waiting[-1].seq
    for first, until in _accounted(connection, boot, chain.following, last).ranges():
        if first <= chain.following <= until:
            return min(until, last) + 1
    return chain.following


def _accounted(connection: Connection, boot: BootKey, start: int, last: int) -> RangeSet:
    """Return those frames from `start` to `last` with a known fate: recorded, dead-lettered or shed."""
    camera, boot_id = boot
    found = RangeSet()
    for table in (dead_letters,) if keeps_all(connection, RowKind.FRAME) else (frames, dead_letters):
        condition = [table.c.camera == camera, table.c.boot == boot_id, table.c.seq.between(start, last)]
        if table is dead_letters:
            condition.append(dead_letters.c.verified)
        for (seq,) in connection.execute(select(table.c.seq).where(*condition).order_by(table.c.seq)):
            found.add(seq)
    for kind in (RowKind.FRAME, RowKind.DEAD_LETTER):
        found.update(load(connection, kind, camera, boot_id, start, last))
    ledger = connection.execute(
        select(ledgers.c.first, ledgers.c.message).where(ledgers.c.camera == camera, ledgers.c.boot == boot_id)
    ).one_or_none()
    if ledger is not None:
        found.add(0, ledger.first - 1)
        with suppress(DecodeError):  # a damaged one accounts for no shed frame
            for shed in Ledger.FromString(ledger.message).shed:
                found.add(shed.first, shed.last)
    return found


def _thumbnail(boot: BootKey, alarm: Alarm, picture_of: Callable[[FrameKey], bytes]) -> bytes:
    """Return a small PNG of the last flagged frame; empty if it has no picture."""
    flagged = max((probe.seq for probe in alarm.run if probe.flagged), default=None)
    return thumbnail(picture_of((*boot, flagged))) if flagged is not None else b""
