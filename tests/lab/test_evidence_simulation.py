"""The simulation of a camera's evidence: rare alarms, episodes, the choice of thresholds, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.evidence import splitting
from lab.evidence.episodes import IN_TIME, NEVER, Alarmed, Starts, clean_starts, episodes
from lab.evidence.false_alarms import drawn, false_alarms
from lab.evidence.measure import Choice, Found, Stream, chosen_rule, figures_of
from lab.evidence.scores import Scores, halves
from lab.evidence.splitting import LEVELS, alarm_rate
from lab.strip.fused import Fused
from lab.strip.table import calibrate_bundle
from schemas.evidence.alarms import DISAGREEMENT, KINDS, STRIP, TYPICALITY, judged_by, no_classes
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Track, advance
from tests.lab.conftest import Command
from tests.lab.frail_judge import pictures, write_frail

RULE = EvidenceRule()
LIMITS = Fused(0.5, 0.2, 0.001)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short paths, few starts and few candidates, which is enough for scores that differ much."""
    for name, value in (("REPETITIONS", 4), ("PATH", 1000), ("TRIALS", 50)):
        monkeypatch.setattr(splitting, name, value)
    monkeypatch.setattr("lab.evidence.measure.STARTS", 60)
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", tuple(range(-4, 5)))


def scores(
    count: int, seed: int, *, bits: float = 2.0, spread: float = 0.3, agreement: float = 0.9, usual: float = 0.5
) -> Scores:
    """Scores around these values, of changing verdicts."""
    chance = np.random.default_rng(seed)
    return Scores(
        bits * np.exp2(chance.normal(0, spread, count)),
        np.clip(agreement + chance.normal(0, 0.03, count), 0, 1),
        usual * np.exp2(chance.normal(0, 0.3, count)),
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
    draw = drawn(probes, probes[0], 0.0, np.random.default_rng(2))
    track, alarms, watched = Track(), 0, 0
    for _ in range(60_000):
        watched += track.calm < 0
        track, alarm = advance(track, draw(), RULE, no_classes)
        alarms += alarm is not None
    found = alarm_rate(lambda generator: drawn(probes, probes[0], 0.0, generator), RULE, 3)
    assert alarms > 20
    assert found.rate.value == pytest.approx(alarms / watched, rel=0.4)


def test_rarer_low_scores_raise_far_fewer_alarms_and_none_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("REPETITIONS", 10), ("PATH", 4000), ("TRIALS", 500)):
        monkeypatch.setattr(splitting, name, value)
    often, seldom, never = (false_alarms(with_lows(share), LIMITS, RULE, STRIP, 0.25) for share in (0.03, 0.01, 0.0))
    assert often.measured.rate.value > 2 * seldom.measured.rate.value > 0
    assert never.measured.rate.value == 0 < never.measured.rate.high == never.bound
    assert seldom.bound >= seldom.measured.rate.high > seldom.measured.rate.value
    more = scores(4000, 1)
    assert false_alarms(more, LIMITS, RULE, STRIP, 0.25).bound < never.bound


def test_an_attack_is_found_by_the_statistic_that_sees_it() -> None:
    clean = scores(500, 1)
    for kind, attacked in (
        (STRIP, scores(100, 2, bits=0.001)),
        (DISAGREEMENT, scores(100, 2, agreement=0.05)),
        (TYPICALITY, scores(100, 2, usual=1e-5)),
    ):
        found = episodes(clean, attacked, LIMITS, RULE, count=20)
        assert found.in_time(kind) == found.in_time() == 20
        assert [found.in_time(other) for other in KINDS if other != kind] == [0, 0]
        assert found.quantile(0.95) == found.either.max()
    assert episodes(clean, clean, LIMITS, RULE, count=20).in_time() == 0


def test_an_alarm_before_the_trigger_does_not_count() -> None:
    sick = scores(200, 2, bits=0.001)
    assert episodes(sick, sick, LIMITS, RULE, count=5).quantile(0.5) is None


