"""The rule of evidence on simulated entropies, and the stored form of its tracks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import StateError
from schemas.evidence.alarms import KINDS, Tracks, advance_all
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.stored import pack_probes, pack_tracks, unpack_probes, unpack_tracks
from schemas.evidence.track import PastFrame, Probe, Track, advance, step

RULE = EvidenceRule()
THRESHOLD = 0.1


def probe(seq: int, bits: float, class_id: int = 0, threshold: float = THRESHOLD) -> Probe:
    return Probe(seq, bits, threshold, bits < threshold, class_id)


def alarms(
    bits: Iterable[float], *, every: int = 5, classes: Sequence[int] = (0,) * 20_000, rule: EvidenceRule = RULE
) -> list[int]:
    """Return the positions in `bits` at which the rule alarms; every `every`th frame of the camera is checked."""
    probes = (probe(every * number, value, classes[every * number]) for number, value in enumerate(bits))
    return alarms_of(((each, rule) for each in probes), classes)


def alarms_of(probes: Iterable[tuple[Probe, EvidenceRule]], classes: Sequence[int] = (0,) * 20_000) -> list[int]:
    """Return the positions at which these probes raise alarms, each with the recorder's rule at its time."""
    tracks, found = Tracks(), []
    for number, (each, rule) in enumerate(probes):
        tracks, raised = advance_all(tracks, each, rule, lambda first, last: classes[first : last + 1])
        if raised:
            found.append(number)
    return found


