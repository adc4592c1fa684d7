"""Evidence in the database: folding new frames into windows, raising alerts, and which windows are being watched."""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from PIL import Image
from sqlalchemy import Connection, Engine, and_, bindparam, select, update
from sqlalchemy.sql.elements import ColumnElement

from consumers.archive import Kind, load
from consumers.database import Prepared, upsert
from consumers.evidence import (
    Probe,
    Probes,
    Window,
    accounted_until,
    entropy_sum,
    fold,
    is_candidate,
    pack,
    raise_alert,
    strip_alarm,
    unpack,
)
from consumers.intake import BootKey
from consumers.ledger import shed_ranges
from consumers.quarantine import Quarantine
from consumers.rows import FrameRow
from consumers.settings import EvidenceRule
from consumers.tables import alerts, dead_letters, evidence, frames, ledgers
from schemas.pointillist_pb2 import CHECKED, Alert
from schemas.ranges import RangeSet

THUMBNAIL_SIDE: Final = 128
_LARGEST_PNG: Final = 4 * 2**20

Pending = dict[Window, Probes]
"""Windows that a transaction changes."""


@dataclass(slots=True)
class Raised:
    """What a transaction decided on watched windows."""

    alerts: list[Alert] = field(default_factory=list)
    done: list[Window] = field(default_factory=list)
    """Windows that need no watching until more is folded into them."""


