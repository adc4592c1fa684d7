from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import pytest
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import NullPool, create_engine, select

from consumers.database.tables import dead_letters
from consumers.recorder.store import OffsetConflictError
from schemas.evidence.rule import EvidenceRule
from schemas.ranges import RangeSet
from tests.consumers.recorder_rig import BOOT, CAMERA, ON_POSTGRESQL, MakeRig, Rig, dead_letter, ledger, verdict


def offsets(rig: Rig) -> dict[tuple[str, int], int]:
    with rig.records() as records:
        return records.offsets()


def test_only_the_offsets_of_a_recreated_log_are_reset(rig: Rig) -> None:
    rig.verdicts(verdict(n) for n in range(3))
    rig.ledger(ledger(1, 5))
    verdicts, events = (rig.settings.verdicts_topic, 0), (rig.settings.events_topic, 0)
    assert offsets(rig) == {verdicts: 3, events: 1}
    found = rig.store.claim({verdicts[0], events[0]}, {verdicts: (0, 2), events: (0, 1)})
    assert found == offsets(rig) == {verdicts: 0, events: 1}
    with pytest.raises(OffsetConflictError, match=f"{verdicts[0]} partition 0: expected offset 3"):
        rig.verdicts([verdict(9)])
    rig.offsets = offsets(rig)
    rig.verdicts([verdict(9)])
    assert offsets(rig) == {verdicts: 1, events: 1}


def test_letters_of_a_recreated_log_are_recorded_besides_those_of_the_earlier_log(rig: Rig) -> None:
    letters, verdicts = (rig.settings.dead_letters_topic, 0), (rig.settings.verdicts_topic, 0)
    malformed = rig.record(verdicts[0], CAMERA.encode(), b"no verdict", "Verdict")
    for n in range(4):
        rig.letter(dead_letter(n, verified=True))
    rig.feed([malformed, replace(malformed, partition=1)])
    rig.offsets |= rig.store.claim({letters[0], verdicts[0]}, {letters: (0, 3), verdicts: (0, 0)})
    assert (rig.offsets[letters], rig.offsets[verdicts]) == (0, 0)
    for n in range(10, 13):
        assert len(rig.letter(dead_letter(n, verified=True)).letters) == 1
    assert len(rig.feed([malformed]).letters) == 1
    rig.offsets |= rig.store.claim({letters[0]}, {letters: (0, 3)})  # the same log
    with rig.records() as records:
        assert records.dead_lettered(CAMERA, BOOT) == RangeSet([(0, 3), (10, 12)])
        assert records.foreign_count() == 3
    with rig.engine.begin() as connection:
        topics = Counter(connection.scalars(select(dead_letters.c.topic)))
    assert topics.pop(letters[0]) == 3
    assert topics.pop(verdicts[0]) == 2  # one is from the partition that was not recreated
    assert sorted((topic.partition("@")[0], count) for topic, count in topics.items()) == [
        (letters[0], 4),
        (verdicts[0], 1),
    ]


def test_the_other_partitions_of_a_topic_keep_their_offsets(rig: Rig) -> None:
    rig.verdicts([verdict(0)])
    (record,) = rig.verdict_records([verdict(1)])
    rig.feed([replace(record, partition=1, offset=0)])
    topic = rig.settings.verdicts_topic
    rig.store.claim({topic}, {(topic, 1): (0, 0)})
    assert offsets(rig) == {(topic, 0): 1, (topic, 1): 0}


def test_a_new_partition_begins_at_the_start_of_its_log(rig: Rig) -> None:
    topic = rig.settings.verdicts_topic
    assert rig.store.claim({topic}, {(topic, 0): (17, 40)}) == {(topic, 0): 17}


def test_the_earlier_recorder_of_a_partition_cannot_write_to_it(make_rig: MakeRig) -> None:
    """Check that a claim alone locks the earlier recorder out, since its records may be old."""
    before, after = make_rig(), make_rig()
    partition = (before.settings.verdicts_topic, 0)
    before.offsets |= before.store.claim({partition[0]}, {partition: (0, 0)})
    before.verdicts([verdict(0)])
    after.offsets |= after.store.claim({partition[0]}, {partition: (0, 1)})
    with pytest.raises(OffsetConflictError):
        before.verdicts([verdict(1)])
    after.verdicts([verdict(1)])
    assert after.count("frames") == 2


def test_only_the_recorder_of_a_partition_reads_frames_that_wait_for_a_missing_one(make_rig: MakeRig) -> None:
    impatient = EvidenceRule(patience_s=0)
    before, after = make_rig(rule=impatient, group="g"), make_rig(rule=impatient, group="g")
    partition = (before.settings.verdicts_topic, 0)
    before.offsets |= before.store.claim({partition[0]}, {partition: (0, 0)})
    before.verdicts(verdict(n, flagged=True, whole=True) for n in range(1, 13))
    assert not after.store.read_on().chains
    after.offsets |= after.store.claim({partition[0]}, {partition: (0, 12)})
    assert before.store.watch.overdue()
    assert not before.store.read_on().chains
    assert not before.store.watch.overdue()  # and does not read them again
    began_ms = time.time_ns() // 10**6
    (alert,) = after.store.read_on().alerts
    assert began_ms <= alert.raised_ms <= time.time_ns() // 10**6
    assert not before.store.read_on().chains


def test_a_failed_claim_keeps_the_partitions_and_offsets(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = rig.settings.verdicts_topic
    claimed, wanted = (topic, 0), (topic, 1)
    rig.offsets |= rig.store.claim({topic}, {claimed: (0, 0)})
    rig.verdicts([verdict(0)])

    def fail(_: object) -> None:
        raise OSError("the database is away")

    with monkeypatch.context() as broken:
        broken.setattr(rig.store, "reload", fail)
        with pytest.raises(OSError, match="away"):
            rig.store.claim({topic}, {claimed: (0, 1), wanted: (0, 0)})
    assert offsets(rig) == {claimed: 1}
    rig.verdicts([verdict(1)])
    assert rig.store.claim({topic}, {claimed: (0, 2), wanted: (5, 9)}) == {claimed: 2, wanted: 5}


def test_an_alert_does_not_wait_for_a_frame_that_another_recorder_has_dead_lettered(make_rig: MakeRig) -> None:
    patient = EvidenceRule(patience_s=600)
    one, other = make_rig(rule=patient, group="g"), make_rig(rule=patient, group="g")
    partition = (one.settings.verdicts_topic, 0)
    one.offsets |= one.store.claim({partition[0]}, {partition: (0, 0)})
    one.verdicts(verdict(n, flagged=True, whole=True) for n in range(1, 13))
    assert not one.store.read_on().chains
    other.letter(dead_letter(0, verified=True))
    assert not other.store.read_on().chains
    assert len(one.store.read_on().alerts) == 1
    assert not one.store.read_on().chains


@ON_POSTGRESQL
def test_a_connection_to_a_read_only_server_is_not_used_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.verdicts([verdict(0)])
    setting = f"ALTER DATABASE {rig.engine.url.database} {{}} default_transaction_read_only {{}}"
    change = create_engine(rig.engine.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        with change.connect() as connection:
            connection.exec_driver_sql(setting.format("SET", "= on"))
        rig.engine.dispose()  # the former connections have ended, as after the failover of a server
        with pytest.raises(ReadOnlySqlTransaction):
            rig.verdicts([verdict(1)])
    finally:
        with change.connect() as connection:
            connection.exec_driver_sql("SET default_transaction_read_only = off")
            connection.exec_driver_sql(setting.format("RESET", ""))
    rig.verdicts([verdict(1)])
    assert rig.count("frames") == 2
