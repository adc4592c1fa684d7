"""Simulation of a camera's evidence: rare alarms, episodes, the choice of the threshold, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.evidence import splitting
from lab.evidence.episodes import IN_TIME, NEVER, Alarmed, clean_starts, episodes
from lab.evidence.false_alarms import drawn, false_alarms
from lab.evidence.measure import Choice, Stream, chosen_rule, figures_of
from lab.evidence.scores import Halves, Limits, Scores, halves, scored
from lab.evidence.splitting import LEVELS, alarm_rate
from lab.strip.combined import Statistics
from lab.strip.table import calibrate_bundle
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from schemas.evidence.alarms import COMBINED, STRIP, no_classes, track_probe
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Track, advance
from tests.lab.colour_classifier import save_pictures
from tests.lab.conftest import Command
from tests.lab.nonrobust_network import pictures, write_nonrobust_bundle

RULE = EvidenceRule(history_probes=20)
"""The usual rule with a shorter history, with which a simulated probe costs half the time."""
ALONE = Limits(0.5)
TOGETHER = Limits(0.5, 0.001)


def sized(monkeypatch: pytest.MonkeyPatch, repetitions: int, path: int, trials: int) -> None:
    """Set the size of the splittings."""
    for name, value in (("REPETITIONS", repetitions), ("PATH", path), ("TRIALS", trials)):
        monkeypatch.setattr(splitting, name, value)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use short paths, few starts, appearances and candidates, which suffice for very different scores."""
    sized(monkeypatch, 4, 500, 50)
    monkeypatch.setattr("lab.evidence.still_scenes.VISITS", 1)
    monkeypatch.setattr("lab.evidence.measure.STARTS", 30)
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", tuple(range(-4, 5)))


def scores(count: int, seed: int, *, bits: float = 2.0, p_value: float = 0.5) -> Scores:
    """Return scores around these values, with changing verdicts."""
    rng = np.random.default_rng(seed)
    return Scores(
        bits * np.exp2(rng.normal(0, 0.3, count)),
        np.minimum(p_value * np.exp2(rng.normal(0, 0.3, count)), 1),
        rng.integers(0, 10, count),
    )


def with_lows(share: float) -> Scores:
    """Return clean scores, a share of which lies far below both thresholds."""
    plain = scores(1000, 1)
    bits, p_value = plain.bits.copy(), plain.p_value.copy()
    low = slice(round(share * len(bits)))
    bits[low], p_value[low] = 0.01, 2e-5
    return replace(plain, bits=bits, p_value=p_value)


def without_low_entropies(original: Scores) -> Scores:
    """Return the scores with high entropies, so that only p-values are low."""
    return replace(original, bits=np.full(len(original), 9.0))


def test_the_estimated_rate_of_rare_alarms_agrees_with_a_long_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 20, 2000, 300)
    probes = [track_probe(STRIP, each, RULE).probe for each in with_lows(0.03).probes(ALONE)]
    draw = drawn(probes, probes[0], 0.0, np.random.default_rng(2))
    track, alarms, watched_probes = Track(), 0, 0
    for _ in range(60_000):
        watched_probes += track.calm < 0
        track, alarm = advance(track, draw(), RULE, no_classes)
        alarms += alarm is not None
    found = alarm_rate(lambda generator: drawn(probes, probes[0], 0.0, generator), RULE, 3)
    assert alarms > 20
    assert found.rate.value == pytest.approx(alarms / watched_probes, rel=0.4)


def test_rarer_low_scores_raise_far_fewer_alarms_and_a_rate_of_zero_has_an_upper_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sized(monkeypatch, 10, 2000, 200)
    often, seldom, never = (false_alarms(with_lows(share), ALONE, RULE, 0.25) for share in (0.03, 0.01, 0.0))
    assert often.measured.rate.value > 2 * seldom.measured.rate.value > 0
    assert never.measured.rate.value == 0 < never.measured.rate.high == never.bound
    assert seldom.bound >= seldom.measured.rate.high > seldom.measured.rate.value
    more = scores(4000, 1)
    assert false_alarms(more, ALONE, RULE, 0.25).bound < never.bound


