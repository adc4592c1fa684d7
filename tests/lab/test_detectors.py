"""The scores of backdoored models, and the rows of statistics and simulated cameras that are made of them."""

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
from lab.experiments.codefend.scores import BEATRIX, DROP, NORMS, SCALED, STRIP, Measured, Numbers, Part, scores
from lab.experiments.codefend.subjects import Subject
from lab.experiments.harness.store import Made, Row, Store, columns_of, values_of
from lab.strip.table import calibrate_bundle
from processors.bundle import load_bundle
from schemas.evidence.alarms import TYPICALITY
from tests.lab.frail_judge import CLASSES, pictures, write_frail

NUMBERS = Numbers(20, 10)


def part(count: int, seed: int, *, planted: str = "") -> Part:
    """Scores of clean pictures, or of stamped ones that the statistic `planted` sees."""
    chance = np.random.default_rng(seed)
    values = {name: chance.gamma(9, 0.2, count) for name in (STRIP, NORMS, SCALED, BEATRIX)}
    values |= {DROP: chance.beta(9, 1, count), TYPICALITY: chance.random(count)}
    if planted:
        values[planted] = values[planted] / 1000
    return Part(values, np.full(count, 3), np.arange(count) % 3)


def subject(name: str = "resnet20-source") -> Subject:
    """A model that is not loaded."""
    few = pictures(1, 0)
    return Subject(name, Path(), Path(), Task(CLASSES, few, few, few))


def test_each_statistic_is_judged_alone_and_together_within_the_same_false_alarms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stamped = part(300, 3, planted=NORMS)
    stamped.verdict[200:] = 1
    monkeypatch.setattr(Subject, "poisoning", Aims())
    found = Measured(part(2000, 1), part(2000, 2), stamped, 7)
    monkeypatch.setattr(detectors_module, "scores", lambda *_: found)
    rows = {row.statistic: row for row in detectors(subject(), NUMBERS, Cache(Path()))}
    live = f"{STRIP} + {DROP} + {TYPICALITY}"
    assert list(rows) == [
        STRIP,
        DROP,
        TYPICALITY,
        NORMS,
        SCALED,
        BEATRIX,
        f"{STRIP} + {DROP}",
        live,
        f"{live} + {NORMS}",
    ]
    assert all(row.poisoned == 200 and row.frr_high < 0.03 for row in rows.values())
    assert [name for name, row in rows.items() if row.detected > 0.9] == [NORMS, f"{live} + {NORMS}"]
    assert [name for name, row in rows.items() if row.depth == 7] == [NORMS, f"{live} + {NORMS}"]
    assert rows[NORMS].auc == 1.0
    # Each of several has a lower limit than alone.
    assert rows[f"{STRIP} + {DROP}"].frr < rows[STRIP].frr + rows[DROP].frr


class Aims:
    """An attack whose target is class 3."""

    def aims(self, labels: np.ndarray) -> np.ndarray:
        return np.full_like(labels, 3)


def test_a_camera_has_a_row_of_the_usual_and_of_the_chosen_thresholds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lab.evidence.splitting.REPETITIONS", 4)
    monkeypatch.setattr("lab.evidence.splitting.PATH", 500)
    monkeypatch.setattr("lab.evidence.splitting.TRIALS", 50)
    monkeypatch.setattr("lab.evidence.measure.STARTS", 40)
    monkeypatch.setattr("lab.evidence.measure.OCTAVES", tuple(range(-4, 5)))
    found = Measured(part(900, 1), part(900, 2), part(300, 3, planted=STRIP), None)
    monkeypatch.setattr(cameras_module, "scores", lambda *_: found)
    (usual, chosen), estimates = cameras(subject(), NUMBERS, Cache(Path()))
    assert (usual.thresholds, usual.strip_octaves, usual.drop_octaves) == ("usual", 0.0, 3.0)
    assert usual.alarmed == usual.alarmed_strip == 1 > usual.alarmed_drop
    assert usual.median_probes is not None
    assert chosen.strip_octaves > 0

    assert [(each.thresholds, each.statistic, each.scores) for each in estimates] == [
        (name, statistic, which)
        for name in ("usual", "chosen") for statistic in (STRIP, DROP, TYPICALITY) for which in ("measured", "deeper")
    ]  # fmt: skip
    assert usual.false_alarms == sum(each.false_alarms for each in estimates[:6] if each.scores == "measured")
    assert usual.few_passages == any(each.few for each in estimates[:6])


@pytest.mark.parametrize("marked", [True, False])
def test_the_page_marks_too_many_false_alarms_and_few_passages(marked: bool, tmp_path: Path) -> None:
    camera = CameraRow(
        model="resnet20-source", thresholds="usual", strip_octaves=0.0, drop_octaves=3.0, typicality_octaves=4.0,
        clean=1000, episodes=200, median_probes=None, p95_probes=None, alarmed=0.5, alarmed_low=0.4, alarmed_high=0.6,
        alarmed_strip=0.2, alarmed_drop=0.3, alarmed_typicality=0.4, from_start=0.1, clean_starts=0.0, false_alarms=0.1,
        false_alarms_low=0.05, false_alarms_high=0.2, false_alarms_bound=7.0, allowed=0.1, exceeds=marked,
        few_passages=marked,
    )  # fmt: skip
    splitting = SplittingRow("resnet20-source", "usual", STRIP, "deeper", 1.0, 0.5, 2.0, [4321, 3], marked)
    store = Store(tmp_path)
    tables = {"cameras": [values_of(camera)], "splitting": [values_of(splitting)]}
    store.put(Row("cell", Made(), tables), columns_of({"cameras": CameraRow, "splitting": SplittingRow}), ["cell"])
    write_report(store)
    first, second = (
        line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| resnet20-source |")
    )
    assert "| resnet20-source | usual | +0, +3, +4 |" in first
    assert ("| 0.1 [0.05, 0.2], **more than 0.1** | 7, few passages |" in first) == marked
    assert ("| 0.1 [0.05, 0.2] | 7 |" in first) != marked
    assert ("| 4,321, 3: few |" in second) == marked


def test_scores_leave_the_overlays_out_and_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.strip.limits.DRAWS", 100)
    write_frail(tmp_path / "bundle")
    held_out = pictures(300, 5)
    calibrate_bundle(tmp_path / "bundle", held_out, frr=0.05, device=torch.device("cpu"))
    model = Subject("frail", tmp_path, tmp_path, Task(CLASSES, held_out, held_out, pictures(60, 6)))
    vars(model).update(
        bundle=load_bundle(tmp_path / "bundle", torch.device("cpu")), stamped=pictures(60, 7), state="state"
    )
    found = scores(model, NUMBERS, Cache(tmp_path))
    assert [len(each.verdict) for each in (found.known, found.clean, found.stamped)] == [200, 20, 10]
    assert found.depth == 1
    assert set(found.clean.values) == {STRIP, DROP, TYPICALITY, NORMS, SCALED, BEATRIX}
    np.testing.assert_array_equal(found.clean.scores.agreement, found.clean.values[DROP])
    monkeypatch.setattr(scores_module, "check", None)
    monkeypatch.setattr(scores_module, "agreements", None)
    monkeypatch.setattr(scores_module, "doubts", None)
    again = scores(model, NUMBERS, Cache(tmp_path))
    np.testing.assert_array_equal(again.stamped.values[NORMS], found.stamped.values[NORMS])