def test_clean_starts_count_alarms_by_their_kind() -> None:
    found = clean_starts(scores(200, 2, bits=0.001), LIMITS, RULE, count=5).alarmed
    assert [int(found[kind].sum()) for kind in KINDS] == [5, 0, 0]
    assert not clean_starts(scores(200, 2), LIMITS, RULE, count=5).either.any()


def test_a_start_that_both_statistics_alarm_counts_once() -> None:
    starts = Starts({STRIP: np.array([True, True, False, False]), DISAGREEMENT: np.array([True, False, True, False])})
    none = Alarmed({kind: np.array([NEVER]) for kind in KINDS})
    assert Found(Choice(RULE), none, none, {}, starts, 0.1).clean_starts.value == 0.75


def test_the_end_of_the_time_counts() -> None:
    found = Alarmed({STRIP: np.array([1.0, IN_TIME, IN_TIME + 1, NEVER]), DISAGREEMENT: np.array([NEVER] * 4)})
    assert (found.in_time(), found.in_time(DISAGREEMENT)) == (2, 0)
    assert (found.quantile(0.5), found.quantile(0.95)) == (IN_TIME, None)


@pytest.mark.usefixtures("few")
def test_the_choice_keeps_the_allowed_alarms_and_goes_as_high_as_they_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.evidence.measure.clean_starts", no_alarm)
    clean = with_lows(0.02)
    (strict, kept), (lax, _) = (chosen_rule(clean, LIMITS, RULE, Stream(), allowed) for allowed in (0.1, 1e4))
    assert kept
    assert strict.entropy_octaves < lax.entropy_octaves
    assert false_alarms(clean, LIMITS, strict, STRIP, 0.25).measured.rate.value <= 0.05
    higher = strict.model_copy(update={"entropy_octaves": strict.entropy_octaves + 1})
    assert false_alarms(clean, LIMITS, higher, STRIP, 0.25).measured.rate.value > 0.05


def no_alarm(*_: object, count: int, **__: object) -> Starts:
    """Starts without an alarm."""
    return Starts({kind: np.zeros(count, np.bool_) for kind in KINDS})


@pytest.mark.usefixtures("few")
def test_false_alarms_above_the_allowed_ones_mark_the_figures() -> None:
    often, attacked = with_lows(0.03), scores(50, 2, bits=0.001)

    def marked(choice: Choice, allowed: float) -> object:
        return figures_of(often, attacked, LIMITS, choice, Stream(), allowed=allowed, count=1).figures()[
            "exceeds_allowed"
        ]

    assert marked(Choice(RULE), 0.1)
    assert not marked(Choice(RULE), 1e9)
    assert marked(Choice(RULE, kept=False), 1e9)


@pytest.mark.usefixtures("few")
def test_a_choice_whose_lowest_candidate_raises_more_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", (0, 1))
    found = chosen_rule(scores(200, 2, bits=0.01), LIMITS, RULE, Stream())
    assert found.rule.entropy_octaves == 0
    assert not found.kept


@pytest.mark.usefixtures("few")
def test_the_choice_raises_no_alarm_in_clean_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = scores(500, 1)
    chosen = chosen_rule(clean, LIMITS, RULE, Stream()).rule
    assert not clean_starts(clean, LIMITS, chosen, count=60).either.any()
    monkeypatch.setattr("lab.evidence.measure.clean_starts", no_alarm)
    assert chosen_rule(clean, LIMITS, RULE, Stream()).rule.entropy_octaves > chosen.entropy_octaves


@pytest.mark.usefixtures("few")
def test_a_bundle_without_drop_disagreement_has_figures_of_strip_alone() -> None:
    clean = scores(300, 1)
    alone = Fused(0.5, 0.0)
    assert chosen_rule(clean, alone, RULE, Stream()).rule.disagreement_octaves == RULE.disagreement_octaves
    found = figures_of(clean, scores(100, 2, agreement=0.05), alone, Choice(RULE), Stream(), count=5).figures()
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
        low, high = each["false_alarms_interval"]
        assert 0 <= low <= each["false_alarms"] <= high <= each["false_alarms_bound"]
        assert len(each["passages_strip"]) == len(each["bound_passages_disagreement"]) == LEVELS
        assert each["few_passages"]
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
