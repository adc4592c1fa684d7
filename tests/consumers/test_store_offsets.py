from __future__ import annotations

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
