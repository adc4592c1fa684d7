from __future__ import annotations

from dataclasses import replace

import pytest

from consumers.store import OffsetsMoved
from tests.consumers.recorder_rig import Rig, ledger, verdict


def test_offsets_of_a_log_that_was_made_anew_are_set_back_and_no_others(rig: Rig) -> None:
    rig.verdicts(verdict(n) for n in range(3))
    rig.ledger(ledger(1, 5))
    verdicts, events = (rig.settings.verdicts_topic, 0), (rig.settings.events_topic, 0)
    assert rig.store.offsets() == {verdicts: 3, events: 1}
    rig.store.rewind({verdicts: 0})
    assert rig.store.offsets() == {verdicts: 0, events: 1}
    with pytest.raises(OffsetsMoved, match=f"{verdicts[0]} partition 0: expected offset 3"):
        rig.verdicts([verdict(9)])
    rig.offsets = rig.store.offsets()
    rig.verdicts([verdict(9)])
    assert rig.store.offsets() == {verdicts: 1, events: 1}


def test_the_other_partitions_of_a_topic_keep_their_offsets(rig: Rig) -> None:
    rig.verdicts([verdict(0)])
    (record,) = rig.verdict_records([verdict(1)])
    rig.feed([replace(record, partition=1, offset=0)])
    topic = rig.settings.verdicts_topic
    rig.store.rewind({(topic, 1): 0})
    assert rig.store.offsets() == {(topic, 0): 1, (topic, 1): 0}
