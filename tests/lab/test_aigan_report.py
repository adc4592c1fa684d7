"""AI-GAN's tables: what counts as a success, and what the page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lab.experiments.aigan import report
from lab.experiments.aigan.defences import NOTHING
from lab.experiments.aigan.experiment import TABLES
from lab.experiments.aigan.rows import SuccessRow, TimeRow
from lab.experiments.aigan.run import rows_of
from lab.experiments.harness.store import Made, Row, Store, columns_of, values_of

LABELS = np.array([0, 0, 1, 1])
TARGETS = np.array([1, 2, 0, 2])


def rows(defence: str = NOTHING) -> list[SuccessRow]:
    seen = {"clean": np.array([0, 0, 1, 2]), "attacked": np.array([1, 0, 0, 2])}
    return list(rows_of("mnist", "white-box", "AI-GAN", 0.3, defence, seen, TARGETS, LABELS))


def test_a_success_is_a_picture_that_is_taken_for_its_target_and_every_target_has_a_row() -> None:
    whole, *by_class = rows()
    assert (whole.target, whole.hits, whole.images, whole.share) == (-1, 3, 4, 0.75)
    assert whole.low < 0.75 < whole.high
    assert (whole.accuracy, whole.clean) == (0.25, 0.75)
    assert [(row.target, row.hits, row.images) for row in by_class] == [(0, 1, 1), (1, 1, 1), (2, 1, 2)]
    assert [row.target for row in rows("drop and reconstruction")] == [-1]


def test_the_page_shows_what_the_rows_hold_and_the_ratio_of_one_run(tmp_path: Path) -> None:
    written = [*rows(), *rows("drop and reconstruction")]
    times = [TimeRow("mnist", "PGD-40", 1000, 8.0, 1), TimeRow("mnist", "AI-GAN", 1000, 0.05, 1)]
    tables = {"success": [values_of(row) for row in written], "times": [values_of(row) for row in times]}
    store = Store(tmp_path)
    store.put(Row("mnist", Made(), tables), columns_of(TABLES), [])
    report.write_report(store)
    text = (tmp_path / report.REPORT).read_text(encoding="utf-8")
    assert "| MNIST | white-box | AI-GAN | 0.3000 | 4 | 75.00 (30.06–95.44) | 25.00 | 75.00 | 99.14 % (A)" in text
    assert "| MNIST | drop and reconstruction | AI-GAN | 4 | 75.00" in text
    assert "| MNIST | PGD-40 | 1000 | 1 | 8.000 | 160.0 |" in text
