from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import select

from consumers.database.alerts import stored_alert
from consumers.database.queries import open_records
from consumers.database.tables import alerts, dead_letters, evidence, ledgers, versions
from consumers.recorder.alerts import count_unpublished, mark_published, unpublished
from consumers.recorder.purge import purge
from consumers.recorder.store import OffsetConflictError
from consumers.settings import Bounds
from infra.audit.report import with_clean_accuracy
from schemas.errors import StateError
from schemas.evidence.rule import EvidenceRule
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.camera_status import LAST_MESSAGE
from schemas.messages.frame import Truth, sign_message
from schemas.pointillist_pb2 import (
    DEGRADED,
    NO_STATISTIC,
    OFFLINE,
    ONLINE,
    PAUSED,
    SHED,
    TYPICALITY,
    Alert,
    Ledger,
    Meta,
    Status,
    Turn,
    Verdict,
    Window,
)
from schemas.ranges import RangeSet
from tests.consumers.recorder_rig import (
    BOOT,
    CAMERA,
    PNG,
    RECORDER_KEYS,
    MakeRig,
    Rig,
    dead_letter,
    ledger,
    signed,
    verdict,
)

ATTACK = [verdict(n, flagged=n > 40 if n % 2 else None, whole=n % 2 == 1) for n in range(60)]
"""Verdicts that raise an alert. Odd frames are probes, flagged after frame 40; the second flagged one raises it."""


def test_every_identity_is_recorded_once_despite_duplicates(rig: Rig) -> None:
    written = rig.verdicts(verdict(n) for n in (0, 1, 2, 2, 1))
    assert [row.seq for row in written.rows] == [0, 1, 2]
    assert written.duplicates == 2
    rig.verdicts(verdict(n) for n in (2, 3, 3))
    rig.verdicts([verdict(3)], camera="lab/gate")
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == RangeSet([(0, 3)])
        assert records.recorded("lab/gate", BOOT) == RangeSet([(3, 3)])
        assert records.duplicates() == 4
        assert records.duplicates_by_boot([CAMERA]) == {(CAMERA, BOOT): 4}
        assert records.duplicates_by_boot(["lab/gate"]) == {}
        assert records.boots() == {(CAMERA, BOOT), ("lab/gate", BOOT)}


def test_a_batch_larger_than_one_statement_is_recorded_completely(rig: Rig) -> None:
    written = rig.verdicts(verdict(n) for n in range(300))
    assert [row.seq for row in written.rows] == list(range(300))
    assert written.duplicates == 0


def test_a_batch_is_rejected_after_another_recorder_has_moved_the_offsets(make_rig: MakeRig) -> None:
    first, second = make_rig(), make_rig()
    records = first.verdict_records([verdict(0)])
    first.feed(records)
    with pytest.raises(OffsetConflictError):
        second.feed(records)
    second.offsets |= first.offsets
    second.feed(second.verdict_records([verdict(1)]))
    with pytest.raises(OffsetConflictError):
        first.feed(first.verdict_records([verdict(7)]))
    with first.records() as read:
        assert read.recorded(CAMERA, BOOT) == RangeSet([(0, 1)])
        assert read.duplicates() == 0


