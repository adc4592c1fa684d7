from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.evidence import (
    Probe,
    Window,
    accounted_until,
    entropy_sum,
    fold,
    pack,
    raise_alert,
    strip_alarm,
    unpack,
)
from consumers.settings import EvidenceRule
from schemas.ranges import RangeSet

RULE = EvidenceRule(window_frames=40, min_flagged=3, min_flagged_share=0.5)
WINDOW = Window("lab/door", 77, 2)

probes = st.dictionaries(st.integers(80, 119), st.tuples(st.floats(0, 4, width=32), st.booleans()), max_size=40).map(
    lambda found: [Probe(seq, entropy, 0.5, flag) for seq, (entropy, flag) in found.items()]
)


def _probe(seq: int, flagged: bool) -> Probe:
    return Probe(seq, 0.25 if flagged else 2.0, 0.5, flagged)


@settings(max_examples=100, deadline=None)
@given(probes, st.randoms(use_true_random=False))
def test_any_order_duplication_and_grouping_folds_to_the_same_evidence(found: list[Probe], rng: random.Random) -> None:
    whole = fold((), found)
    stream = found + rng.choices(found, k=len(found)) if found else []
    rng.shuffle(stream)
    folded: tuple[Probe, ...] = ()
    while stream:
        cut = rng.randint(1, len(stream))
        folded, stream = fold(folded, stream[:cut]), stream[cut:]
    assert folded == whole
    assert entropy_sum(folded) == entropy_sum(whole)
    assert strip_alarm(folded, RULE) == strip_alarm(whole, RULE)


@given(probes)
def test_evidence_survives_the_database(found: list[Probe]) -> None:
    folded = fold((), found)
    assert unpack(pack(folded)) == folded


def test_an_alarm_needs_the_count_and_the_share() -> None:
    assert strip_alarm([_probe(n, True) for n in range(2)], RULE) is None
    assert strip_alarm([_probe(n, True) for n in range(9)], RULE) == 3
    assert strip_alarm([_probe(n, n >= 5) for n in range(9)], RULE) is None
    assert strip_alarm([_probe(n, n >= 5) for n in range(12)], RULE) == 10


def test_what_comes_after_the_alarm_does_not_change_it() -> None:
    first = [_probe(80, True), _probe(84, False), _probe(90, True), _probe(95, True)]
    alert = raise_alert(WINDOW, first[: strip_alarm(first, RULE)], 5)
    later = first + [_probe(n, False) for n in range(100, 119)]
    assert raise_alert(WINDOW, later[: strip_alarm(later, RULE)], 5) == alert
    assert (alert.frames.first, alert.frames.last, alert.checked, alert.flagged) == (80, 95, 4, 3)
    assert alert.mean_entropy_bits == (3 * 0.25 + 2.0) / 4


def test_only_frames_up_to_the_first_gap_are_read() -> None:
    assert accounted_until(WINDOW, RangeSet(), RULE) == 80
    assert accounted_until(WINDOW, RangeSet([(81, 119)]), RULE) == 80
    assert accounted_until(WINDOW, RangeSet([(0, 85), (87, 119)]), RULE) == 86
    assert accounted_until(WINDOW, RangeSet([(0, 500)]), RULE) == 120


def test_an_alert_is_named_by_its_window_and_kind() -> None:
    others = [Window("lab/gate", 77, 2), Window("lab/door", 78, 2), Window("lab/door", 77, 3)]
    ids = {WINDOW.alert_id("strip"), WINDOW.alert_id("other"), *(window.alert_id("strip") for window in others)}
    assert len(ids) == 5
    assert WINDOW.alert_id("strip") == Window("lab/door", 77, 2).alert_id("strip")
