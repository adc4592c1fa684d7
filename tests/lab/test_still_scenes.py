"""Simulated cameras that look at one scene for many probes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lab.data import LabelledPictures
from lab.evidence import still_scenes
from lab.evidence.episodes import NEVER
from lab.evidence.scores import Limits, Scores
from lab.evidence.still_scenes import false_alarms_of_scenes, still_episodes, still_false_alarms
from lab.experiments.codefend.still_scores import Scenes, noisy
from schemas.evidence.rule import EvidenceRule

RULE = EvidenceRule()
LIMITS = Limits(0.5, 0.001)
FRAMES = 3


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate fewer probes."""
    monkeypatch.setattr(still_scenes, "PROBES", 20_000)


def scenes(count: int, p_values: dict[int, float]) -> Scores:
    """Return usual scenes, but with these p-values in all frames of some."""
    generator = np.random.default_rng(1)
    found = np.minimum(1, 0.5 * np.exp2(generator.normal(0, 0.3, count * FRAMES)))
    for scene, p_value in p_values.items():
        found[scene * FRAMES : (scene + 1) * FRAMES] = p_value
    return Scores(np.full(len(found), 2.0), found, np.zeros(len(found), np.int64))


def test_an_unusual_scene_raises_an_alarm_at_each_appearance_if_the_camera_stays() -> None:
    clean = scenes(50, {7: 2e-5})
    once = false_alarms_of_scenes(clean, FRAMES, LIMITS, RULE, 1)
    staying = false_alarms_of_scenes(clean, FRAMES, LIMITS, RULE, 20)
    assert not once.any()
    assert staying[7] > 0.9
    assert not np.delete(staying, 7).any()


def test_false_alarms_of_a_year_follow_from_the_time_that_a_scene_stays() -> None:
    clean = scenes(50, {7: 2e-5})
    minute, hour = (still_false_alarms(clean, FRAMES, LIMITS, RULE, 15 * minutes, 0.25) for minutes in (1, 60))
    assert minute.of_scenes.value == pytest.approx(0.02, abs=0.002)
    assert hour.of_scenes.value == pytest.approx(0.02, abs=0.002)
    assert hour.of_scenes.low < 0.02 < hour.of_scenes.high
    scenes_a_year = 365.25 * 24
    for a_year, share in zip(hour.a_year, hour.of_scenes, strict=True):
        assert a_year == pytest.approx(share * scenes_a_year)
    assert minute.a_year.value / hour.a_year.value == pytest.approx(60, rel=0.1)


def test_a_scene_within_the_allowance_below_the_threshold_raises_no_alarm() -> None:
    barely = LIMITS.p_value * 2**-0.2
    assert not false_alarms_of_scenes(scenes(50, {7: barely}), FRAMES, LIMITS, RULE, 20).any()


def test_a_trigger_that_the_statistics_miss_in_its_scene_is_found_when_the_scene_changes() -> None:
    clean = scenes(40, {})
    attacked = replace(clean, p_value=clean.p_value.copy())
    attacked.p_value[: 30 * FRAMES] = 2e-5
    moving = still_episodes(clean, attacked, FRAMES, LIMITS, RULE, 1).probes
    staying = still_episodes(clean, attacked, FRAMES, LIMITS, RULE, 10_000).probes
    assert (moving < 100).all()
    assert (staying[:30] < 20).all()
    assert (staying[30:] == NEVER).all()


def test_no_alarm_counts_before_the_trigger() -> None:
    # The clean scenes alone are unusual now and then, and the trigger does not show.
    clean = scenes(40, {0: 2e-5})
    found = still_episodes(clean, scenes(40, {}), FRAMES, LIMITS, RULE, 20).probes
    assert (found == NEVER).all()


def test_the_frames_of_a_scene_differ_by_their_noise_alone() -> None:
    images = np.full((2, 4, 4, 3), 100, np.uint8)
    images[1] = 255
    found = noisy(LabelledPictures("grey", images, np.array([3, 5])), Scenes(frames=3, noise=2.0), seed=0)
    assert found.labels.tolist() == [3, 3, 3, 5, 5, 5]
    first = found.images[:3].astype(int) - 100
    assert first.std() == pytest.approx(2.0, abs=0.4)
    assert (first[0] != first[1]).any()
    assert found.images[3:].max() == 255