def test_a_failed_transaction_writes_nothing_and_can_be_retried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    records = rig.verdict_records(ATTACK)
    with monkeypatch.context() as patch:
        patch.setattr(rig.store.tallies, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rig.feed(records)
    assert rig.count("frames") == rig.count("evidence") == rig.count("offsets") == 0
    written = rig.feed(records)
    assert len(written.rows) == 60
    assert len(written.alerts) == 1


def test_a_replay_of_a_purged_frame_is_a_duplicate(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(database_rows=5, purge_rows=4))
    rig.verdicts(verdict(n) for n in range(10))
    while purge(rig.store, rig.bounds):
        pass
    assert rig.count("frames") == 5
    rig.verdicts(verdict(n) for n in range(12))
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == RangeSet([(0, 11)])
        assert records.duplicates() == 10
    rig.close()
    rig.open()
    assert rig.verdicts([verdict(0)]).duplicates == 1


def test_a_purge_by_bytes_keeps_the_newest_frames(make_rig: MakeRig) -> None:
    bounds = Bounds(database_bytes=300 * 1024, purge_rows=200)
    rig = make_rig(bounds=bounds)
    for start in range(0, 3000, 500):
        rig.verdicts(verdict(n) for n in range(start, start + 500))
        while purge(rig.store, bounds):
            pass
    left = rig.count("frames")
    assert 100 < left < 1500
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == RangeSet([(0, 2999)])
        assert records.byte_sums().frames == left


def test_the_highest_revision_of_a_ledger_wins(rig: Rig) -> None:
    for revision, following in ((1, 5), (3, 9), (2, 7)):
        rig.ledger(ledger(revision, following, [(1, 2)]))
    with rig.records() as records:
        (row,) = records.ledgers()
    assert (row.camera, row.boot, row.revision, row.next) == (CAMERA, BOOT, 3, 9)
    assert [(shed.first, shed.last) for shed in Ledger.FromString(row.message).shed] == [(1, 2)]


def test_dead_letters_count_as_identities_or_as_foreign_also_after_a_purge(make_rig: MakeRig) -> None:
    rig = make_rig()
    for seq in (4, 5, 5):
        rig.letter(dead_letter(seq, verified=True))
    for seq in range(3):
        rig.letter(dead_letter(seq, verified=False, camera_id="<script>\0", error="\0"))

    def check() -> None:
        with rig.records() as records:
            assert records.dead_lettered(CAMERA, BOOT) == RangeSet([(4, 5)])
            assert records.foreign_count() == 3
            assert records.boots() == {(CAMERA, BOOT)}

    check()
    while purge(rig.store, Bounds(dead_letter_bytes=0, foreign_letter_bytes=0, purge_rows=2)):
        pass
    assert rig.count("dead_letters") == 0
    held = rig.store.bytes_held()
    assert held["dead_letters"] == held["foreign_letters"] == 0
    check()


def test_flagged_frames_are_in_quarantine_before_the_verdict_is_committed(rig: Rig) -> None:
    rig.verdicts([verdict(0), verdict(1, flagged=False), verdict(2, flagged=True)])
    folder = rig.folder / "quarantine" / CAMERA
    assert sorted(path.name for path in folder.iterdir()) == [f"{BOOT:016x}-2.json", f"{BOOT:016x}-2.png.sealed"]
    assert rig.store.quarantine.read((CAMERA, BOOT, 2)) == PNG
    assert json.loads((folder / f"{BOOT:016x}-2.json").read_text())["class_name"] == "stop"


def test_the_recording_time_is_later_than_a_slow_quarantine_write(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the order of the write and `recorded_ms`, since readers expect the commit soon after `recorded_ms`."""
    files = rig.store.quarantine._files
    called: list[Callable[..., Any]] = []

    def slow(call: Callable[..., Any], *arguments: Any) -> Any:
        time.sleep(0.02)
        called.append(call)
        return call(*arguments)

    for name in ("pipe_file", "cat_file"):
        monkeypatch.setattr(files, name, partial(slow, getattr(files, name)))
    events, letters = rig.settings.events_topic, rig.settings.dead_letters_topic
    other = rig.record(events, CAMERA.encode(), signed(ledger(1, 5)), "Ledger")
    letter = rig.record(letters, CAMERA.encode(), dead_letter(9, verified=False).SerializeToString(), "DeadLetter")
    records = [*rig.verdict_records(ATTACK), other, letter]
    begun_ms = time.time_ns() // 10**6
    written = rig.feed(records)
    assert len(_alerts(rig)) == 1
    assert len(called) == 2 * len(list((rig.folder / "quarantine").rglob("*.png.sealed"))) > 0
    assert min(row.recorded_ms for row in written.rows) >= begun_ms + 20 * len(called)
    with rig.engine.begin() as connection:
        others = (
            *connection.scalars(select(ledgers.c.taken_ms)),
            *connection.scalars(select(dead_letters.c.recorded_ms)),
        )
    assert len(others) == 2
    assert min(others) >= begun_ms + 20 * len(called)


@pytest.mark.parametrize("store_is_away", [False, True])
def test_an_alert_whose_wait_expired_during_a_restart_is_raised_with_or_without_its_picture(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, store_is_away: bool
) -> None:
    rig = make_rig(rule=EvidenceRule(patience_s=0))
    rig.verdicts(ATTACK[1:])
    rig.close()
    rig.open()
    if store_is_away:
        monkeypatch.setattr(rig.store.quarantine, "read", Mock(side_effect=ConnectionError("refused")))
    [alert] = rig.store.read_on().alerts
    assert bool(alert.thumbnail) != store_is_away


def test_the_picture_of_a_delayed_alert_is_not_read_inside_the_transaction(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = rig.store.quarantine._files
    late, *others = ATTACK
    rig.verdicts(others)
    assert not _alerts(rig)
    monkeypatch.setattr(files, "cat_file", lambda path: pytest.fail(f"read {path}"))
    rig.verdicts([late])
    (alert,) = _alerts(rig)
    assert alert.thumbnail


@pytest.mark.parametrize("store_is_away", [False, True])
def test_an_alert_delayed_over_a_restart_has_its_picture_if_the_quarantine_can_be_read(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, store_is_away: bool
) -> None:
    rig = make_rig()
    late, *others = ATTACK
    rig.verdicts(others)
    rig.close()
    rig.open()
    if store_is_away:
        monkeypatch.setattr(rig.store.quarantine, "read", Mock(side_effect=ConnectionError("refused")))
    written = rig.verdicts([late])
    assert (len(written.rows), rig.count("frames")) == (1, len(ATTACK))
    (alert,) = _alerts(rig)
    assert bool(alert.thumbnail) != store_is_away


@pytest.mark.parametrize("rows", [1, 0])
def test_a_replayed_frame_is_not_quarantined_again(make_rig: MakeRig, rows: int) -> None:
    bounds = Bounds(database_rows=1, quarantine_bytes=0)
    rig = make_rig(bounds=bounds)
    rig.verdicts([verdict(0, flagged=True)])
    if not rows:
        rig.verdicts([verdict(1)])
    while purge(rig.store, bounds):
        pass
    assert rig.count("quarantine") == 0
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == RangeSet([(0, 1 - rows)])
    assert rig.verdicts([verdict(0, flagged=True)]).duplicates == 1
    assert rig.count("quarantine") == 0
    assert not list((rig.folder / "quarantine").rglob("*.*"))


def test_the_quarantine_is_bounded_and_its_oldest_pictures_are_deleted_first(make_rig: MakeRig) -> None:
    rig = make_rig()
    for seq in range(6):
        rig.verdicts([verdict(seq, flagged=True)])
    held = rig.store.bytes_held()["quarantine"]
    bounds = Bounds(quarantine_bytes=held // 2)
    assert not purge(rig.store, bounds)
    names = {path.name for path in (rig.folder / "quarantine").rglob("*.png.sealed")}
    assert names == {f"{BOOT:016x}-{seq}.png.sealed" for seq in (3, 4, 5)}
    assert rig.store.bytes_held()["quarantine"] <= held // 2


def _alerts(rig: Rig) -> list[Alert]:
    return [stored_alert(due.message, lambda: RECORDER_KEYS.previews) for due in unpublished(rig.engine)]


def test_flagged_probes_raise_one_alert(make_rig: MakeRig) -> None:
    rig = make_rig()
    for message in ATTACK:
        rig.verdicts([message, message])
    (alert,) = _alerts(rig)
    assert (alert.camera_id, alert.boot_id, alert.kind) == (CAMERA, BOOT, "strip")
    assert (alert.flagged, alert.checked, alert.class_id) == (2, 2, 3)
    assert alert.baseline_bits == pytest.approx(1.5)
    assert alert.evidence_octaves >= EvidenceRule().sum.limit
    assert alert.thumbnail.startswith(b"\x89PNG")
    rig.close()
    rig.open()
    rig.verdicts(ATTACK)
    mark_published(rig.engine, [alert.alert_id])
    assert _alerts(rig) == []
    with rig.records() as records:
        assert records.alert_count() == 1


def test_an_alert_names_the_window_on_which_the_label_depends(rig: Rig) -> None:
    windows = [
        Window(left=0, top=0, right=16, bottom=16, dependence=0.02),
        Window(left=16, top=0, right=32, bottom=16, dependence=0.97),
    ]
    for message in ATTACK:
        changed = Verdict.FromString(message.SerializeToString())
        changed.certified_patch = 5
        changed.windows.extend(windows)
        rig.verdicts([changed])
    (alert,) = _alerts(rig)
    assert alert.window == windows[1]


def test_an_alert_names_no_window_on_which_the_label_does_not_depend(rig: Rig) -> None:
    for message in ATTACK:
        changed = Verdict.FromString(message.SerializeToString())
        changed.certified_patch = 5
        changed.windows.extend(Window(left=left, top=0, right=left + 16, bottom=16) for left in (0, 16))
        rig.verdicts([changed])
    (alert,) = _alerts(rig)
    assert not alert.HasField("window")


def test_unusual_frames_raise_an_alert_by_their_p_values(rig: Rig) -> None:
    for seq in range(60):
        found = Verdict(p_value=0.5 if seq < 36 else 2.0**-12, p_value_threshold=0.002, statistic=TYPICALITY)
        found.MergeFrom(verdict(seq, flagged=seq >= 36, entropy_bits=1.5))
        rig.verdicts([found])
    (alert,) = _alerts(rig)
    assert alert.kind == "combined"
    assert alert.mean_p_value == pytest.approx(2.0**-12)
    assert alert.baseline_p_value == pytest.approx(0.5)
    assert alert.flagged == alert.checked
    assert alert.statistic == TYPICALITY
    with rig.engine.begin() as connection:
        (row,) = connection.execute(select(alerts)).all()
    figures = (row.mean_p_value, row.p_value_threshold, row.baseline_p_value, row.statistic)
    assert figures == pytest.approx((alert.mean_p_value, 0.002, alert.baseline_p_value, TYPICALITY))


def test_unusual_frames_of_one_scene_raise_no_alert_until_another_is_unusual_too(rig: Rig) -> None:
    for seq in range(80):
        found = Verdict(p_value=0.5 if seq < 36 else 2.0**-12, p_value_threshold=0.002, statistic=TYPICALITY)
        found.scene = 0 if seq < 36 else 36 if seq < 70 else 70
        found.MergeFrom(verdict(seq, flagged=seq >= 36, entropy_bits=1.5))
        rig.verdicts([found])
        assert len(_alerts(rig)) == (seq > 71)


def test_a_statistic_of_a_later_release_is_recorded_as_none(rig: Rig) -> None:
    found = verdict(0, flagged=True, p_value=0.001, p_value_threshold=0.002)
    found.statistic = 300  # type: ignore[assignment]
    (row,) = rig.verdicts([found]).rows
    assert row.p_value_threshold == pytest.approx(0.002)
    assert row.statistic == NO_STATISTIC


def test_alerts_and_evidence_do_not_depend_on_the_order_of_frames(make_rig: MakeRig) -> None:
    rng = random.Random(5)
    rig = make_rig()
    found = []
    for boot in range(1, 6):
        stream = [_with_boot(message, boot) for message in ATTACK * 2]
        if boot > 1:
            rng.shuffle(stream)
        for start in range(0, len(stream), 7):
            rig.verdicts(stream[start : start + 7])
        with rig.engine.begin() as connection:
            columns = (evidence.c.following, evidence.c.waiting, evidence.c.track)
            row = connection.execute(select(*columns).where(evidence.c.boot == boot)).one()
        (alert,) = [alert for alert in _alerts(rig) if alert.boot_id == boot]
        found.append((tuple(row), alert.frames, alert.checked, alert.flagged, alert.mean_entropy_bits))
    assert all(each == found[0] for each in found)


def test_an_alert_waits_for_a_missing_frame_until_its_fate_is_known(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.verdicts(message for message in ATTACK if message.seq not in (2, 4))
    assert _alerts(rig) == []
    rig.letter(dead_letter(2, verified=False))
    assert _alerts(rig) == []
    rig.letter(dead_letter(2, verified=True))
    assert _alerts(rig) == []
    rig.ledger(ledger(1, 60, [(4, 4)]))
    assert len(_alerts(rig)) == 1


def test_an_alert_is_raised_without_the_missing_frame_after_patience_s(make_rig: MakeRig) -> None:
    rig = make_rig(rule=EvidenceRule(patience_s=0))
    rig.verdicts(ATTACK[1:])
    assert _alerts(rig) == []
    rig.close()
    rig.open()
    assert [alert.kind for alert in rig.store.read_on().alerts] == ["strip"]
    assert rig.store.read_on().alerts == []
    rig.verdicts(ATTACK)
    assert len(_alerts(rig)) == 1


def test_an_unpublished_alert_is_not_purged(make_rig: MakeRig) -> None:
    rig = make_rig()
    for boot in (1, 2, 3):
        rig.verdicts(_with_boot(message, boot) for message in ATTACK)
    first = _alerts(rig)[0]
    mark_published(rig.engine, [first.alert_id])
    purge(rig.store, Bounds(alert_rows=1))
    assert first.alert_id not in {alert.alert_id for alert in _alerts(rig)}
    assert len(_alerts(rig)) == 2
    with rig.records() as records:
        assert records.alert_count() == 3


def test_unpublished_alerts_are_read_page_by_page_to_the_last(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for boot in range(1, 6):
        rig.verdicts(_with_boot(message, boot) for message in ATTACK)
    monkeypatch.setattr("consumers.recorder.alerts._AT_ONCE", 2)
    assert count_unpublished(rig.engine) == 5
    seen, page = [], unpublished(rig.engine)
    while page:
        seen += [each.alert_id for each in page]
        page = unpublished(rig.engine, page[-1])
    assert len(seen) == len(set(seen)) == 5
    mark_published(rig.engine, seen[3:])
    assert [each.alert_id for each in unpublished(rig.engine)] == seen[:2]
    assert count_unpublished(rig.engine) == 3


def _with_boot(message: Verdict, boot: int) -> Verdict:
    copy = Verdict()
    copy.CopyFrom(message)
    copy.boot_id = boot
    return copy


class CameraEvents:
    """Statuses and metas of cameras, fed to a store."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def status(self, state: int, boot: int, turn: tuple[int, int], at_ms: int, camera: str = CAMERA) -> bytes:
        signed_turn = Turn(connection=turn[0], message=turn[1], at_ms=at_ms)
        message = Status(state=state, boot_id=boot, turn=signed_turn)  # type: ignore[arg-type]  # an enum's number
        return self.feed(signed(message, camera), "Status", camera)

    def meta(self, share: float, boot: int, turn: tuple[int, int], at_ms: int, camera: str = CAMERA) -> bytes:
        signed_turn = Turn(connection=turn[0], message=turn[1], at_ms=at_ms)
        return self.feed(signed(Meta(boot_id=boot, probe_share=share, turn=signed_turn), camera), "Meta", camera)

    def feed(self, payload: bytes, kind: str, camera: str = CAMERA) -> bytes:
        self._rig.feed([self._rig.record(self._rig.settings.events_topic, camera.encode(), payload, kind)])
        return payload

    def state_and_share(self) -> tuple[str, float | None]:
        (camera,) = self._rig.cameras.all()
        return camera.judge(0, 10).state.value, camera.probe_share()


def test_a_late_last_will_ends_only_its_own_connection(rig: Rig) -> None:
    events = CameraEvents(rig)
    events.status(ONLINE, 1, (1, 1), 100)
    will = events.status(OFFLINE, 1, (1, LAST_MESSAGE), 99)
    assert events.state_and_share()[0] == "offline"
    events.status(ONLINE, 1, (2, 1), 110)
    assert events.state_and_share()[0] == "silent"
    events.feed(will, "Status")
    assert events.state_and_share()[0] == "silent"
    events.status(ONLINE, 2, (1, 1), 200)
    events.status(OFFLINE, 1, (2, LAST_MESSAGE), 109)
    assert events.state_and_share()[0] == "silent"


def test_a_replayed_event_of_a_camera_changes_nothing(rig: Rig) -> None:
    events = CameraEvents(rig)
    old = events.meta(0.0, 1, (1, 1), 100)
    older = events.meta(0.9, 1, (1, 2), 101)
    events.meta(0.5, 1, (1, 3), 102)
    events.feed(old, "Meta")
    assert events.state_and_share()[1] == 0.5
    events.meta(0.6, 2, (1, 1), 200)
    events.feed(older, "Meta")
    assert events.state_and_share()[1] == 0.6


def test_a_replayed_event_of_an_ended_boot_changes_nothing_even_if_its_clock_was_ahead(rig: Rig) -> None:
    events, now_ms = CameraEvents(rig), time.time_ns() // 10**6
    meta = events.meta(0.9, 1, (1, 1), now_ms + 10**10)
    fault = events.status(DEGRADED, 1, (1, 2), now_ms + 10**10)
    assert events.state_and_share() == ("degraded", 0.9)
    rig.ledger(Ledger(boot_id=1, revision=2, next=1, closed=True))
    events.meta(0.4, 2, (1, 1), now_ms + 10_000)
    events.status(PAUSED, 2, (1, 2), now_ms + 10_000)
    events.feed(meta, "Meta")
    events.feed(fault, "Status")
    assert events.state_and_share() == ("paused", 0.4)


def test_the_first_event_of_an_ended_boot_counts_after_the_end_of_the_boot_before(rig: Rig) -> None:
    events = CameraEvents(rig)
    events.meta(0.4, 1, (1, 1), 100)
    for boot in (1, 2):
        rig.ledger(Ledger(boot_id=boot, revision=2, next=1, closed=True))
    events.meta(0.6, 2, (1, 1), 200)
    assert events.state_and_share()[1] == 0.6


def test_the_events_of_a_short_boot_count_if_they_are_recorded_together_with_its_last_ledger(rig: Rig) -> None:
    events = CameraEvents(rig)
    events.meta(0.4, 1, (1, 1), 100)
    meta = signed(Meta(boot_id=2, probe_share=0.6, turn=Turn(connection=1, message=1, at_ms=200)))
    last = signed(Ledger(boot_id=2, revision=2, next=1, closed=True))
    topic, key = rig.settings.events_topic, CAMERA.encode()
    start = rig.offsets[topic, 0]
    rig.feed([rig.record(topic, key, meta, "Meta", start), rig.record(topic, key, last, "Ledger", start + 1)])
    assert events.state_and_share()[1] == 0.6


def test_events_of_a_camera_whose_clock_was_ahead_are_accepted_once_it_is_right(rig: Rig) -> None:
    events, now_ms = CameraEvents(rig), time.time_ns() // 10**6
    events.meta(0.2, 1, (1, 1), now_ms + 10**10)
    events.meta(0.4, 2, (1, 1), now_ms + 10_000)
    assert events.state_and_share()[1] == 0.4


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Meta", Meta(boot_id=1, probe_share=0.5)),
        ("Status", Status(boot_id=1, state=OFFLINE)),
        ("Ledger", ledger(10**6, 10**6)),
    ],
)
def test_an_event_without_the_signature_of_its_camera_becomes_only_a_dead_letter(
    make_rig: MakeRig, kind: str, message: Meta | Status | Ledger
) -> None:
    rig = make_rig()
    rig.verdicts([verdict(0)])
    stranger = KeyRing(b"the secret of another fleet").current(CameraId(CAMERA))
    for payload in (message.SerializeToString(), sign_message(stranger, message), signed(message, "lab/gate")):
        written = rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), payload, kind)])
        assert [letter.reason for letter in written.letters] == ["bad_tag"]
    assert rig.count("ledgers") == rig.count("cameras") == 0