@pytest.mark.usefixtures("few")
def test_false_alarms_of_p_values_follow_from_their_own_rule() -> None:
    clean = with_lows(0.2)
    found, harmless = (
        false_alarms(each, TOGETHER, RULE, 0.25) for each in (without_low_entropies(clean), scores(1000, 1))
    )
    assert found.measured.rate.value > 0 == harmless.measured.rate.value
    assert found == false_alarms(clean, TOGETHER, RULE, 0.25)
    strict = RULE.model_copy(update={"combined": RULE.combined.model_copy(update={"limit": 40.0})})
    assert false_alarms(clean, TOGETHER, strict, 0.25).measured.rate.value < found.measured.rate.value / 4
    # If all p-values are usual, low entropies raise no alarm.
    entropies = replace(clean, p_value=scores(1000, 1).p_value)
    assert false_alarms(entropies, TOGETHER, RULE, 0.25) == harmless


def test_the_kind_of_alerts_follows_from_the_thresholds() -> None:
    assert (ALONE.kind, TOGETHER.kind) == (STRIP, COMBINED)
    probes = with_lows(0.001).probes(TOGETHER)
    assert [each.flagged for each in probes[:2]] == [True, False]
    assert (probes[0].p_value, probes[0].p_value_threshold, probes[0].threshold_bits) == (2e-5, 0.001, 0.5)
    low = replace(scores(3, 1), bits=np.array([0.1, 0.1, 0.6]), p_value=np.array([0.5, 1e-4, 1e-4]))
    assert [each.flagged for each in low.probes(ALONE)] == [True, True, False]
    assert [each.flagged for each in low.probes(TOGETHER)] == [False, True, True]


@pytest.mark.parametrize(
    ("limits", "seen", "unseen"),
    [(ALONE, {"bits": 0.001}, {"p_value": 1e-6}), (TOGETHER, {"p_value": 1e-6}, {"bits": 0.001})],
)
def test_an_attack_is_detected_by_the_statistic_of_the_thresholds(
    limits: Limits, seen: dict[str, float], unseen: dict[str, float]
) -> None:
    clean = scores(500, 1)
    found = episodes(clean, scores(100, 2, **seen), limits, RULE, count=20)
    assert found.in_time == 20
    assert found.quantile(0.95) == found.probes.max()
    for harmless in (scores(100, 2, **unseen), clean):
        assert episodes(clean, harmless, limits, RULE, count=20).in_time == 0


@pytest.mark.parametrize("limits", [ALONE, TOGETHER])
def test_an_alarm_before_the_trigger_is_not_a_detection(limits: Limits) -> None:
    attacked = scores(200, 2, bits=0.001, p_value=1e-6)
    assert episodes(attacked, attacked, limits, RULE, count=5).quantile(0.5) is None
    assert episodes(attacked, attacked, limits, RULE, count=5, quiet=0).in_time == 5


class InOrder:
    """A stand-in for a random generator that selects the pictures in order."""

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        """Return `count` numbers from `low` on, modulo `high`."""
        return np.arange(low, low + count) % high


@pytest.mark.parametrize("limits", [ALONE, TOGETHER])
def test_an_alarm_before_the_trigger_does_not_end_the_episode(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    clean, attacked = scores(200, 1), scores(100, 2, bits=0.001, p_value=1e-6)
    clean.bits[80:92], clean.p_value[80:92] = 0.001, 1e-6
    monkeypatch.setattr("lab.evidence.episodes.np.random.default_rng", lambda seed: InOrder())
    assert episodes(clean, attacked, limits, RULE, count=1, quiet=70).in_time == 1
    assert episodes(clean, clean, limits, RULE, count=1, quiet=70).probes[0] > 80
    assert episodes(clean, attacked, limits, RULE, count=1, quiet=200).in_time == 1


@pytest.mark.parametrize("limits", [ALONE, TOGETHER])
def test_clean_starts_with_an_alarm_are_counted(limits: Limits) -> None:
    assert clean_starts(scores(200, 2, bits=0.001, p_value=1e-6), limits, RULE, count=5) == 5
    assert clean_starts(scores(200, 2), limits, RULE, count=5) == 0


def test_an_alarm_at_the_time_limit_is_in_time() -> None:
    found = Alarmed(np.array([1.0, IN_TIME, IN_TIME + 1, NEVER]))
    assert found.in_time == 2
    assert (found.quantile(0.5), found.quantile(0.95)) == (IN_TIME, None)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("limits", "name", "other", "share", "allowed"),
    [
        (ALONE, "entropy_octaves", "combined_octaves", 0.02, 0.1),
        (TOGETHER, "combined_octaves", "entropy_octaves", 0.15, 0.5),
    ],
)
def test_the_chosen_threshold_is_the_highest_within_the_allowed_false_alarms(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, name: str, other: str, share: float, allowed: float
) -> None:
    monkeypatch.setattr("lab.evidence.measure.clean_starts", no_alarm)
    clean = with_lows(share)
    (strict, kept), (lax, _) = (chosen_rule(clean, limits, RULE, Stream(), most) for most in (allowed, 1e5))
    assert kept
    assert getattr(strict, name) < getattr(lax, name)
    assert getattr(strict, other) == getattr(RULE, other)
    assert false_alarms(clean, limits, strict, 0.25).measured.rate.value <= allowed
    higher = strict.model_copy(update={name: getattr(strict, name) + 1})
    assert false_alarms(clean, limits, higher, 0.25).measured.rate.value > allowed


