from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.evidence.chain import Chain, alert_id, raise_alert
from schemas.evidence.alarms import DISAGREEMENT, STRIP, TYPICALITY, Found, Tracks
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, Past, Probe, Track

RULE = EvidenceRule()

probes = st.dictionaries(st.integers(0, 200), st.floats(0, 4, width=32), max_size=60).map(
    lambda found: [Probe(seq, bits, 0.5, bits < 0.5, 1) for seq, bits in found.items()]
)


def attacked(clean: int = 30, every: int = 2) -> list[Probe]:
    """A camera whose every second frame is checked; a trigger appears after `clean` of them."""
    return [
        Probe(every * n, 1.5 if n < clean else 0.001, 0.5, n >= clean, 2 if n < clean else 7) for n in range(clean + 8)
    ]


def nobody(first: int, last: int) -> Sequence[int]:
    raise AssertionError("expected that a camera with a baseline is judged by its probes alone")


@settings(max_examples=60, deadline=None)
@given(probes, st.randoms(use_true_random=False))
def test_any_order_duplication_and_grouping_ends_in_the_same_evidence(found: list[Probe], rng: random.Random) -> None:
    whole, alarms = Chain().fold(found).read(201, RULE, lambda *_: [1] * 20)
    stream = found + rng.choices(found, k=len(found)) if found else []
    rng.shuffle(stream)
    chain, raised = Chain(), list[Found]()
    for done in range(0, len(stream), 7):
        chain = chain.fold(stream[done : done + 7])
        # As far as every frame is there, as the recorder lets the rule read.
        here = {each.seq for each in stream[: done + 7]}
        missing = min((each.seq for each in found if each.seq not in here), default=201)
        chain, new = chain.read(missing, RULE, lambda *_: [1] * 20)
        raised += new
    assert chain == whole or not stream
    assert raised == alarms or not stream


def test_of_two_reports_on_a_frame_the_first_stands_and_reading_does_not_go_back() -> None:
    first, second = Probe(3, 1.0, 0.5, False, 1), Probe(3, 0.0, 0.5, True, 2)
    assert Chain().fold([first]).fold([second]).waiting == (first,)
    chain, _ = Chain().read(50, RULE, nobody)
    assert chain.read(10, RULE, nobody) == (chain, [])
    assert chain.fold([first]) == chain


def test_the_level_is_that_of_the_sum_and_a_camera_is_new_until_it_has_a_baseline() -> None:
    assert Chain(tracks=Tracks(Track(total=RULE.sum.limit / 4))).level(RULE) == 0.25
    enough = Track(history=(Past(0.0, False),) * RULE.baseline_probes)
    assert not Chain(tracks=Tracks(enough)).is_new(RULE)
    assert Chain(tracks=Tracks(enough._replace(history=enough.history[1:]))).is_new(RULE)


def test_an_alert_sums_up_the_frames_that_led_to_it() -> None:
    run = (Probe(4, 0.1, 0.5, True, 3), Probe(6, 0.2, 0.5, True, 7), Probe(8, 0.9, 0.6, False, 7))
    alert = raise_alert("lab/door", 77, Found(STRIP, Alarm(run, 9.5, None)), 5, b"picture")
    assert alert.alert_id == alert_id("lab/door", 77, 8)
    assert (alert.frames.first, alert.frames.last) == (4, 8)
    assert (alert.checked, alert.flagged, alert.class_id) == (3, 2, 7)
    assert [alert.mean_entropy_bits, alert.threshold_bits] == pytest.approx([0.4, 0.6])
    assert (alert.evidence_octaves, alert.baseline_bits, alert.thumbnail) == (9.5, 0.0, b"picture")


def fragile(agreements: Sequence[float], bits: float = 1.5) -> list[Probe]:
    """A camera whose entropies are clean, and whose agreements behind drops are these."""
    return [Probe(n, bits, 0.5, each < 0.3, 4, each, 0.3) for n, each in enumerate(agreements)]


def test_a_trigger_that_no_drop_keeps_raises_an_alert_of_its_own_kind() -> None:
    found = fragile([0.97, 0.9, 0.99, 0.8] * 6 + [0.05] * 12)
    _, alarms = Chain().fold(found).read(100, RULE, nobody)
    assert [kind for kind, _ in alarms] == [DISAGREEMENT]
    alert = raise_alert("lab/door", 77, alarms[0], 5)
    assert (alert.kind, alert.alert_id) == (DISAGREEMENT, alert_id("lab/door", 77, alert.frames.last, DISAGREEMENT))
    assert 24 <= alert.frames.first < alert.frames.last < 36
    assert [alert.mean_agreement, alert.agreement_threshold] == pytest.approx([0.05, 0.3])
    assert 0.8 <= alert.baseline_agreement <= 0.99
    assert (alert.mean_entropy_bits, alert.threshold_bits, alert.flagged) == (0, 0, alert.checked)