@pytest.mark.parametrize("fps", [math.nan, 1e300])
def test_an_invalid_frame_rate_is_rejected_even_with_a_valid_signature(make_rig: MakeRig, fps: float) -> None:
    rig = make_rig()
    payload = signed(Meta(boot_id=1, frames_per_second=fps, probe_share=0.5))
    written = rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), payload, "Meta")])
    assert [letter.reason for letter in written.letters] == ["malformed"]
    assert "frames per second" in written.letters[0].error


def test_invented_cameras_are_deleted_and_real_ones_kept(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(strangers=3, purge_rows=100))
    rig.verdicts([verdict(0)])
    topic = rig.settings.events_topic
    for n in range(20):
        rig.feed([rig.record(topic, f"evil/cam{n}".encode(), signed(Meta(boot_id=1), f"evil/cam{n}"), "Meta")])
    purge(rig.store, rig.bounds)
    assert rig.count("cameras") == 3
    names = [camera.name for camera in rig.cameras.all()]
    assert CAMERA in names
    assert len(names) <= 7


def test_a_new_fleet_keeps_its_statuses_before_the_first_frames(make_rig: MakeRig) -> None:
    rig = make_rig()
    topic, names = rig.settings.events_topic, [f"site/cam-{n}" for n in range(1_100)]
    rig.feed([rig.record(topic, name.encode(), signed(Meta(boot_id=1), name), "Meta") for name in names])
    purge(rig.store, rig.bounds)
    assert rig.count("cameras") == len(names)