class Watch:
    """The windows in which enough was flagged that an alert may be due. For the database thread only.

    What is at hand changes in `commit`, after the database has it.
    """

    def __init__(self, engine: Engine, rule: EvidenceRule) -> None:
        self._rule = rule
        self._watched: dict[Window, float] = {}
        insertion = upsert(engine, evidence)
        changed = ("checked", "flagged", "entropy_bits", "probes", "updated_ms")
        folded = insertion.on_conflict_do_update(
            index_elements=list(evidence.primary_key.columns),
            set_={name: insertion.excluded[name] for name in changed},
        )
        self._upsert = Prepared(engine, folded)
        key = (evidence.c.camera == bindparam("of"), evidence.c.boot == bindparam("in_boot"))
        found = select(evidence.c.probes).where(*key, evidence.c.window == bindparam("number"))
        self._select = Prepared(engine, found)
        self._alert = upsert(engine, alerts).on_conflict_do_nothing()

    def load(self, connection: Connection) -> None:
        """Take up the windows that an earlier recorder left undecided."""
        rows = connection.execute(
            select(evidence.c.camera, evidence.c.boot, evidence.c.window).where(
                evidence.c.flagged >= self._rule.min_flagged, ~evidence.c.settled
            )
        )
        self._watched = {Window(*row): time.monotonic() for row in rows}

    def fold(self, connection: Connection, rows: Sequence[FrameRow], now_ms: int) -> Pending:
        """Fold the new rows of `frames` that STRIP checked into their windows."""
        new: defaultdict[Window, list[Probe]] = defaultdict(list)
        for frame in rows:
            if frame.strip == CHECKED:
                window = Window(frame.camera, frame.boot, frame.seq // self._rule.window_frames)
                new[window].append(Probe(frame.seq, frame.entropy_bits, frame.threshold_bits, frame.flagged))
        if not new:
            return {}
        pending: Pending = {}
        for window, probes in new.items():
            known = self._select.run(connection, of=window.camera, in_boot=window.boot, number=window.number)
            row = known.fetchone()
            pending[window] = fold(unpack(row[0]) if row else (), probes)
        self._upsert.run_each(connection, [_evidence_row(window, probes, now_ms) for window, probes in pending.items()])
        return pending

    def overdue(self) -> set[BootKey]:
        """Boots with a window that has waited long enough for a missing frame."""
        before = time.monotonic() - self._rule.patience_s
        return {(window.camera, window.boot) for window, since in self._watched.items() if since <= before}

    def raise_due(
        self, connection: Connection, pending: Pending, touched: Collection[BootKey], now_ms: int, pictures: Quarantine
    ) -> Raised:
        """Decide on the watched windows of the boots that were `touched`; alerts are written, not yet published."""
        raised = Raised()
        candidates = {window for window in self._watched if (window.camera, window.boot) in touched}
        candidates |= {window for window, probes in pending.items() if is_candidate(probes, self._rule)}
        patient_from = time.monotonic() - self._rule.patience_s
        for window in sorted(candidates):
            probes, settled = self._current(connection, window, pending)
            start, last = window.span(self._rule)
            late = window not in pending and self._watched[window] <= patient_from
            if not settled:
                until = accounted_until(window, _accounted(connection, window, start, last), self._rule)
                ordered = [probe for probe in probes if late or probe.seq < until]
                count = strip_alarm(ordered, self._rule)
                if count is not None:
                    alert = raise_alert(window, ordered[:count], now_ms, _thumbnail(window, ordered[:count], pictures))
                    if connection.execute(self._alert, _alert_row(alert)).rowcount:
                        raised.alerts.append(alert)
                settled = count is not None or until > last
                if settled:
                    connection.execute(update(evidence).where(_is(window)).values(settled=True))
            if settled or late:
                raised.done.append(window)
        return raised

    def commit(self, pending: Pending, raised: Raised) -> None:
        """The transaction that `pending` and `raised` were part of is durable."""
        now = time.monotonic()
        for window, probes in pending.items():
            if is_candidate(probes, self._rule):
                self._watched[window] = now
        for window in raised.done:
            self._watched.pop(window, None)

    def _current(self, connection: Connection, window: Window, pending: Pending) -> tuple[Probes, bool]:
        row = connection.execute(select(evidence.c.probes, evidence.c.settled).where(_is(window))).one_or_none()
        if row is None:
            return (), True
        return pending.get(window) or unpack(row.probes), row.settled


def _is(window: Window) -> ColumnElement[bool]:
    key = (evidence.c.camera, evidence.c.boot, evidence.c.window)
    return and_(*(column == value for column, value in zip(key, window, strict=True)))


def _evidence_row(window: Window, probes: Probes, now_ms: int) -> dict[str, object]:
    return {
        "camera": window.camera,
        "boot": window.boot,
        "window": window.number,
        "checked": len(probes),
        "flagged": sum(probe.flagged for probe in probes),
        "entropy_bits": entropy_sum(probes),
        "probes": pack(probes),
        "settled": False,
        "updated_ms": now_ms,
    }


def _alert_row(alert: Alert) -> dict[str, object]:
    return {
        "alert_id": alert.alert_id,
        "camera": alert.camera_id,
        "boot": alert.boot_id,
        "kind": alert.kind,
        "raised_ms": alert.raised_ms,
        "first": alert.frames.first,
        "last": alert.frames.last,
        "checked": alert.checked,
        "flagged": alert.flagged,
        "mean_entropy_bits": alert.mean_entropy_bits,
        "threshold_bits": alert.threshold_bits,
        "message": alert.SerializeToString(),
        "published": False,
    }


def _accounted(connection: Connection, window: Window, start: int, last: int) -> RangeSet:
    """What is known to have become of the window's frames: recorded, dead-lettered or shed."""
    found = RangeSet()
    for table in (frames, dead_letters):
        condition = [table.c.camera == window.camera, table.c.boot == window.boot, table.c.seq.between(start, last)]
        if table is dead_letters:
            condition.append(dead_letters.c.verified)
        for (seq,) in connection.execute(select(table.c.seq).where(*condition).order_by(table.c.seq)):
            found.add(seq)
    for kind in Kind:
        found.update(load(connection, kind, window.camera, window.boot))
    ledger = connection.execute(
        select(ledgers.c.first, ledgers.c.shed).where(ledgers.c.camera == window.camera, ledgers.c.boot == window.boot)
    ).one_or_none()
    if ledger is not None:
        found.add(0, ledger.first - 1)
        found.update(shed_ranges(ledger.shed))
    return found


def _thumbnail(window: Window, probes: Sequence[Probe], pictures: Quarantine) -> bytes:
    """A small PNG of the last flagged frame; empty when its picture was not kept."""
    flagged = max(probe.seq for probe in probes if probe.flagged)
    picture = pictures.read((window.camera, window.boot, flagged))
    if not picture or len(picture) > _LARGEST_PNG:
        return b""
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            small = io.BytesIO()
            image.save(small, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return b""
    return small.getvalue()