def test_seven_low_agreements_in_ten_raise_an_alert_and_one_in_ten_does_not() -> None:
    clean = [0.97, 0.9, 0.99, 0.8, 0.95, 0.93, 0.85, 0.98, 0.9]
    often, seldom = ([0.1] * 7 + [0.9] * 3) * 4, [*clean, 0.2] * 30
    assert Chain().fold(fragile(clean * 3 + often)).read(900, RULE, nobody)[1]
    assert not Chain().fold(fragile(clean * 3 + seldom)).read(900, RULE, nobody)[1]


def test_a_scene_of_low_agreement_from_the_first_frame_on_becomes_the_baseline() -> None:
    chain, alarms = Chain().fold(fragile([0.2] * 60)).read(100, RULE, lambda *_: [1, 2] * 40)
    assert alarms == []
    assert len(chain.tracks.disagreement.history) >= RULE.baseline_probes


def test_an_episode_ends_with_a_bundle_that_has_no_threshold_for_the_agreement() -> None:
    chain, alarms = Chain().fold(fragile([0.97, 0.9, 0.99, 0.8] * 6 + [0.05] * 12)).read(36, RULE, nobody)
    assert alarms
    assert chain.level(RULE) == 1
    chain, _ = chain.fold([Probe(36, 1.5, 0.5, False, 4)]).read(100, RULE, nobody)
    assert chain.level(RULE) < 1


def test_without_a_threshold_for_the_agreement_there_is_no_track_of_it() -> None:
    chain, _ = Chain().fold([Probe(n, 1.5, 0.5, False, 4) for n in range(30)]).read(100, RULE, nobody)
    assert chain.tracks[1:] == (Track(), Track())


def test_features_that_clean_frames_do_not_have_raise_an_alert_of_their_own_kind() -> None:
    clean, strange = [0.5, 0.1, 0.9, 0.3] * 6, [2.0**-10, 2.0**-14] * 6
    shown = [Probe(n, 1.5, 0.5, each < 0.01, 4, 0, 0, each, 0.002) for n, each in enumerate(clean + strange)]
    chain, alarms = Chain().fold(shown).read(100, RULE, nobody)
    assert [kind for kind, _ in alarms] == [TYPICALITY]
    assert chain.level(RULE) == 1
    alert = raise_alert("lab/door", 77, alarms[0], 5)
    assert (alert.kind, alert.alert_id) == (TYPICALITY, alert_id("lab/door", 77, alert.frames.last, TYPICALITY))
    assert 24 <= alert.frames.first < alert.frames.last < 36
    assert 2.0**-13 < alert.mean_typicality < 2.0**-11
    assert alert.typicality_threshold == pytest.approx(0.002)
    assert 0.1 <= alert.baseline_typicality <= 0.9
    assert (alert.mean_entropy_bits, alert.mean_agreement) == (0, 0)
    assert not Chain().fold(shown[:24] * 3).read(100, RULE, nobody)[1]


def test_an_alert_is_named_by_its_camera_boot_frame_and_kind() -> None:
    ids = {alert_id("a/b", 1, 2), alert_id("a/c", 1, 2), alert_id("a/b", 2, 2), alert_id("a/b", 1, 3)}
    ids.add(alert_id("a/b", 1, 2, "other"))
    assert len(ids) == 5
    assert alert_id("a/b", 1, 2) in ids
    assert alert_id("a/b", 1, 2) == "4c50e2972a8f106f61630b46c747fc33"


def passing_scenes() -> list[Probe]:
    """A camera that passes scenes: another class every third frame, clean entropies that lie far apart."""
    return [Probe(n, (1.7, 2.0, 0.9, 1.4)[n // 3 % 4], 0.338, False, n // 3 % 4) for n in range(40)]


def test_frames_that_strip_flags_do_not_end_an_episode_of_a_camera_that_passes_scenes() -> None:
    """Measured before a sticker: eleven flagged frames at a tenth of a bit, between hundreds near nothing."""
    bits = [0.001] * 20 + [0.105, 0.103, 0.076, 0.114, 0.095, 0.094, 0.119, 0.103, 0.102, 0.129, 0.111] + [0.001] * 20
    sticker = [Probe(40 + n, found, 0.338, True, 7) for n, found in enumerate(bits)]
    _, alarms = Chain().fold(passing_scenes() + sticker).read(999, RULE, nobody)
    assert len(alarms) == 1
    calm = [each._replace(seq=100 + each.seq) for each in passing_scenes()]
    again = [each._replace(seq=160 + each.seq) for each in sticker]
    _, alarms = Chain().fold(passing_scenes() + sticker + calm + again).read(999, RULE, nobody)
    assert len(alarms) == 2, "an episode ends when clean frames come, and a later sticker raises an alert"
