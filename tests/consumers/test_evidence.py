from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.evidence.chain import Chain, alert_id, raise_alert
from schemas.evidence.alarms import COMBINED, KINDS, STRIP, TrackAlarm, Tracks
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, PastFrame, Probe, Track
from schemas.pointillist_pb2 import DISAGREEMENT, TYPICALITY

RULE = EvidenceRule()

probes = st.dictionaries(st.integers(0, 200), st.floats(0, 4, width=32), max_size=60).map(
    lambda found: [Probe(seq, bits, 0.5, bits < 0.5, 1) for seq, bits in found.items()]
)


def attacked(clean: int = 30, every: int = 2) -> list[Probe]:
    """Return probes of every second frame (`every`); a trigger appears after `clean` probes."""
    return [
        Probe(every * n, 1.5 if n < clean else 0.001, 0.5, n >= clean, 2 if n < clean else 7) for n in range(clean + 8)
    ]


def no_fates(first: int, last: int) -> Sequence[int]:
    raise AssertionError("expected that a camera with a baseline is judged by its probes alone")


@settings(max_examples=60, deadline=None)
@given(probes, st.randoms(use_true_random=False))
def test_evidence_does_not_depend_on_order_duplicates_and_batches(found: list[Probe], rng: random.Random) -> None:
    whole, alarms = Chain().fold(found).read(201, RULE, lambda *_: [1] * 20)
    stream = found + rng.choices(found, k=len(found)) if found else []
    rng.shuffle(stream)
    chain, raised = Chain(), list[TrackAlarm]()
    for done in range(0, len(stream), 7):
        chain = chain.fold(stream[done : done + 7])
        # The recorder lets the rule read up to the first missing frame.
        here = {each.seq for each in stream[: done + 7]}
        missing = min((each.seq for each in found if each.seq not in here), default=201)
        chain, new = chain.read(missing, RULE, lambda *_: [1] * 20)
        raised += new
    assert chain == whole or not stream
    assert raised == alarms or not stream


def test_the_first_of_two_probes_of_a_frame_counts_and_reading_never_goes_back() -> None:
    first, second = Probe(3, 1.0, 0.5, False, 1), Probe(3, 0.0, 0.5, True, 2)
    assert Chain().fold([first]).fold([second]).waiting == (first,)
    chain, _ = Chain().read(50, RULE, no_fates)
    assert chain.read(10, RULE, no_fates) == (chain, [])
    assert chain.fold([first]) == chain


def test_the_level_is_the_share_of_the_limit_and_a_camera_is_new_until_it_has_a_baseline() -> None:
    assert Chain(tracks=Tracks(Track(total=RULE.sum.limit / 4))).level(RULE) == 0.25
    enough = Track(history=(PastFrame(0.0, False),) * RULE.baseline_probes)
    few = enough._replace(history=enough.history[1:])
    for kind in KINDS:
        assert not Chain(tracks=Tracks(**{kind: enough})).is_new(RULE)
        assert Chain(tracks=Tracks(**{kind: few})).is_new(RULE)


def test_an_alert_summarizes_its_frames() -> None:
    run = (Probe(4, 0.1, 0.5, True, 3), Probe(6, 0.2, 0.5, True, 7), Probe(8, 0.9, 0.6, False, 7))
    alert = raise_alert("lab/door", 77, TrackAlarm(STRIP, Alarm(run, 9.5, None)), 5, b"picture")
    assert alert.alert_id == alert_id("lab/door", 77, 8)
    assert (alert.frames.first, alert.frames.last) == (4, 8)
    assert (alert.checked, alert.flagged, alert.class_id) == (3, 2, 7)
    assert [alert.mean_entropy_bits, alert.threshold_bits] == pytest.approx([0.4, 0.6])
    assert (alert.evidence_octaves, alert.baseline_bits, alert.thumbnail) == (9.5, 0.0, b"picture")


CLEAN, STRANGE = [0.5, 0.1, 0.9, 0.3] * 6, [2.0**-10, 2.0**-14] * 6


def unusual(p_values: Sequence[float], first: int = 0) -> list[Probe]:
    """Return probes with clean entropies and these p-values."""
    return [
        Probe(n, 1.5, 0.5, each < 0.01, 4, each, 0.01, DISAGREEMENT if n % 3 else TYPICALITY)
        for n, each in enumerate(p_values, first)
    ]


