"""Sightings in the database: the recorder applies the rules to new frames, raises alerts and ends sightings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, select, update

from consumers.database.alerts import alert_row
from consumers.database.engine import upsert
from consumers.database.tables import alerts
from consumers.evidence.chain import alert_id
from consumers.evidence.thumbnails import thumbnail
from consumers.records.batch import FrameKey, finite
from consumers.records.rows import FrameRow
from consumers.sightings.rule import (
    RANGES,
    SIGHTING,
    RuleFrame,
    Sighting,
    SightingRule,
    advance,
    confidence_of,
    lapse,
    not_ahead,
)
from schemas.camera_groups import most_specific
from schemas.keys.sealing import PreviewBox
from schemas.limits import MAX_CAMERAS
from schemas.pointillist_pb2 import Alert, Range, Verdict

_MOST_PICTURES: Final = 512
"""Previews in memory for alerts that may come."""
_MOST_PICTURE_BYTES: Final = 64 * 2**20
_LONGEST_REST_MS: Final = round(1000 * RANGES["cooldown_s"][1])

SightingKey = tuple[str, str]
"""Camera, and class or group."""


class SightingTrack(NamedTuple):
    """The recorder's state of one camera and one class or group."""

    state: Sighting
    partition: int
    """Partition of the camera's verdicts: the recorder that holds it ends the sighting."""
    alert_id: str = ""
    """The last alert; empty before the first."""


@dataclass(slots=True)
class SightingUpdate:
    """The effect of one transaction."""

    alerts: list[Alert] = field(default_factory=list)
    changed: dict[SightingKey, SightingTrack] = field(default_factory=dict)