def no_alarm(*_: object, count: int, **__: object) -> int:
    """Return that no start has an alarm."""
    return 0


@pytest.mark.usefixtures("few")
def test_figures_mark_false_alarms_above_the_allowed_rate() -> None:
    often, attacked = with_lows(0.03), scores(50, 2, bits=0.001)

    def marked(choice: Choice, allowed: float) -> object:
        return figures_of(often, attacked, ALONE, choice, Stream(), allowed=allowed, count=1).figures()[
            "exceeds_allowed"
        ]

    assert marked(Choice(RULE), 0.1)
    assert not marked(Choice(RULE), 1e9)
    assert marked(Choice(RULE, kept=False), 1e9)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("limits", "name"), [(ALONE, "entropy_octaves"), (TOGETHER, "combined_octaves")])
def test_a_choice_is_marked_if_even_the_lowest_candidate_raises_too_many_alarms(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, name: str
) -> None:
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", (0, 1))
    found = chosen_rule(scores(200, 2, bits=0.01, p_value=1e-5), limits, RULE, Stream())
    assert getattr(found.rule, name) == 0
    assert not found.kept


@pytest.mark.usefixtures("few")
def test_the_chosen_threshold_raises_no_alarm_in_clean_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = scores(500, 1)
    chosen = chosen_rule(clean, ALONE, RULE, Stream()).rule
    assert clean_starts(clean, ALONE, chosen, count=30) == 0
    monkeypatch.setattr("lab.evidence.measure.clean_starts", no_alarm)
    assert chosen_rule(clean, ALONE, RULE, Stream()).rule.entropy_octaves > chosen.entropy_octaves


FIGURES = (
    "kind", "octaves", "median_probes", "p95_probes", "alarmed", "alarmed_interval", "alarmed_from_start",
    "alarmed_from_start_interval", "alarmed_clean_starts", "false_alarms", "false_alarms_interval",
    "false_alarms_bound", "passages", "bound_passages", "few_passages", "exceeds_allowed",
)  # fmt: skip


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("limits", "kind", "octaves"), [(ALONE, STRIP, RULE.entropy_octaves), (TOGETHER, COMBINED, RULE.combined_octaves)]
)
def test_the_figures_are_those_of_one_kind(limits: Limits, kind: str, octaves: float) -> None:
    clean, attacked = scores(300, 1), scores(100, 2, bits=0.001, p_value=1e-6)
    found = figures_of(clean, attacked, limits, Choice(RULE), Stream(), count=5)
    figures = found.figures()
    assert tuple(figures) == FIGURES
    assert (figures["kind"], figures["octaves"]) == (kind, octaves)
    assert (figures["alarmed"], figures["alarmed_from_start"], figures["alarmed_clean_starts"]) == (1, 1, 0)
    assert figures["median_probes"] == found.after_baseline.quantile(0.5)
    assert figures["false_alarms"] == 0
    assert figures["passages"] == found.false_alarms.measured.passages
    assert figures["bound_passages"] == found.false_alarms.deeper.passages


def test_the_scores_of_a_bundle_are_its_entropies_and_p_values(combined_bundle: Path) -> None:
    pipeline, some, counted = Pipeline(load_bundle(combined_bundle, torch.device("cpu"))), pictures(20, 6), list[int]()
    strip = pipeline.bundle.settings.strip
    assert strip is not None
    assert strip.combined is not None
    found = scored(pipeline, some, counted.append)
    assert sum(counted) == 4 * 20
    expected = strip.combined.judge(Statistics.of_bundle(pipeline).measured(some)).values
    np.testing.assert_allclose(found.p_value, expected, rtol=1e-6)
    assert bool((found.p_value > 0).all())
    alone = strip.model_copy(update={"combined": None, "typicality": None})
    settings = pipeline.bundle.settings.model_copy(update={"strip": alone})
    plain = scored(Pipeline(replace(pipeline.bundle, settings=settings)), some)
    assert not plain.p_value.any()
    np.testing.assert_allclose(plain.bits, found.bits)