def test_unusual_frames_raise_a_combined_alert_with_the_most_frequent_statistic() -> None:
    chain, alarms = Chain().fold(unusual(CLEAN + STRANGE)).read(100, RULE, no_fates)
    assert [kind for kind, _ in alarms] == [COMBINED]
    assert chain.level(RULE) == 1
    alert = raise_alert("lab/door", 77, alarms[0], 5)
    assert (alert.kind, alert.alert_id) == (COMBINED, alert_id("lab/door", 77, alert.frames.last, COMBINED))
    assert 24 <= alert.frames.first < alert.frames.last < 36
    assert alert.mean_p_value == pytest.approx(2.0**-12, rel=0.5)
    assert alert.p_value_threshold == pytest.approx(0.01)
    assert 0.1 <= alert.baseline_p_value <= 0.9
    assert alert.statistic == DISAGREEMENT
    assert (alert.mean_entropy_bits, alert.threshold_bits, alert.flagged) == (0, 0, alert.checked)


def test_seven_low_p_values_in_ten_raise_an_alert_but_not_one_in_ten() -> None:
    clean = [0.5, 0.2, 0.9, 0.3, 0.8, 0.6, 0.4, 0.7, 0.95]
    often, seldom = ([2.0**-10] * 7 + [0.5] * 3) * 4, [*clean, 2.0**-10] * 30
    assert Chain().fold(unusual(clean * 3 + often)).read(900, RULE, no_fates)[1]
    assert not Chain().fold(unusual(clean * 3 + seldom)).read(900, RULE, no_fates)[1]


def test_low_p_values_from_the_first_frame_on_become_the_baseline() -> None:
    chain, alarms = Chain().fold(unusual([0.005] * 60)).read(100, RULE, lambda *_: [1, 2] * 40)
    assert alarms == []
    assert not chain.is_new(RULE)


def test_a_change_to_a_bundle_with_p_values_begins_a_new_track_without_an_alert() -> None:
    before = attacked()[:-7]  # only the first frame of the trigger; another one would raise an alert
    chain, alarms = Chain().fold(before).read(62, RULE, no_fates)
    assert (alarms, len(chain.tracks.strip.run)) == ([], 1)
    assert Chain().fold(attacked()).read(100, RULE, no_fates)[1]
    low = [each._replace(seq=62 + n, entropy_bits=0.001) for n, each in enumerate(unusual(CLEAN))]
    chain, alarms = chain.fold(low[:1]).read(63, RULE, no_fates)
    assert (alarms, chain.tracks.strip, chain.level(RULE)) == ([], Track(), 0)
    assert chain.is_new(RULE)
    chain, alarms = chain.fold(low).read(100, RULE, no_fates)
    assert alarms == []
    assert not chain.is_new(RULE)


def test_an_episode_ends_with_a_change_to_a_bundle_without_p_values() -> None:
    chain, alarms = Chain().fold(unusual(CLEAN + STRANGE)).read(36, RULE, no_fates)
    assert alarms
    chain, alarms = chain.fold([Probe(36, 1.5, 0.5, False, 4)]).read(100, RULE, no_fates)
    assert (alarms, chain.tracks.combined) == ([], Track())
    assert chain.level(RULE) < 1


def test_the_id_of_an_alert_depends_on_its_camera_boot_frame_and_kind() -> None:
    ids = {alert_id("a/b", 1, 2), alert_id("a/c", 1, 2), alert_id("a/b", 2, 2), alert_id("a/b", 1, 3)}
    ids.add(alert_id("a/b", 1, 2, "other"))
    assert len(ids) == 5
    assert alert_id("a/b", 1, 2) in ids
    assert alert_id("a/b", 1, 2) == "4c50e2972a8f106f61630b46c747fc33"


def passing_scenes() -> list[Probe]:
    """Return probes of changing scenes: another class every third frame, and clean entropies that vary much."""
    return [Probe(n, (1.7, 2.0, 0.9, 1.4)[n // 3 % 4], 0.338, False, n // 3 % 4) for n in range(40)]


def test_flagged_frames_do_not_end_an_episode_of_a_camera_with_changing_scenes() -> None:
    """Replay a measurement in front of a sticker: eleven flagged frames near 0.1 bit among hundreds near 0."""
    bits = [0.001] * 20 + [0.105, 0.103, 0.076, 0.114, 0.095, 0.094, 0.119, 0.103, 0.102, 0.129, 0.111] + [0.001] * 20
    sticker = [Probe(40 + n, found, 0.338, True, 7) for n, found in enumerate(bits)]
    _, alarms = Chain().fold(passing_scenes() + sticker).read(999, RULE, no_fates)
    assert len(alarms) == 1
    calm = [each._replace(seq=100 + each.seq) for each in passing_scenes()]
    again = [each._replace(seq=160 + each.seq) for each in sticker]
    _, alarms = Chain().fold(passing_scenes() + sticker + calm + again).read(999, RULE, no_fates)
    assert len(alarms) == 2, "clean frames end the episode, and a later sticker raises another alert"