def scenes(count: int, seed: int, each: int = 3) -> list[float]:
    """Return entropies of a camera with passing scenes: far apart between scenes, close together within one."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.beta(3.5, 2, count), each)
    return [float(max(0.02, level * 2 ** rng.normal(0, 0.1))) for level in levels]


def static(level: float, count: int, seed: int) -> list[float]:
    """Return entropies of a camera in front of one scene."""
    return [float(level * 2**noise) for noise in np.random.default_rng(seed).normal(0, 0.12, count)]


@pytest.mark.parametrize("seed", range(5))
def test_a_sudden_fall_to_almost_zero_alarms_within_three_probes(seed: int) -> None:
    for before in (scenes(12, seed), static(0.8, 36, seed), static(0.09, 36, seed)):
        found = alarms([*before, *[2e-4] * 6])
        assert found[0] - len(before) <= 2
        assert len(found) == 1


@pytest.mark.parametrize("level", [1.5, 0.3, 0.09, 0.03, 0.01])
def test_a_clean_static_scene_of_any_entropy_never_alarms(level: float) -> None:
    assert alarms(static(level, 3000, 1)) == []
    assert alarms(static(level, 3000, 2), every=1) == []


def test_passing_scenes_of_which_some_are_suspect_raise_no_alarm() -> None:
    for seed in range(5):
        assert alarms(scenes(400, seed)) == []


def test_a_slow_drift_of_any_depth_raises_no_alarm() -> None:
    drift = [1.5 * 2 ** (-7 * n / 700) for n in range(1000)]
    noise = static(1.0, 1000, 3)
    assert alarms([a * b for a, b in zip(drift, noise, strict=True)]) == []


def test_a_short_suspect_scene_raises_no_alarm() -> None:
    calm = static(0.8, 60, 4)
    assert alarms([*calm, 0.05, 0.05, *calm]) == []
    assert alarms([*calm, *[0.15] * 4, *calm], every=1) == []


def test_each_episode_raises_one_alarm() -> None:
    calm = static(0.8, 40, 7)
    assert len(alarms([*calm, *[1e-4] * 50])) == 1
    assert len(alarms([*calm, *[1e-4] * 50, *calm, *[1e-4] * 5])) == 2


def test_a_deep_scene_is_allowed_for_changing_verdicts_and_not_for_constant_ones() -> None:
    calm, deep = static(0.8, 48, 8), [THRESHOLD / 3] * 12
    still, turning = [0] * 1000, [place // 50 for place in range(1000)]
    assert alarms([*calm, *deep], classes=still)
    assert not alarms([*calm, *deep], classes=turning)
    assert alarms([*calm, *[1e-3] * 12], classes=turning)


@pytest.mark.parametrize(
    ("classes", "turned"), [((1, 2, 2, 2), [0, 1, 0, 0]), ((1, 1, 2, 2), [0, 0, 1, 0]), ((1, 1, 2, 1), [0, 0, 1, 1])]
)
def test_the_history_counts_each_change_of_the_verdict_once_also_within_and_before_a_run(
    classes: tuple[int, ...], turned: list[bool]
) -> None:
    # The second and the third frame lie below the threshold: they are a run until the fourth ends it.
    track = Track()
    for seq, (bits, class_id) in enumerate(zip((0.8, THRESHOLD / 2, THRESHOLD / 2, 0.8), classes, strict=True)):
        track, _ = step(track, probe(seq, bits, class_id), RULE)
        assert len(track.run) == (seq if seq in (1, 2) else 0)
    assert [past.turned for past in track.history] == turned


def test_an_episode_ends_after_consecutive_calm_frames_and_a_frame_at_the_allowance_is_not_calm() -> None:
    track = Track(calm=0)
    exact = RULE.model_copy(update={"sum": RULE.sum.model_copy(update={"allowance": 0.0})})
    for seq in range(20):
        track, _ = step(track, probe(seq, 0.8 if seq % exact.calm_probes else THRESHOLD), exact)
        assert track.calm == seq % exact.calm_probes
    track, _ = step(track, probe(20, 0.8), exact)
    assert track.calm == -1


def test_a_trigger_that_appears_slowly_does_not_widen_the_baseline() -> None:
    calm, onset = static(0.8, 40, 8), [0.3, 0.2, 0.15, 0.12, 0.11, 0.105]
    forgetful = RULE.model_copy(update={"unsettled_probes": 0})
    assert alarms([*calm, *onset, *[0.04] * 20])
    assert not alarms([*calm, *onset, *[0.04] * 20], rule=forgetful)


def test_a_suspect_first_frame_alarms_if_verdicts_flip_or_the_depth_exceeds_scenes() -> None:
    steady, flipping = [3] * 1000, ([3] * 9 + [1]) * 100
    low = [0.004] * 40
    assert alarms(low, classes=flipping)
    assert alarms(low, classes=steady) == []
    assert alarms([1e-4] * 40, classes=steady)


def test_a_trigger_alarms_also_after_a_scene_of_low_entropy_became_the_baseline() -> None:
    before = static(0.004, 60, 9)
    for every in (1, 5):
        assert alarms(before, every=every) == []
        assert alarms([*before, *[2e-5] * 8], every=every)


@pytest.mark.parametrize("factor", [1 / 16, 1.0, 16.0])
def test_a_model_with_other_entropies_hides_no_trigger_and_raises_no_alarm_of_a_clean_scene(factor: float) -> None:
    for level in (0.15, 0.02):  # the second is a clean scene below the threshold
        clean = static(level, 120, 3)

        def swapped(bits: Iterable[float]) -> list[int]:
            factors = [1.0] * 60 + [factor] * 60
            return alarms_of(
                (probe(5 * number, by * value, threshold=by * THRESHOLD), RULE)
                for number, (value, by) in enumerate(zip(bits, factors, strict=False))
            )

        assert swapped(clean) == []
        (first, *_) = swapped([*clean[:70], *[level / 20] * 6])
        assert first < 75


@pytest.mark.parametrize(("before", "after"), [(0.0, 2.0), (2.0, 0.0)])
def test_another_setting_of_the_recorder_keeps_the_baseline(before: float, after: float) -> None:
    rules = [RULE.model_copy(update={"entropy_octaves": octaves}) for octaves in (before, after)]
    clean = static(0.15, 120, 3)

    def changed(bits: Iterable[float]) -> list[int]:
        return alarms_of((probe(5 * number, value), rules[number >= 60]) for number, value in enumerate(bits))

    assert changed(clean) == []
    (first, *_) = changed([*clean[:80], *[0.15 / 8] * 20])
    assert first < 90


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_another_threshold_of_p_values_keeps_the_baseline(factor: float) -> None:
    unusual = [
        Probe(number, 0.8, THRESHOLD, False, 0, p_value, 0.001 * (factor if number >= 80 else 1.0))
        for number, p_value in enumerate(static(2.0**-8, 160, 4))
    ]
    assert alarms_of((each, RULE) for each in unusual) == []


values = st.floats(0, 4, width=32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(values, st.integers(0, 2**31)), max_size=30))
def test_probes_and_tracks_are_stored_without_loss(found: list[tuple[float, int]]) -> None:
    probes = tuple(
        Probe(n, bits, 0.5, bits < 0.5, kind, 0.25, 0.5, 4, kind - 1) for n, (bits, kind) in enumerate(found)
    )
    assert unpack_probes(pack_probes(probes)) == probes
    track = Track()
    for each in probes:
        track, _ = advance(track, each, RULE, lambda *_: [0] * 20)
        for kind in KINDS:
            tracks = Tracks(**{kind: track})
            assert unpack_tracks(pack_tracks(tracks)) == tracks


def test_invalid_bytes_of_a_track_are_rejected() -> None:
    with pytest.raises(StateError, match="track"):
        unpack_tracks(b"no track")
    for cut in (-30, -1):
        with pytest.raises(StateError, match="track"):
            unpack_tracks(pack_tracks(Tracks(combined=Track(run=(probe(1, 0.5),))))[:cut])
    with pytest.raises(StateError, match="bytes"):
        unpack_tracks(pack_tracks(Tracks()) + b"more")
    with pytest.raises(StateError, match="finite threshold"):
        unpack_tracks(pack_tracks(Tracks(Track(network_bits=math.nan))))


def test_tracks_of_an_earlier_version_end_without_a_threshold() -> None:
    track = Track((PastFrame(1.5, False),), last=11, class_id=3)
    stored = pack_tracks(Tracks(track._replace(network_bits=0.5)))
    assert unpack_tracks(stored) == Tracks(track._replace(network_bits=0.5))
    assert unpack_tracks(stored[:-4]) == Tracks(track)
    after, _ = advance_all(unpack_tracks(stored[:-4]), probe(12, 0.8), RULE, lambda *_: [])
    assert after.strip.history[0].octaves == 1.5