class Sightings:
    """The state of each camera under the rules. For the database thread only.

    The state in memory changes in `commit`, after the database has it; `find_ended` only corrects times after a clock
    was set back. The alerts of sightings that last and of those whose cool-down may last are in the database. A restart
    forgets only the newest frames.
    """

    def __init__(self, engine: Engine, box: PreviewBox) -> None:
        """`box` seals the thumbnails of alerts."""
        self._box = box
        self._by_wanted: dict[str, dict[str, SightingRule]] = {}
        self._rules: tuple[SightingRule, ...] = ()
        self._of_camera: dict[str, tuple[SightingRule, ...]] = {}
        self._watched: dict[SightingKey, SightingTrack] = {}
        self._pictures: dict[SightingKey, bytes] = {}
        """The newest preview of each camera's agreeing frames. The newest ones come last."""
        self._picture_bytes = 0
        self._insert = upsert(engine, alerts).on_conflict_do_nothing()

    def adopt(self, rules: tuple[SightingRule, ...]) -> None:
        """Replace the rules."""
        if rules == self._rules:
            return
        self._rules, self._by_wanted, self._of_camera = rules, {}, {}
        for rule in rules:
            self._by_wanted.setdefault(rule.wanted, {})[rule.cameras] = rule

    def load(self, connection: Connection, held: Collection[int] | None, now_ms: int) -> None:
        """Load the sightings of an earlier recorder in the partitions `held`; None loads all.

        One that lasts counts as seen at `now_ms`.
        """
        wanted = alerts.c.wanted != ""
        recent = (alerts.c.ended_ms == 0) | (alerts.c.raised_ms > now_ms - _LONGEST_REST_MS)
        columns = alerts.c["camera", "wanted", "partition", "alert_id", "raised_ms", "ended_ms"]
        self._watched = {}
        for row in connection.execute(select(*columns).where(wanted, recent).order_by(alerts.c.raised_ms)):
            if held is None or row.partition in held:
                lasts = not row.ended_ms
                seen_ms = now_ms if lasts else row.ended_ms
                state = Sighting((), max(row.raised_ms, seen_ms), seen_ms, row.raised_ms, lasts)
                self._watched[row.camera, row.wanted] = SightingTrack(
                    not_ahead(state, now_ms), row.partition, row.alert_id
                )

    def read(
        self,
        connection: Connection,
        rows: Sequence[FrameRow],
        verdicts: Mapping[FrameKey, Verdict],
        partitions: Mapping[str, int],
    ) -> SightingUpdate:
        """Apply the rules to new rows of `frames`, in their order, and write unpublished alerts."""
        found = SightingUpdate()
        if not self._rules:
            return found
        for row in rows:
            for rule in self._rules_of(row.camera):
                self._advance(connection, rule, row, verdicts, partitions, found)
        return found

    def _advance(
        self,
        connection: Connection,
        rule: SightingRule,
        row: FrameRow,
        verdicts: Mapping[FrameKey, Verdict],
        partitions: Mapping[str, int],
        found: SightingUpdate,
    ) -> None:
        key = (row.camera, rule.wanted)
        before = found.changed.get(key) or self._watched.get(key)
        verdict = verdicts[row.camera, row.boot, row.seq]
        group_confidence = finite(verdict.group_confidence)
        confidence = confidence_of(rule, row.class_name, row.class_group, row.confidence, group_confidence)
        if before is None:
            if confidence is None:
                return
            before = SightingTrack(Sighting(), 0)
        before = before._replace(state=not_ahead(before.state, row.recorded_ms))
        state = advance(rule, before.state, RuleFrame(row.recorded_ms, row.boot, row.seq, confidence))
        partition = partitions.get(row.camera, before.partition)
        if before.state.lasts and (not state.lasts or state.raised_ms != before.state.raised_ms):
            self._end(connection, before)
        if confidence is not None and not (before.state.lasts and state.lasts):
            self._keep_picture(key, verdict.preview, begins=len(state.recent) == 1)
        after = SightingTrack(state, partition, before.alert_id)
        if state.raised_ms != before.state.raised_ms:
            alert = raised_alert(row, rule.wanted, state, self._pictures.get(key, b""))
            if connection.execute(self._insert, alert_row(alert, partition, self._box)).rowcount:
                found.alerts.append(alert)
            after = after._replace(alert_id=alert.alert_id)
        found.changed[key] = after

    def _keep_picture(self, key: SightingKey, preview: bytes, *, begins: bool) -> None:
        """Keep the preview of an agreeing frame, which `begins` another run of frames or goes on with one."""
        kept = self._drop_picture(key)
        if picture := preview or (b"" if begins else kept):
            self._pictures[key] = picture
            self._picture_bytes += len(picture)
        while len(self._pictures) > _MOST_PICTURES or self._picture_bytes > _MOST_PICTURE_BYTES:
            self._drop_picture(next(iter(self._pictures)))

    def _drop_picture(self, key: SightingKey) -> bytes:
        picture = self._pictures.pop(key, b"")
        self._picture_bytes -= len(picture)
        return picture

    def _rules_of(self, camera: str) -> tuple[SightingRule, ...]:
        """Return the rules of a camera: for each class or group, that of the most specific group of cameras."""
        found = self._of_camera.get(camera)
        if found is None:
            if len(self._of_camera) >= MAX_CAMERAS:
                self._of_camera.clear()
            mine = (most_specific(camera, by_group) for by_group in self._by_wanted.values())
            found = self._of_camera[camera] = tuple(rule for rule in mine if rule is not None)
        return found

    def find_ended(self, now_ms: int) -> dict[SightingKey, SightingTrack]:
        """Return the sightings that have ended by `now_ms`, and those without a rule, in their old state."""
        for key, each in self._watched.items():
            if each.state.at_ms > now_ms:
                self._watched[key] = each._replace(state=not_ahead(each.state, now_ms))
        return {
            key: each
            for key, each in self._watched.items()
            if each.state.lasts and ((rule := self._rule_of(key)) is None or not lapse(rule, each.state, now_ms).lasts)
        }

    def end(self, connection: Connection, over: Iterable[SightingKey]) -> SightingUpdate:
        """Write the end of these sightings."""
        found = SightingUpdate()
        for key in over:
            before = self._watched[key]
            self._end(connection, before)
            found.changed[key] = before._replace(state=before.state._replace(recent=(), lasts=False))
        return found

    def _end(self, connection: Connection, before: SightingTrack) -> None:
        """Write that the sighting of the last alert has ended."""
        mine = alerts.c.alert_id == before.alert_id
        connection.execute(update(alerts).where(mine).values(ended_ms=before.state.seen_ms))

    def _rule_of(self, key: SightingKey) -> SightingRule | None:
        camera, wanted = key
        return next((rule for rule in self._rules_of(camera) if rule.wanted == wanted), None)

    def commit(self, found: SightingUpdate) -> None:
        """Apply `found` in memory: its transaction is durable."""
        self._watched |= found.changed
        for alert in found.alerts:
            self._drop_picture((alert.camera_id, alert.wanted))

    def release(self, partition: int) -> None:
        """Drop the sightings of a partition that another recorder has claimed."""
        self._watched = {key: each for key, each in self._watched.items() if each.partition != partition}

    def purge(self, now_ms: int) -> None:
        """Drop what no rule needs any more: no sighting lasts, no frame agreed lately, and the cool-down is over."""
        self._watched = {key: each for key, each in self._watched.items() if self._is_needed(key, each.state, now_ms)}

    def _is_needed(self, key: SightingKey, state: Sighting, now_ms: int) -> bool:
        rule = self._rule_of(key)
        if rule is None:
            return state.lasts
        rests = state.raised_ms is not None and now_ms - state.raised_ms < 1000 * rule.cooldown_s
        return rests or now_ms - state.seen_ms < 1000 * rule.absent_s or state.lasts


def raised_alert(row: FrameRow, wanted: str, state: Sighting, preview: bytes) -> Alert:
    """Return the alert that the frame `row` raises. Every recorder computes the same id."""
    return Alert(
        alert_id=alert_id(row.camera, row.boot, row.seq, f"{SIGHTING}\0{wanted}"),
        camera_id=row.camera,
        kind=SIGHTING,
        raised_ms=row.recorded_ms,
        boot_id=row.boot,
        frames=Range(first=min(each.seq for each in state.agreeing), last=row.seq),
        class_id=row.class_id,
        thumbnail=thumbnail(preview, "JPEG"),
        wanted=wanted,
        confidence=state.confidence,
    )
