"""The simulation of a camera's evidence: rare alarms, episodes, the choice of thresholds, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.evidence.episodes import IN_TIME, NEVER, Alarmed, clean_starts, episodes
from lab.evidence.false_alarms import Draws, alarm_rate, false_alarms
from lab.evidence.measure import Stream, chosen_rule, figures_of
from lab.evidence.scores import Scores, halves
from lab.strip.disagreement import Fused
from lab.strip.table import calibrate_bundle
from schemas.evidence.alarms import DISAGREEMENT, KINDS, STRIP, judged_by, no_classes
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Track, advance
from tests.lab.conftest import Command
from tests.lab.frail_judge import pictures, write_frail

RULE = EvidenceRule()
LIMITS = Fused(0.5, 0.2)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short paths, few starts and few candidates, which is enough for scores that differ much."""
    monkeypatch.setattr("lab.evidence.false_alarms.PATH", 3000)
    monkeypatch.setattr("lab.evidence.false_alarms.TRIALS", 100)
    monkeypatch.setattr("lab.evidence.measure.STARTS", 60)
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", tuple(range(-4, 5)))


def scores(count: int, seed: int, *, bits: float = 2.0, spread: float = 0.3, agreement: float = 0.9) -> Scores:
    """Scores around these values, of changing verdicts."""
    chance = np.random.default_rng(seed)
    return Scores(
        bits * np.exp2(chance.normal(0, spread, count)),
        np.clip(agreement + chance.normal(0, 0.03, count), 0, 1),
        chance.integers(0, 10, count),
    )


def with_lows(share: float) -> Scores:
    """Clean scores of which a share lies far below the threshold."""
    plain = scores(1000, 1)
    bits = plain.bits.copy()
    bits[: round(share * len(bits))] = 0.01
    return replace(plain, bits=bits)


def test_the_rate_of_rare_alarms_is_that_of_waiting_for_them() -> None:
    probes = [judged_by(STRIP, each, RULE).probe for each in with_lows(0.03).probes(LIMITS)]
    draw = Draws(probes, probes[0], 0.0, np.random.default_rng(2))
    track, alarms, watched = Track(), 0, 0
    for _ in range(60_000):
        watched += track.calm < 0
        track, alarm = advance(track, draw(), RULE, no_classes)
        alarms += alarm is not None
    generator = np.random.default_rng(3)
    estimates = [alarm_rate(Draws(probes, probes[0], 0.0, generator), RULE, generator) for _ in range(3)]
    assert alarms > 20
    assert np.mean(estimates) == pytest.approx(alarms / watched, rel=0.4)


def test_rarer_low_scores_raise_far_fewer_alarms_and_none_are_bounded() -> None:
    often, seldom, never = (false_alarms(with_lows(share), LIMITS, RULE, STRIP, 0.25) for share in (0.03, 0.01, 0.0))
    assert often.value > 2 * seldom.value > 0
    assert never.value == 0 < never.bound
    assert seldom.bound >= seldom.value
    more = scores(8000, 1)
    assert false_alarms(more, LIMITS, RULE, STRIP, 0.25).bound < never.bound


def test_an_attack_is_found_by_the_statistic_that_sees_it() -> None:
    clean = scores(500, 1)
    for kind, attacked in (
        (STRIP, scores(100, 2, bits=0.001)),
        (DISAGREEMENT, scores(100, 2, agreement=0.05)),
    ):
        found = episodes(clean, attacked, LIMITS, RULE, count=20)
        (other,) = set(KINDS) - {kind}
        assert found.in_time(kind) == found.in_time() == 20
        assert found.in_time(other) == 0
        assert found.quantile(0.95) == found.either.max()
    assert episodes(clean, clean, LIMITS, RULE, count=20).in_time() == 0


def test_an_alarm_before_the_trigger_does_not_count() -> None:
    sick = scores(200, 2, bits=0.001)
    assert episodes(sick, sick, LIMITS, RULE, count=5).quantile(0.5) is None


def test_clean_starts_count_alarms_by_their_kind() -> None:
    found = clean_starts(scores(200, 2, bits=0.001), LIMITS, RULE, count=5)
    assert found == {STRIP: 5, DISAGREEMENT: 0}
    assert clean_starts(scores(200, 2), LIMITS, RULE, count=5) == {STRIP: 0, DISAGREEMENT: 0}