def test_the_report_reads_latency_accuracy_bytes_and_probes(rig: Rig) -> None:
    verdicts = [verdict(n, captured_ms=1_000_000) for n in range(100)]
    verdicts[0].class_id = 9
    verdicts[1].truth = 1 + 2 * 3 + 1
    verdicts[2].strip = SHED
    verdicts[3].truth = 0
    verdicts[4].truth = Truth(3, attacked=True).to_wire()
    verdicts[5].truth = Truth(4, sticker=True, attacked=True).to_wire()
    rig.verdicts(verdicts)
    rig.verdicts([verdict(100, flagged=True), verdict(101, flagged=False), verdict(102, captured_ms=2**52)])
    with rig.records() as records:
        accuracy = records.accuracy(until_ms=1_000_001)
        assert accuracy == (96, 95, 1, 1, 2, 1)
        sums = records.byte_sums(of=[(CAMERA, BOOT)])
        assert (sums.frames, sums.frame_bytes, sums.raw_bytes) == (103, 103 * 1768, 103 * 32 * 24 * 3)
        assert records.byte_sums(of=[]).frames == 0
        assert records.strip_counts() == (2, 1, 1)
        latency = records.latency_quantiles(since_ms=1_000_001)
        assert (latency.frames, latency.negative) == (2, 1)
        assert latency.p99 is not None
        assert 0 < latency.p99 < 60
        assert records.latency_quantiles(until_ms=5).p50 is None


