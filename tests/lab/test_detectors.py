"""Scores of backdoored models, and the rows of statistics and simulated cameras made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.backdoor.tasks import Task
from lab.cache import Cache
from lab.experiments.codefend import cameras as cameras_module
from lab.experiments.codefend import detectors as detectors_module
from lab.experiments.codefend import scores as scores_module
from lab.experiments.codefend.cameras import cameras
from lab.experiments.codefend.detectors import detectors
from lab.experiments.codefend.report import write_report
from lab.experiments.codefend.rows import CameraRow, SplittingRow
from lab.experiments.codefend.scores import (
    BEATRIX,
    DROP,
    NORMS,
    OWN,
    SCALED,
    STRIP,
    TOGETHER,
    TYPICAL,
    Measured,
    Numbers,
    Part,
    scores,
)  # fmt: skip
from lab.experiments.codefend.subjects import Subject
from lab.experiments.harness.store import Made, Row, Store, columns_of, values_of
from lab.strip.combined import combined
from lab.strip.table import calibrate_bundle
from processors.bundle import CombinedThreshold, StripSettings, load_bundle
from schemas.evidence.rule import EvidenceRule
from tests.lab.nonrobust_network import CLASSES, pictures, write_nonrobust_bundle

NUMBERS = Numbers(20, 10)


def part(count: int, seed: int, *, planted: tuple[str, ...] = (), times: float = 0.001) -> Part:
    """Return scores without p-values, of clean pictures or of stamped ones that the statistics `planted` detect."""
    rng = np.random.default_rng(seed)
    values = {name: rng.gamma(9, 0.2, count) for name in (STRIP, NORMS, SCALED, BEATRIX)}
    values |= {DROP: rng.beta(9, 1, count), TYPICAL: rng.random(count)}
    for name in planted:
        values[name] = values[name] * times
    return Part(values, np.full(count, 3), np.arange(count) % 3)


def live_values(of: Part) -> dict[str, np.ndarray]:
    """Return the values of the statistics that run live."""
    return {name: of.values[called] for name, called in OWN.items() if called in of.values}


def measured(known: Part, clean: Part, stamped: Part, norms: int | None = 7) -> Measured:
    """Return scores with their p-values."""
    table = combined(live_values(known), 0.01, norms)

    def judged(of: Part) -> Part:
        return Part({**of.values, TOGETHER: table.judge(live_values(of)).values}, of.verdict, of.label)

    return Measured(judged(known), judged(clean), judged(stamped), table)


def subject(name: str = "resnet20-source") -> Subject:
    """Return a model without loading it."""
    few = pictures(1, 0)
    return Subject(name, Path(), Path(), Task(CLASSES, few, few, few))


def test_each_statistic_and_their_combination_have_the_same_false_alarms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stamped = part(300, 3, planted=(NORMS,))
    stamped.verdict[200:] = 1
    monkeypatch.setattr(Subject, "poisoning", Aims())
    found = measured(part(2000, 1), part(2000, 2), stamped)
    monkeypatch.setattr(detectors_module, "scores", lambda *_: found)
    rows = {row.statistic: row for row in detectors(subject(), NUMBERS, Cache(Path()))}
    assert list(rows) == [STRIP, DROP, TYPICAL, NORMS, TOGETHER, SCALED, BEATRIX]
    assert all(row.poisoned == 200 and row.frr_high < 0.03 for row in rows.values())
    assert [name for name, row in rows.items() if row.detected > 0.9] == [NORMS, TOGETHER]
    assert [name for name, row in rows.items() if row.depth == 7] == [NORMS]
    assert rows[NORMS].auc == 1.0
    assert rows[TOGETHER].auc > 0.98 > 0.6 > rows[STRIP].auc


def test_weak_evidence_of_many_statistics_is_detected_only_by_their_combination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Subject, "poisoning", Aims())
    stamped = part(300, 3, planted=(STRIP, DROP, TYPICAL, NORMS), times=0.5)
    found = measured(part(2000, 1), part(2000, 2), stamped)
    monkeypatch.setattr(detectors_module, "scores", lambda *_: found)
    rows = {row.statistic: row for row in detectors(subject(), NUMBERS, Cache(Path()))}
    assert rows[TOGETHER].detected > 0.9 > 0.6 > max(rows[name].detected for name in (STRIP, TYPICAL, NORMS))


def test_a_network_without_batch_norms_has_no_row_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part(400, seed) for seed in (1, 2, 3)]
    few = [
        Part({name: each for name, each in of.values.items() if name != NORMS}, of.verdict, of.label) for of in parts
    ]
    monkeypatch.setattr(Subject, "poisoning", Aims())
    found = measured(few[0], few[1], few[2], None)
    monkeypatch.setattr(detectors_module, "scores", lambda *_: found)
    assert [row.statistic for row in detectors(subject(), NUMBERS, Cache(Path()))] == [
        STRIP, DROP, TYPICAL, TOGETHER, SCALED, BEATRIX,
    ]  # fmt: skip


class Aims:
    """An attack whose target is class 3."""

    def aims(self, labels: np.ndarray) -> np.ndarray:
        return np.full_like(labels, 3)


def test_a_camera_has_rows_for_the_usual_and_for_the_chosen_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras_module, "EvidenceRule", lambda: EvidenceRule(history_probes=20))
    monkeypatch.setattr("lab.evidence.splitting.REPETITIONS", 4)
    monkeypatch.setattr("lab.evidence.splitting.PATH", 200)
    monkeypatch.setattr("lab.evidence.splitting.TRIALS", 20)
    monkeypatch.setattr("lab.evidence.measure.STARTS", 20)
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", tuple(range(-4, 4)))
    found = measured(part(900, 1), part(900, 2), part(300, 3, planted=(STRIP,)))
    monkeypatch.setattr(cameras_module, "scores", lambda *_: found)
    calibrated_bundle = Calibrated(StripSettings(threshold_bits=0.5, frr=0.01, overlays="overlays.npy"))
    monkeypatch.setattr(Subject, "bundle", calibrated_bundle)
    (usual, chosen), estimates = cameras(subject(), NUMBERS, Cache(Path()))
    assert (usual.thresholds, usual.octaves) == ("usual", EvidenceRule().combined_octaves)
    assert (usual.alarmed, usual.clean, usual.episodes) == (1, 900, 200)
    assert usual.median_probes is not None
    assert (chosen.thresholds, chosen.octaves, chosen.alarmed, chosen.exceeds) == ("chosen", 3, 1, False)

    assert [(each.thresholds, each.scores) for each in estimates] == [
        (name, which) for name in ("usual", "chosen") for which in ("measured", "deeper")
    ]
    for row, own_estimates in ((usual, estimates[:2]), (chosen, estimates[2:])):
        assert row.false_alarms == own_estimates[0].false_alarms
        assert row.false_alarms_bound == max(own_estimates[0].false_alarms, own_estimates[1].high)
        assert row.few_passages == any(each.few for each in own_estimates)


class Calibrated:
    """A stand-in for a bundle, with a strip table alone."""

    def __init__(self, strip: StripSettings) -> None:
        self.settings = self
        self.strip = strip


@pytest.mark.parametrize("marked", [True, False])
def test_the_page_marks_too_many_false_alarms_and_few_passages(marked: bool, tmp_path: Path) -> None:
    camera = CameraRow(
        model="resnet20-source", thresholds="usual", octaves=4.0, clean=1000, episodes=200, median_probes=None,
        p95_probes=None, alarmed=0.5, alarmed_low=0.4, alarmed_high=0.6, from_start=0.1, clean_starts=0.0,
        false_alarms=0.1, false_alarms_low=0.05, false_alarms_high=0.2, false_alarms_bound=7.0, allowed=0.1,
        exceeds=marked, few_passages=marked,
    )  # fmt: skip
    splitting = SplittingRow("resnet20-source", "usual", "deeper", 1.0, 0.5, 2.0, [4321, 3], marked)
    store = Store(tmp_path)
    tables = {"cameras": [values_of(camera)], "splitting": [values_of(splitting)]}
    store.put(Row("cell", Made(), tables), columns_of({"cameras": CameraRow, "splitting": SplittingRow}), ["cell"])
    write_report(store)
    first, second = (
        line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| resnet20-source |")
    )
    assert "| resnet20-source | usual | +4 | never, never |" in first
    assert ("| 0.1 [0.05, 0.2], **more than 0.1** | 7, few passages |" in first) == marked
    assert ("| 0.1 [0.05, 0.2] | 7 |" in first) != marked
    assert ("| 4,321, 3: few |" in second) == marked


@pytest.mark.usefixtures("few_overlays")
def test_scores_exclude_the_overlays_and_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nonrobust_bundle(tmp_path / "bundle")
    held_out = pictures(150, 5)
    calibrate_bundle(tmp_path / "bundle", held_out, frr=0.05, device=torch.device("cpu"))
    model = Subject("nonrobust", tmp_path, tmp_path, Task(CLASSES, held_out, held_out, pictures(60, 6)))
    vars(model).update(
        bundle=load_bundle(tmp_path / "bundle", torch.device("cpu")), stamped=pictures(60, 7), state="state"
    )
    found = scores(model, NUMBERS, Cache(tmp_path))
    assert [len(each.verdict) for each in (found.known, found.clean, found.stamped)] == [140, 20, 10]
    assert isinstance(found.combined, CombinedThreshold)
    assert (found.combined.norms, found.combined.frr) == (1, 0.01)
    assert set(found.clean.values) == {STRIP, DROP, TYPICAL, NORMS, TOGETHER, SCALED, BEATRIX}
    np.testing.assert_array_equal(found.clean.scores.p_value, found.combined.judge(live_values(found.clean)).values)
    # The table is fitted to the defender's pictures.
    assert found.combined == combined(live_values(found.known), 0.01, 1)
    for name in ("check", "fit", "scaled_doubts", "seen"):
        monkeypatch.setattr(scores_module, name, None)
    again = scores(model, NUMBERS, Cache(tmp_path))
    assert again.combined == found.combined
    for name in (NORMS, TOGETHER):
        np.testing.assert_array_equal(again.stamped.values[name], found.stamped.values[name])
