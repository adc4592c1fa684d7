"""Simulated cameras that look at one scene for many probes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.cache import Cache
from lab.data import LabelledPictures
from lab.evidence.episodes import NEVER
from lab.evidence.scores import Limits, Scores
from lab.evidence.still_scenes import (
    ROUNDS,
    Camera,
    SceneScores,
    _order,
    appearances_with_alarm,
    coarse_of,
    scenes_of,
    still_episodes,
    still_false_alarms,
)
from lab.experiments.codefend import still as experiment
from lab.experiments.codefend.attacks import findings_of_attacks
from lab.experiments.codefend.experiment import plan
from lab.experiments.codefend.plan import ATTACKS, Budget
from lab.experiments.codefend.rows import StillRow
from lab.experiments.codefend.still_scores import Scenes, StillScores, noisy
from lab.experiments.codefend.subjects import Subject
from lab.experiments.harness.plan import Workplace
from processors.stages.scenes import SIDE, differences
from schemas.evidence.alarms import COMBINED, rule_of
from schemas.evidence.rule import EvidenceRule

RULE = EvidenceRule()
LIMITS = Limits(0.5, 0.001)
FRAMES = 3
DEEP = 2e-5
"""A p-value so far below the threshold that six probes raise an alarm: each adds the most, 3 of 16."""


PROBES = 4_000


def scenes(count: int, p_values: dict[int, float], *, named: bool = False) -> SceneScores:
    """Return usual scenes, but with these p-values in all frames of some. Without names, nothing limits a scene."""
    generator = np.random.default_rng(1)
    found = np.minimum(1, 0.5 * np.exp2(generator.normal(0, 0.3, count * FRAMES)))
    for scene, p_value in p_values.items():
        found[scene * FRAMES : (scene + 1) * FRAMES] = p_value
    coarse = np.repeat(np.random.default_rng(2).normal(size=(count, 3, SIDE**2)), FRAMES, 0).astype(np.float32)
    scores = Scores(np.full(len(found), 2.0), found, np.zeros(len(found), np.int64))
    return SceneScores(scores, FRAMES, coarse if named else None)


def probes_until_alarm(
    attacked: SceneScores,
    stay_probes: int,
    starts: NDArray[np.bool_] | None = None,
    clean: SceneScores | None = None,
    views: int = 0,
) -> NDArray[np.float64]:
    count = len(attacked.scores) // FRAMES
    usual, every = scenes(count, {}, named=attacked.coarse is not None), np.ones(count, np.bool_)
    return still_episodes(
        usual if clean is None else clean, usual, attacked, every if starts is None else starts, LIMITS, RULE,
        stay_probes, views=views,
    ).probes  # fmt: skip


def test_an_unusual_scene_raises_an_alarm_at_each_appearance_if_the_camera_stays() -> None:
    clean = scenes(50, {7: DEEP})
    once = appearances_with_alarm(clean, LIMITS, RULE, 1, probes=PROBES)
    staying = appearances_with_alarm(clean, LIMITS, RULE, 20, probes=PROBES)
    assert not once.any()
    assert staying[7] > 0.9
    assert not np.delete(staying, 7).any()


def test_an_unusual_scene_that_the_processor_names_raises_no_alarm() -> None:
    assert not appearances_with_alarm(scenes(50, {7: DEEP}, named=True), LIMITS, RULE, 20, probes=PROBES).any()
    # Half of the scenes are unusual, so two of them follow each other.
    half = scenes(50, dict.fromkeys(range(25), DEEP), named=True)
    assert appearances_with_alarm(half, LIMITS, RULE, 20, probes=PROBES)[:25].mean() > 0.2


def test_strip_alone_gets_no_names_of_scenes() -> None:
    named = scenes(2, {}, named=True)
    for limits, is_named in ((LIMITS, True), (Limits(0.5), False)):
        found = [frame.coarse is not None for scene in scenes_of(named, limits, RULE) for frame in scene]
        assert found == [is_named] * 6


def test_a_trigger_that_comes_into_a_named_scene_is_found_there_and_one_that_comes_with_a_scene_later() -> None:
    attacked = scenes(40, dict.fromkeys(range(40), DEEP), named=True)
    staying, minutes = probes_until_alarm(attacked, 10**9), probes_until_alarm(attacked, 15)
    assert (staying == 6).all()
    # With fewer than eight probes of the first scene before, two scenes have to show it.
    assert set(minutes.tolist()) >= {6}
    assert 0.3 < (minutes > 6).mean() < 0.8
    assert minutes.max() <= 15 + 15


def test_a_trigger_in_one_of_the_views_of_a_camera_is_found_when_the_camera_looks_there_again() -> None:
    attacked = scenes(20, dict.fromkeys(range(20), DEEP), named=True)
    assert (probes_until_alarm(attacked, 15, views=4) == 6).all()
    # It is in one view alone: with fewer probes of each, the others take the evidence away.
    assert (probes_until_alarm(attacked, 5, views=4) == NEVER).all()
    # An alarm in a view without the trigger does not find it.
    missed, unusual = scenes(20, {}), scenes(20, dict.fromkeys(range(10), DEEP))
    assert (probes_until_alarm(missed, 15, views=4, clean=unusual) == NEVER).all()


def test_a_camera_that_goes_round_its_views_raises_no_alarm_for_an_unusual_one() -> None:
    one = scenes(40, {7: DEEP}, named=True)
    assert not appearances_with_alarm(one, LIMITS, RULE, 20, views=4, probes=PROBES).any()
    unlimited = appearances_with_alarm(one._replace(coarse=None), LIMITS, RULE, 20, views=4, probes=PROBES)
    assert unlimited[7] > 0.9
    assert not np.delete(unlimited, 7).any()


def test_a_camera_shows_all_scenes_equally_often() -> None:
    for views in (0, 1, 4):
        order = [*_order(40, 2 * ROUNDS, views, np.random.default_rng(0))]
        assert np.bincount([scene for scene, _ in order]).tolist() == [2 * ROUNDS] * 40
        counting = np.bincount([scene for scene, counts in order if counts])
        assert counting.tolist() == [2 * (ROUNDS - 1) if views else 2 * ROUNDS] * 40
    in_turn = [scene for scene, _ in _order(40, 2 * ROUNDS, 4, np.random.default_rng(0))]
    rounds = np.array(in_turn).reshape(-1, ROUNDS, 4)
    assert (rounds == rounds[:, :1]).all()
    # Later, others are side by side.
    assert {*map(frozenset, rounds[:10, 0].tolist())} != {*map(frozenset, rounds[10:, 0].tolist())}


def test_frames_of_a_scene_have_the_same_coarse_picture_and_other_scenes_another() -> None:
    images = np.random.default_rng(3).integers(0, 256, (20, SIDE, SIDE, 3)).repeat(5, 1).repeat(5, 2).astype(np.uint8)
    pictures = LabelledPictures("blocks", images, np.zeros(20, np.int64))
    found = coarse_of(noisy(pictures, Scenes(frames=2, noise=2.0), seed=0)).reshape(20, 2, 3, SIDE**2)
    for number, (first, second) in enumerate(found):
        apart = differences(found[:, 0], second)
        assert apart[number] < 0.1
        assert (np.delete(apart, number) > 0.4).all()
        assert differences(first[None], first) == 0


def test_an_appearance_counts_once_even_with_two_alarms() -> None:
    clean = scenes(2, {})
    # One of three frames is unusual, in random order. A calm run ends an episode, so that alarms follow each other.
    clean.scores.p_value[:] = [DEEP, 0.5, 0.5] * 2
    found = still_false_alarms(clean, LIMITS, RULE, 400, 0.25, probes=PROBES).of_scenes.value
    assert 0 < found <= 1
    camera, generator = Camera(rule_of(COMBINED, RULE)), np.random.default_rng(0)
    frames = scenes_of(clean, LIMITS, RULE)[0]
    assert sum(camera.raises_alarm(frames[place]) for place in generator.integers(0, FRAMES, 400).tolist()) > 1


def test_false_alarms_of_a_year_follow_from_the_time_that_a_scene_stays() -> None:
    clean = scenes(50, {7: DEEP})
    minute, hour = (still_false_alarms(clean, LIMITS, RULE, 15 * minutes, 0.25, probes=PROBES) for minutes in (1, 60))
    assert minute.of_scenes.value == pytest.approx(0.02, abs=0.002)
    assert hour.of_scenes.value == pytest.approx(0.02, abs=0.002)
    assert hour.of_scenes.low < 0.02 < hour.of_scenes.high
    scenes_a_year = 365.25 * 24
    for a_year, share in zip(hour.a_year, hour.of_scenes, strict=True):
        assert a_year == pytest.approx(share * scenes_a_year)
    assert minute.a_year.value / hour.a_year.value == pytest.approx(60, rel=0.1)


def test_a_scene_within_the_allowance_below_the_threshold_raises_no_alarm() -> None:
    barely = LIMITS.p_value * 2**-0.2
    assert not appearances_with_alarm(scenes(50, {7: barely}), LIMITS, RULE, 20, probes=PROBES).any()


def test_a_trigger_that_the_statistics_miss_in_its_scene_is_found_when_the_scene_changes() -> None:
    attacked = scenes(40, dict.fromkeys(range(30), DEEP))
    moving, staying = probes_until_alarm(attacked, 1), probes_until_alarm(attacked, 10**9)
    assert (moving < 100).all()
    assert (staying[:30] == 6).all()
    assert (staying[30:] == NEVER).all()
    minutes = probes_until_alarm(attacked, 15)[30:]
    # Six probes of another scene at the earliest, after at most 15 of the first.
    assert (minutes >= 7).all()
    assert (minutes <= 15 + 6).sum() > 0
    assert (minutes < NEVER).all()


def test_attacks_begin_only_at_the_given_scenes_and_go_on_in_all() -> None:
    attacked = scenes(40, {0: DEEP})
    starts = np.zeros(40, np.bool_)
    starts[0] = True
    assert probes_until_alarm(attacked, 10**9, starts).tolist() == [6]
    # One probe of the first scene is not enough, and the trigger is missed in all others.
    assert probes_until_alarm(attacked, 1, starts).tolist() == [NEVER]


def test_no_alarm_counts_before_the_trigger() -> None:
    clean = scenes(40, {0: DEEP})
    assert (probes_until_alarm(scenes(40, {}), 20, clean=clean) == NEVER).all()


def test_a_row_for_each_rule_and_stay_has_the_scenes_that_reach_the_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    reached = np.arange(30) < 20
    clean, before = scenes(50, {7: DEEP}, named=True), scenes(30, {}, named=True)
    attacked = scenes(30, dict.fromkeys(range(30), DEEP), named=True)
    found = StillScores(clean, before, attacked, reached, 0.001)
    monkeypatch.setattr(experiment, "PROBES", PROBES)
    monkeypatch.setattr(experiment, "still_scores", lambda *_: found)
    strip = SimpleNamespace(threshold_bits=0.5)
    subject = SimpleNamespace(name="sick", bundle=SimpleNamespace(settings=SimpleNamespace(strip=strip)))
    rows = experiment.still(cast(Subject, subject), Scenes(50, 30, FRAMES), cast(Cache, tmp_path))
    assert [(row.limited, row.stay, row.views) for row in rows] == [
        (limited, *watch) for limited in (True, False) for watch in ((1, 0), (15, 0), (150, 0), (15, 4))
    ]
    assert {(row.scenes, row.episodes, row.flagged_always) for row in rows} == {(50, 20, 0.02)}
    # An alarm on the unusual clean scene just before may hide that of the attack.
    assert all(row.alarmed >= 0.85 for row in rows)
    assert [row.false_alarms for row in rows] == pytest.approx([0, 0, 0, 0, 0, 0.02, 0.02, 0.02], abs=0.004)


def test_so_few_scenes_show_no_low_rate_of_false_alarms() -> None:
    rows = [
        StillRow(
            model, limited, stay, views, 2000, 0.0, 0.0, 0.0, 0.002, rate, 0.0, 100.0, 400, 6.0, 0.96, 0.94, 0.98, 1.0
        )
        for model in ATTACKS
        for limited, stay, views, rate in (
            (False, 150, 0, 900.0), (True, 15, 0, 200.0), (True, 150, 0, 0.0), (True, 15, 4, 7.0),
        )
    ]  # fmt: skip
    found = {each.what.partition(", worst")[0]: each for each in findings_of_attacks([], [], rows, [])}
    minute, minutes = (
        found[f"false alarms of a camera in a year, {scene}"]
        for scene in ("a scene a minute", "a scene in ten minutes")
    )
    assert (minute.measured, minute.verdict, minute.spoiled) == (200, "missed", "")
    assert (minutes.measured, minutes.verdict, minutes.spoiled) == (0, "missed", "2,000 scenes cannot show so few")
    assert found["false alarms of a camera in a year, four views, a minute each"].measured == 7
    alarmed = found["cameras with an alarm in 40 probes after an effective trigger, a scene in ten minutes"]
    assert (alarmed.measured, alarmed.verdict, alarmed.count) == (0.96, "must", 400)


def test_each_of_the_ten_attacks_has_a_row_of_still_scenes_and_no_other_model(tmp_path: Path) -> None:
    cells = plan(Workplace(tmp_path, tmp_path, tmp_path), Budget()).cells
    assert [cell.name for cell in cells if "/still/" in cell.name] == [
        f"{name}/still/whole" for name in Budget().models if name in ATTACKS
    ]
    assert sum("/still/" in cell.name for cell in cells) == 10


def test_the_frames_of_a_scene_differ_by_their_noise_alone() -> None:
    images = np.full((2, 4, 4, 3), 100, np.uint8)
    images[1] = 255
    found = noisy(LabelledPictures("grey", images, np.array([3, 5])), Scenes(frames=3, noise=2.0), seed=0)
    assert found.labels.tolist() == [3, 3, 3, 5, 5, 5]
    first = found.images[:3].astype(int) - 100
    assert first.std() == pytest.approx(2.0, abs=0.4)
    assert (first[0] != first[1]).any()
    assert found.images[3:].max() == 255