def test_tables_of_another_version_are_rejected(rig: Rig) -> None:
    with rig.engine.begin() as connection:
        connection.execute(versions.update().values(version_num="99"))
    with rig.records() as records, pytest.raises(StateError, match="99"):
        records.check_version()
    rig.close()
    with pytest.raises(StateError, match="99"):
        rig.open()


def test_reading_a_missing_database_raises_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="is missing"):
        open_records(f"sqlite:///{tmp_path}/absent.sqlite")
    assert not list(tmp_path.iterdir())


def test_flagged_frames_are_counted_apart_with_and_without_the_sticker(rig: Rig) -> None:
    clean, sticker = 1 + 2 * 3, 2 + 2 * 3
    rig.verdicts(verdict(n, flagged=n < 1, truth=clean) for n in range(5))
    rig.verdicts(verdict(n, flagged=n < 12, truth=sticker) for n in range(10, 13))
    rig.verdicts([verdict(20, truth=sticker), verdict(21, flagged=True, truth=0)])
    with rig.records() as records:
        # `verdict` takes a truth of 0 for none given: frame 21 has the truth of a clean frame.
        found = records.strip_truth()
        assert (found.sticker, found.sticker_flagged) == (3, 2)
        rig.verdicts(verdict(n, flagged=True, truth=Truth(3, n > 31, attacked=True).to_wire()) for n in range(30, 34))
        assert records.strip_truth() == found
        assert (found.clean - 1, found.clean_flagged - 1) == (5, 1)