def test_even_scores_choose_and_odd_scores_judge() -> None:
    every = scores(7, 1)
    parts = halves(every)
    np.testing.assert_array_equal(parts.choosing.bits, every.bits[[0, 2, 4, 6]])
    np.testing.assert_array_equal(parts.judging.bits, every.bits[[1, 3, 5]])


@pytest.mark.usefixtures("few", "few_overlays")
@pytest.mark.parametrize("kind", [STRIP, COMBINED])
def test_the_command_writes_the_figures_of_both_rules(
    lab: Command, combined_bundle: Path, tmp_path: Path, kind: str
) -> None:
    bundle = combined_bundle
    if kind == STRIP:
        bundle = write_nonrobust_bundle(tmp_path / "bundle")
        calibrate_bundle(bundle, pictures(80, 5), frr=0.05, device=torch.device("cpu"))
    for name, seed in (("clean", 6), ("poisoned", 7)):
        known = pictures(120, seed)
        save_pictures(tmp_path / f"{name}.npz", known)
    file = tmp_path / "evidence.json"
    stay: tuple[object, ...] = ("--stay", 1) if kind == COMBINED else ()

    lab(
        "evidence", "--bundle", bundle, "--clean", tmp_path / "clean.npz",
        "--poisoned", tmp_path / "poisoned.npz", "--json", file, "--episodes", 4, *stay,
    ).success()  # fmt: skip

    document = json.loads(file.read_text())
    assert sorted(document) == ["chosen", "settings", "usual"]
    usual = RULE.combined_octaves if kind == COMBINED else RULE.entropy_octaves
    assert document["usual"]["octaves"] == usual != document["chosen"]["octaves"]
    for each in (document["usual"], document["chosen"]):
        assert tuple(each) == (*FIGURES, "still_false_alarms", "still_false_alarms_interval")
        assert each["kind"] == kind
        low, high = each["still_false_alarms_interval"]
        assert 0 <= low <= each["still_false_alarms"] <= high
        assert 0 <= each["alarmed_interval"][0] <= each["alarmed"] <= each["alarmed_interval"][1] <= 1
        low, high = each["false_alarms_interval"]
        assert 0 <= low <= each["false_alarms"] <= high <= each["false_alarms_bound"]
        assert len(each["passages"]) == len(each["bound_passages"]) == LEVELS
        assert each["few_passages"]
    assert (document["settings"]["clean_choosing"], document["settings"]["attacked"]) == (60, 120)
    assert document["settings"]["stay_min"] == (1 if stay else 10)


def test_alternating_classes_are_in_both_halves_of_the_scores(
    lab: Command, combined_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, parts = pictures(120, 6), list[Halves]()
    assert known.labels[:4].tolist() == [0, 1, 0, 1]
    save_pictures(tmp_path / "clean.npz", known)

    def recorded_halves(every: Scores) -> Halves:
        parts.append(halves(every))
        raise ConfigError("enough")

    monkeypatch.setattr("lab.evidence.scores.halves", recorded_halves)
    error = lab(
        "evidence", "--bundle", combined_bundle, "--clean", tmp_path / "clean.npz",
        "--poisoned", tmp_path / "clean.npz", "--json", tmp_path / "evidence.json", "--episodes", 4,
    ).refusal()  # fmt: skip
    assert "enough" in error
    for half in parts[0]:
        assert 0.2 < half.verdict.mean() < 0.8


@pytest.mark.parametrize("option", ["--fps", "--stay", "--allowed"])
def test_an_infinite_number_is_rejected_before_the_work(
    lab: Command, combined_bundle: Path, tmp_path: Path, option: str
) -> None:
    result = lab(
        "evidence", "--bundle", combined_bundle, "--clean", "nothing.npz", "--poisoned", "nothing.npz",
        "--json", tmp_path / "evidence.json", option, "inf",
    )  # fmt: skip
    assert result.code == 2
    assert option in result.err


def test_too_few_clean_pictures_are_rejected(lab: Command, combined_bundle: Path, tmp_path: Path) -> None:
    known = pictures(60, 6)
    save_pictures(tmp_path / "few.npz", known)
    error = lab(
        "evidence", "--bundle", combined_bundle, "--clean", tmp_path / "few.npz",
        "--poisoned", tmp_path / "few.npz", "--json", tmp_path / "evidence.json",
    ).refusal()  # fmt: skip
    assert "--clean: expected at least 100 pictures, got 60" in error