def test_the_end_of_the_time_counts() -> None:
    found = Alarmed({STRIP: np.array([1.0, IN_TIME, IN_TIME + 1, NEVER]), DISAGREEMENT: np.array([NEVER] * 4)})
    assert (found.in_time(), found.in_time(DISAGREEMENT)) == (2, 0)
    assert (found.quantile(0.5), found.quantile(0.95)) == (IN_TIME, None)


@pytest.mark.usefixtures("few")
def test_the_choice_keeps_the_allowed_alarms_and_goes_as_high_as_they_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.evidence.measure.clean_starts", lambda *_, **__: {STRIP: 0, DISAGREEMENT: 0})
    clean = with_lows(0.02)
    strict, lax = (chosen_rule(clean, LIMITS, RULE, Stream(), allowed) for allowed in (0.1, 1e4))
    assert strict.entropy_octaves < lax.entropy_octaves
    assert false_alarms(clean, LIMITS, strict, STRIP, 0.25).value <= 0.05
    higher = strict.model_copy(update={"entropy_octaves": strict.entropy_octaves + 1})
    assert false_alarms(clean, LIMITS, higher, STRIP, 0.25).value > 0.05


@pytest.mark.usefixtures("few")
def test_the_choice_raises_no_alarm_in_clean_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = scores(500, 1)
    chosen = chosen_rule(clean, LIMITS, RULE, Stream())
    assert clean_starts(clean, LIMITS, chosen, count=60) == {STRIP: 0, DISAGREEMENT: 0}
    monkeypatch.setattr("lab.evidence.measure.clean_starts", lambda *_, **__: {STRIP: 0, DISAGREEMENT: 0})
    assert chosen_rule(clean, LIMITS, RULE, Stream()).entropy_octaves > chosen.entropy_octaves


@pytest.mark.usefixtures("few")
def test_a_bundle_without_drop_disagreement_has_figures_of_strip_alone() -> None:
    clean = scores(300, 1)
    alone = Fused(0.5, 0.0)
    assert chosen_rule(clean, alone, RULE, Stream()).disagreement_octaves == RULE.disagreement_octaves
    found = figures_of(clean, scores(100, 2, agreement=0.05), alone, RULE, Stream(), count=5).figures()
    assert found["alarmed"] == 0
    assert "false_alarms_disagreement" not in found


def test_scores_choose_or_judge() -> None:
    every = scores(7, 1)
    parts = halves(every)
    np.testing.assert_array_equal(parts.choosing.bits, every.bits[[0, 2, 4, 6]])
    np.testing.assert_array_equal(parts.judging.bits, every.bits[[1, 3, 5]])


@pytest.mark.usefixtures("few")
def test_the_command_writes_the_figures_of_both_rules(
    lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.strip.limits.DRAWS", 100)
    write_frail(tmp_path / "bundle")
    calibrate_bundle(tmp_path / "bundle", pictures(260, 5), frr=0.05, disagreement=True, device=torch.device("cpu"))
    for name, seed in (("clean", 6), ("poisoned", 7)):
        known = pictures(120, seed)
        np.savez(tmp_path / f"{name}.npz", images=known.images, labels=known.labels)
    file = tmp_path / "evidence.json"

    lab(
        "evidence", "--bundle", tmp_path / "bundle", "--clean", tmp_path / "clean.npz",
        "--poisoned", tmp_path / "poisoned.npz", "--json", file, "--episodes", 4,
    ).success()  # fmt: skip

    document = json.loads(file.read_text())
    assert document["usual"]["disagreement_octaves"] == RULE.disagreement_octaves
    assert document["chosen"]["entropy_octaves"] != document["usual"]["entropy_octaves"]
    for each in (document["usual"], document["chosen"]):
        assert 0 <= each["alarmed_interval"][0] <= each["alarmed"] <= each["alarmed_interval"][1] <= 1
        assert 0 <= each["false_alarms"] <= each["false_alarms_bound"]
    assert (document["settings"]["clean_choosing"], document["settings"]["attacked"]) == (60, 120)


def test_few_clean_pictures_are_refused(lab: Command, tmp_path: Path) -> None:
    write_frail(tmp_path / "bundle")
    calibrate_bundle(tmp_path / "bundle", pictures(260, 5), frr=0.05, device=torch.device("cpu"))
    known = pictures(60, 6)
    np.savez(tmp_path / "few.npz", images=known.images, labels=known.labels)
    refused = lab(
        "evidence", "--bundle", tmp_path / "bundle", "--clean", tmp_path / "few.npz",
        "--poisoned", tmp_path / "few.npz", "--json", tmp_path / "evidence.json",
    ).refusal()  # fmt: skip
    assert "--clean: expected at least 100 pictures, got 60" in refused