def test_accuracy_under_attack_is_reported_by_camera_next_to_its_clean_accuracy(rig: Rig) -> None:
    attacked = Truth(3, attacked=True).to_wire()
    rig.verdicts(verdict(n, truth=attacked, class_id=3 if n < 2 else 5) for n in range(6))
    rig.verdicts(verdict(n, class_id=5 if n == 10 else 3) for n in range(10, 14))
    rig.verdicts([verdict(n) for n in range(4)], camera="lab/gate")
    rig.verdicts([verdict(n, boot=7, truth=attacked) for n in range(2)])
    with rig.records() as records:
        found = records.accuracy_under_attack()
        assert found == {CAMERA: (4, 3, 0, 0, 8, 4)}
        assert records.accuracy_under_attack(of=[(CAMERA, BOOT)]) == {CAMERA: (4, 3, 0, 0, 6, 2)}
        assert records.accuracy_under_attack(of=[("lab/gate", BOOT)]) == {}
    assert with_clean_accuracy(found[CAMERA]) == {"frames": 8, "accuracy": 0.5, "accuracy_clean": 0.75}


def test_alerts_are_counted_by_camera(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.verdicts(ATTACK)
    rig.verdicts(ATTACK, camera="lab/gate")
    rig.verdicts([_with_boot(message, 9) for message in ATTACK], camera="lab/gate")
    with rig.records() as records:
        assert records.alerts_by_camera() == {CAMERA: 1, "lab/gate": 2}
        assert records.alerts_by_camera(2**60) == {}
