"""The evidence of one scene: an unusual one alone raises no alarm, and a trigger in a usual one does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ctypes import c_float

import numpy as np
import pytest
from pydantic import ValidationError

from schemas.errors import StateError
from schemas.evidence.alarms import KINDS, STRIP, Tracks, advance_all, no_classes
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.stored import pack_tracks, unpack_tracks
from schemas.evidence.track import NO_SCENE, PastFrame, Probe, SceneSum, Track, gain

RULE = EvidenceRule()
THRESHOLD = c_float(0.004).value
DEEP = THRESHOLD / 2**8

Shown = tuple[int, Sequence[float]]
"""A scene, and the p-values of the probes that show it."""


def usual(count: int, seed: int = 1, level: float = 0.4) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 0.3, count)
    return [min(1.0, float(level * 2**octaves)) for octaves in noise]


def probes(shown: Iterable[Shown], kind: str = "combined", first: int = 0) -> list[Probe]:
    """Return the probes of a camera that shows one scene after another, numbered from `first`."""
    limit = 0.0 if kind == STRIP else THRESHOLD
    found = [(scene, c_float(each).value) for scene, values in shown for each in values]
    return [
        Probe(seq, 1.0 if limit else each, THRESHOLD, False, 0, each, limit, scene=scene)
        for seq, (scene, each) in enumerate(found, first)
    ]


def alarms(found: Iterable[Probe], before: Track | None = None) -> list[int]:
    """Return the sequence numbers of the probes that raise alarms after the track `before`."""
    tracks, raised = Tracks() if before is None else Tracks(combined=before), []
    for probe in found:
        tracks, some = advance_all(tracks, probe, RULE, no_classes)
        # Every state can be stored.
        assert unpack_tracks(pack_tracks(tracks)) == tracks
        if some:
            raised.append(probe.seq)
    return raised


def shown_to(shown: Iterable[Shown]) -> Track:
    """Return the track of a camera that has shown these scenes."""
    tracks = Tracks()
    for probe in probes(shown):
        tracks, _ = advance_all(tracks, probe, RULE, no_classes)
    return tracks.combined


BEFORE: list[Shown] = [(0, usual(30)), (30, usual(30, 2))]
"""Two usual scenes, enough for a baseline of the camera and of both."""


def test_an_unusual_scene_raises_no_alarm_however_long_it_stays() -> None:
    shown = [*BEFORE, (60, [DEEP] * 500), (560, usual(30, 3))]
    assert alarms(probes(shown)) == []
    unnamed = [each._replace(scene=NO_SCENE) for each in probes(shown)]
    assert alarms(unnamed) == [65]


def test_two_unusual_scenes_in_a_row_raise_one_alarm() -> None:
    shown = [*BEFORE, (60, [DEEP] * 20), (80, [DEEP] * 20), (100, [DEEP] * 20)]
    # Three probes of each reach its limit, half of the alarm's.
    assert alarms(probes(shown)) == [82]


def test_usual_probes_between_two_unusual_scenes_take_the_evidence_away() -> None:
    assert alarms(probes([*BEFORE, (60, [DEEP] * 20), (80, usual(8, 3)), (88, [DEEP] * 20)])) == []


def test_a_scene_that_comes_again_adds_its_evidence_once() -> None:
    there_and_back: list[Shown] = [(60, [DEEP] * 5), (0, usual(2, 4))] * 20
    assert alarms(probes([*BEFORE, *there_and_back])) == []


def test_a_trigger_in_a_usual_scene_raises_an_alarm_within_six_probes() -> None:
    assert alarms(probes([*BEFORE, (30, [DEEP] * 20)])) == [65]


def test_a_weak_trigger_is_found_in_a_usual_scene_alone() -> None:
    weak = usual(40, 5, THRESHOLD / 2)
    (first, *others) = alarms(probes([*BEFORE, (30, weak)]))
    assert (70 < first < 100, others) == (True, [])
    # In a new scene it is within what unusual scenes show.
    assert alarms(probes([*BEFORE, (60, weak)])) == []


def test_frames_of_a_limited_scene_are_not_learnt_and_a_later_trigger_is_found() -> None:
    shown: list[Shown] = [*BEFORE, (60, [DEEP] * 40), (0, usual(9, 3))]
    after = shown_to(shown)
    assert after.total == 0
    assert min(each.octaves for each in after.history) > -4
    assert len(alarms(probes([*shown, (0, [DEEP] * 20)]))) == 1
    assert len(alarms(probes([*shown, (200, [DEEP] * 20), (220, [DEEP] * 20)]))) == 1
    # Two visits to the limited scene, with others in between, are still one scene.
    assert alarms(probes([*shown, *shown[2:], *shown[2:]])) == []


@pytest.mark.parametrize("flashes", [1, 3, 6])
def test_earlier_flashes_of_a_trigger_do_not_hide_it_in_a_usual_scene(flashes: int) -> None:
    seen = usual(48)
    for place in range(flashes):
        seen += [DEEP, *usual(6, place)]
    assert alarms(probes([(0, seen)])) == []
    found = alarms(probes([(0, seen), (0, [DEEP] * 40)]))
    assert len(found) == 1
    assert found[0] - len(seen) < 10


@pytest.mark.parametrize(("share", "least"), [(0.15, 6), (0.2, 2)])
def test_a_trigger_that_flashes_for_long_does_not_make_itself_usual(share: float, least: int) -> None:
    silent = 0
    for seed in range(20):
        flashes = np.random.default_rng(seed).random(200) < share
        seen = [DEEP if flash else each for flash, each in zip(flashes, usual(200, seed), strict=True)]
        shown: list[Shown] = [(0, [*usual(48), *seen, *usual(8, 99)])]
        # Several flashes in short order may raise an alarm at once.
        silent += not alarms(probes(shown))
        assert alarms(probes([(0, [DEEP] * 20)], first=300), shown_to(shown)) != []
    assert silent >= least


@pytest.mark.parametrize("views", [1, 4, 6])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_a_trigger_just_before_the_camera_looks_away_does_not_make_itself_usual(frames: int, views: int) -> None:
    quiet = [(view, usual(15, view)) for _ in range(4) for view in range(views)]
    away: list[Shown] = [(view, usual(15, view)) for view in range(1, views)] or [(900, usual(60, 7))]
    seen = [*quiet, (0, [*usual(8, 9), *[DEEP] * frames]), *away]
    assert alarms(probes(seen)) == []
    assert alarms(probes([(0, [DEEP] * 20)], first=2000), shown_to(seen)) == [2005]


def test_a_scene_that_becomes_unusual_within_an_hour_raises_no_alarm() -> None:
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 1, 1000)
        # By five octaves in 1,000 probes.
        falling = [float(min(1.0, 0.1 * 2 ** (each - 5 * place / 1000))) for place, each in enumerate(noise)]
        assert np.median(falling[-50:]) < THRESHOLD
        assert alarms(probes([(0, falling)])) == []


VIEWS = 6


def tour(rounds: int, stay: int, first: int = 0) -> list[Shown]:
    """Return what a camera shows that goes round `VIEWS` scenes, numbered from `first`."""
    return [
        (first + view, usual(stay, VIEWS * number + view)) for number in range(rounds) for view in range(VIEWS)
    ]  # fmt: skip


@pytest.mark.parametrize("covered", [10, 80, 2000])
def test_a_scene_stays_known_while_the_camera_shows_another(covered: int) -> None:
    shown = [*BEFORE, (60, usual(covered, 3)), (30, [DEEP] * 20)]
    assert alarms(probes(shown)) == [60 + covered + 5]


@pytest.mark.parametrize(("stay", "moments"), [(8, 1), (8, 144), (15, 144), (60, 144)])
def test_all_views_of_a_camera_stay_known_whatever_it_shows_for_a_moment(stay: int, moments: int) -> None:
    seen = shown_to([*tour(4, stay), *((scene, usual(1, scene)) for scene in range(1000, 1000 + moments))])
    for view in range(VIEWS):
        assert alarms(probes([(view, [DEEP] * 20)], first=2000), seen) == [2005]


@pytest.mark.parametrize("stay", [2, 3, 8])
def test_views_of_few_probes_stay_known(stay: int) -> None:
    seen = shown_to(tour(4, stay))
    for view in range(VIEWS):
        assert alarms(probes([(view, [DEEP] * 20)], first=2000), seen) == [2005]


@pytest.mark.parametrize("stay", [1, 3, 7, 8, 15])
def test_views_with_new_numbers_become_known(stay: int) -> None:
    # After a restart, a processor numbers the views again.
    seen = shown_to([*tour(8, 10), *tour(10, stay, first=100)])
    for view in range(VIEWS):
        assert alarms(probes([(100 + view, [DEEP] * 20)], first=1000), seen) == [1005]


def test_the_baseline_of_the_camera_is_that_of_its_newest_probes() -> None:
    """Views of long ago do not blind a camera for new scenes."""
    lower = [(1000 * cover, usual(30, cover, 0.02)) for cover in range(1, 12)]
    after = shown_to([(0, usual(100)), *lower, (0, usual(100, 5))])
    newest = after.history[-RULE.history_probes :]
    assert {each.scene for each in newest} == {0}
    assert after.baseline(RULE) == after._replace(history=newest).baseline(RULE)
    assert len(after.history) > RULE.history_probes + 8 * RULE.scenes.probes


def test_a_scene_is_remembered_by_its_newest_frames() -> None:
    moved = [(0, usual(60)), (0, usual(60, 2, 0.02)), (500, usual(200, 3))]
    base = shown_to(moved).scene_baseline(0, RULE)
    assert base is not None
    assert base[0] == pytest.approx(np.log2(0.02), abs=0.4)
    # The baseline follows after an absence, too.
    later = shown_to([*moved, (0, usual(60, 4)), (500, usual(200, 5))]).scene_baseline(0, RULE)
    assert later is not None
    assert later[0] == pytest.approx(np.log2(0.4), abs=0.4)


def test_a_trigger_that_comes_slowly_into_a_known_view_is_found() -> None:
    fading = [float(max(DEEP, 0.4 * 2 ** (-each / 2))) for each in range(1, 60)]
    shown = [*tour(3, 15), (0, usual(300)), (0, [*fading, *[DEEP] * 40])]
    (found,) = alarms(probes(shown))
    assert found < 15 * 3 * VIEWS + 300 + 30


@pytest.mark.parametrize("history_probes", [8, 9, 15, 16, 48, 100])
def test_a_scene_becomes_known_by_its_first_frames_whatever_came_before(history_probes: int) -> None:
    rule, generator, seq = RULE.model_copy(update={"history_probes": history_probes}), np.random.default_rng(5), 0
    tracks = Tracks()
    for _ in range(100):
        scene, stay = seq, int(generator.integers(1, 20))
        for probe in probes([(scene, usual(stay, seq))]):
            tracks, _ = advance_all(tracks, probe._replace(seq=seq), rule, no_classes)
            seq += 1
        known = tracks.combined.scene_baseline(scene, rule) is not None
        assert known == (stay >= rule.scenes.probes)
    assert len(tracks.combined.history) <= history_probes + rule.scenes.remembered * rule.scenes.probes


def test_a_lasting_change_of_one_view_raises_one_alarm() -> None:
    low = usual(15, 9, THRESHOLD / 16)
    shown = [*tour(4, 15), *[each for _ in range(20) for each in [*tour(1, 15)[:-1], (VIEWS - 1, low)]]]
    first = 4 * 15 * VIEWS
    (found,) = alarms(probes(shown))
    assert first < found < first + 15 * VIEWS
    # A trigger in another view is found all the same, and one in this view after the change has gone.
    after = shown_to(shown)
    assert len(alarms(probes([*tour(1, 15)[:-1], (2, [DEEP] * 20)], first=9000), after)) == 1
    assert len(alarms(probes([*tour(2, 15), (VIEWS - 1, [DEEP] * 20)], first=9000), after)) == 1


def test_a_history_from_larger_settings_is_cut_at_the_next_usual_probe() -> None:
    scenes = RULE.scenes.model_copy(update={"remembered": 1})
    rule = RULE.model_copy(update={"history_probes": 16, "scenes": scenes})
    before = shown_to(tour(4, 15))
    assert len(before.history) > 16 + rule.scenes.probes
    (probe,) = probes([(0, usual(1))], first=1000)
    after, _ = advance_all(Tracks(combined=before), probe, rule, no_classes)
    assert len(after.combined.history) <= 16 + rule.scenes.probes
    assert after.combined.history[-1].octaves == pytest.approx(np.log2(probe.p_value))


@pytest.mark.parametrize(("octaves", "expected"), [(3.0, -1.0), (0.5, -0.75), (-0.25, 0.0), (-1.0, 0.75), (-9.0, 3.0)])
def test_a_frame_adds_its_depth_less_the_allowance_within_bounds(octaves: float, expected: float) -> None:
    (probe,) = probes([(0, [THRESHOLD * 2**octaves])])
    judged = probe.of_p_value(0.0)
    assert gain(Track(), judged, RULE.of_p_values) == pytest.approx(expected, abs=1e-5)


def test_an_episode_that_other_scenes_end_makes_its_scene_unknown() -> None:
    seen = [*tour(4, 15), (0, [DEEP] * 6)]
    before, after = shown_to(seen), shown_to([*seen, (1, usual(RULE.calm_probes, 3))])
    assert (before.calm, after.calm, after.run, after.scene_baseline(0, RULE)) == (0, -1, (), None)
    # The camera's own baseline is as before.
    assert after.baseline(RULE) == before.baseline(RULE)
    assert {each.scene for each in before.history} - {each.scene for each in after.history} == {0}
    # Of the older frames, only those of this scene are forgotten.
    older = before.history[: -RULE.history_probes]
    assert len(before.history) - len(after.history) == sum(each.scene == 0 for each in older) > 0


@pytest.mark.parametrize("hidden", [5, 8, 12, 20])
def test_a_trigger_that_hides_for_a_moment_after_its_alarm_raises_another(hidden: int) -> None:
    shown = [(0, usual(200)), (0, [DEEP] * 10), (0, usual(hidden, 3)), (0, [DEEP] * 20)]
    assert alarms(probes(shown)) == [205, 210 + hidden + 5]


def test_a_view_that_stays_changed_is_not_judged_until_it_looks_usual() -> None:
    low = usual(15, 9, THRESHOLD / 16)
    after = shown_to([*tour(4, 15), *[each for _ in range(3) for each in [*tour(1, 15)[:-1], (VIEWS - 1, low)]]])
    assert alarms(probes([(VIEWS - 1, [DEEP / 16] * 100)], first=9000), after) == []


@pytest.mark.parametrize(("own", "others", "known"), [(0, 5, False), (1, 4, True), (4, 1, True), (5, 0, True)])
def test_a_scene_that_is_calm_in_its_episode_stays_known(own: int, others: int, known: bool) -> None:
    episode: list[Shown] = [(0, [DEEP] * 6), (0, usual(own)), (1, usual(others))]
    after = shown_to([*tour(4, 15), *episode])
    assert after.calm == -1
    assert (after.scene_baseline(0, RULE) is not None) == known


def test_the_history_of_scenes_without_a_name_is_that_of_the_newest_probes() -> None:
    shown: list[Shown] = [(NO_SCENE, usual(100))]
    newest = [each.p_value for each in probes(shown)[-RULE.history_probes :]]
    assert [2**each.octaves for each in shown_to(shown).history] == pytest.approx(newest)


def test_a_scene_that_was_always_unusual_is_judged_against_itself() -> None:
    low = usual(60, 6, THRESHOLD / 4)
    # The camera begins with it, so that it enters the history.
    assert alarms(probes([(0, low)])) == []
    assert len(alarms(probes([(0, low), (0, [DEEP / 2**4] * 20)]))) == 1


def test_a_few_frames_of_a_scene_are_no_baseline_of_it() -> None:
    few = [*BEFORE, (60, usual(RULE.scenes.probes - 1, 7)), (60, [DEEP] * 100)]
    enough = [*BEFORE, (60, usual(RULE.scenes.probes, 7)), (60, [DEEP] * 100)]
    assert alarms(probes(few)) == []
    assert len(alarms(probes(enough))) == 1


def test_a_camera_without_a_baseline_has_no_limit() -> None:
    # Far below what clean scenes show, from the first frame on.
    assert len(alarms(probes([(0, [DEEP] * 40)]))) == 1


def test_strip_alone_judges_the_probes_of_all_scenes_alike() -> None:
    shown = [*BEFORE, (60, [DEEP] * 20)]
    named = probes(shown, STRIP)
    assert alarms(named) == alarms(each._replace(scene=NO_SCENE) for each in named) != []
    assert [each.of_entropy(octaves).scene for each in named[-1:] for octaves in (0.0, 1.0)] == [NO_SCENE] * 2


def test_a_lower_limit_takes_nothing_from_the_sum() -> None:
    tracks = Tracks()
    for probe in probes([*BEFORE, (60, [DEEP] * 3)]):
        tracks, _ = advance_all(tracks, probe, RULE, no_classes)
    assert tracks.combined.total == RULE.scenes.limit
    lower = RULE.model_copy(update={"scenes": RULE.scenes.model_copy(update={"limit": 2.0})})
    after, _ = advance_all(tracks, probes([(60, [DEEP])])[0]._replace(seq=63), lower, no_classes)
    assert after.combined.total == tracks.combined.total


def test_a_scene_that_raised_an_alarm_raises_no_other_until_it_looks_usual() -> None:
    raised: list[Shown] = [*BEFORE, (60, [DEEP] * 20), (80, [DEEP] * 3), (0, usual(20))]
    assert alarms(probes(raised)) == [82]
    assert shown_to(raised[:-1]).scene_sums == tuple(SceneSum(scene, 2 * RULE.scenes.limit) for scene in (60, 80))
    # The same two scenes later, one of them with a third, and two others.
    assert alarms(probes([(60, [DEEP] * 20), (80, [DEEP] * 20)], first=500), shown_to(raised)) == []
    assert alarms(probes([(60, [DEEP] * 20), (90, [DEEP] * 20)], first=500), shown_to(raised)) == []
    assert alarms(probes([(90, [DEEP] * 20), (95, [DEEP] * 20)], first=500), shown_to(raised)) == [522]
    # Eight usual probes, one octave each, take away what the scene may add.
    for count, found in ((4, []), (8, [522])):
        usual_again: list[Shown] = [*raised, (60, usual(count)), (80, usual(count, 2))]
        after = shown_to(usual_again)
        assert alarms(probes([(60, [DEEP] * 20), (80, [DEEP] * 20)], first=500), after) == found


def test_a_scene_that_has_paid_back_what_it_added_has_no_part_in_an_alarm() -> None:
    odd: list[Shown] = [(0, [DEEP] * 2), (60, [DEEP]), (60, usual(4)), (0, [DEEP] * 5)]
    after = shown_to([*BEFORE, *odd])
    assert after.calm >= 0
    assert after.scene_sums == ()


def test_a_scene_without_an_alarm_counts_again_each_time_it_comes() -> None:
    moments: list[Shown] = [(60, [DEEP] * 3), (0, usual(8)), (80, [DEEP] * 3), (0, usual(8, 2))]
    assert alarms(probes([*BEFORE, *moments, (60, [DEEP] * 3), (80, [DEEP] * 3)])) == [60 + 22 + 5]


def test_a_new_scene_with_a_flashing_trigger_becomes_known() -> None:
    visits: list[Shown] = [(60, usual(5)), (60, [DEEP] * 2), (0, usual(15, 2))]
    after = shown_to([*BEFORE, *visits * 20])
    assert alarms(probes([(60, [DEEP] * 20)], first=600), after) == [605]


@pytest.mark.parametrize("hidden", [16, 30])
def test_a_trigger_that_hides_after_an_alarm_of_new_scenes_raises_another(hidden: int) -> None:
    shown = [*BEFORE, (60, [DEEP] * 20), (80, [DEEP] * 20), (80, usual(hidden)), (80, [DEEP] * 20)]
    assert alarms(probes(shown)) == [82, 100 + hidden + 5]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("turn", range(VIEWS + 2))
def test_two_views_that_stay_unusual_side_by_side_raise_at_most_two_alarms(turn: int, known: bool) -> None:
    low: list[Shown] = [(200, usual(15, 8, THRESHOLD / 16)), (201, usual(15, 9, THRESHOLD / 16))]
    before: list[Shown] = [(scene, usual(15, scene)) for scene in (200, 201)] if known else []
    changed = [*tour(1, 15), *low]
    found = alarms(probes([*[*tour(1, 15), *before] * 3, *[*changed[turn:], *changed[:turn]] * 12]))
    assert 1 <= len(found) <= 2


def test_the_sums_of_many_scenes_are_bounded() -> None:
    # Each scene adds a little: more than it loses in between, and too little for an alarm.
    limitless = RULE.model_copy(update={"combined": RULE.combined.model_copy(update={"limit": 1e9})})
    tracks = Tracks()
    for probe in probes([*BEFORE, *((scene, [DEEP]) for scene in range(60, 260))]):
        tracks, _ = advance_all(tracks, probe, limitless, no_classes)
    assert [each.scene for each in tracks.combined.scene_sums] == list(range(260 - RULE.history_probes, 260))


def test_sums_of_scenes_are_stored_without_loss() -> None:
    track = Track(total=3.0, scene_sums=(SceneSum(7, 2.5), SceneSum(2**53 - 1, 0.5)))
    for kind in KINDS:
        tracks = Tracks(**{kind: track})
        assert unpack_tracks(pack_tracks(tracks)) == tracks


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"history_probes": 7},
            r"evidence.scenes.probes: expected at most evidence.history_probes, 7, got 8\. Correct one\.",
        ),
        (
            {"scenes": {"limit": 16}},
            r"evidence.scenes.limit: expected less than evidence.combined.limit, 16, got 16\. Correct one\.",
        ),
        ({"scenes": {"limit": float("nan")}}, "finite number"),
        (
            {"scenes": {"remembered": 126}},
            r"scenes.remembered: expected at most 125 \(1,000 frames, 8 for each scene\), got 126\. Correct one\.",
        ),
    ],
)
def test_settings_of_scenes_outside_their_bounds_are_rejected(changed: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        EvidenceRule.model_validate(changed)


@pytest.mark.parametrize(
    "track",
    [
        Track(scene_sums=(SceneSum(NO_SCENE, 1.0),)),
        Track(scene_sums=(SceneSum(3, 1.0), SceneSum(3, 2.0))),
        Track(scene_sums=(SceneSum(3, -1.0),)),
        Track(scene_sums=(SceneSum(2**53, 1.0),)),
        Track(history=(PastFrame(1.0, False, 2**53),)),
        Track(history=(PastFrame(1.0, False, -2),)),
        Track(run=(Probe(1, 0.5, 0.5, False, 0, scene=2**53),)),
    ],
)
def test_stored_scenes_that_no_camera_has_are_rejected(track: Track) -> None:
    with pytest.raises(StateError, match="evidence in the database"):
        unpack_tracks(pack_tracks(Tracks(track)))
