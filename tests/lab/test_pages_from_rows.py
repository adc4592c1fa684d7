"""Pages of the experiments: each committed page follows from its committed rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lab.experiments.catalogue import experiments
from lab.experiments.harness.plan import Workplace

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def pages_of(folder: Path, name: str) -> dict[str, str]:
    """Write the pages of the rows in `folder` in place of earlier pages, and return their text by file name."""
    for file in (folder / name).glob("*.md"):
        file.unlink()
    experiments()[name](Workplace(folder, folder / "runs", folder)).write_page()
    return {file.name: file.read_text() for file in (folder / name).glob("*.md")}


def halved(figure: Any, kind: type[float | int]) -> Any:
    return kind(figure / 2) if isinstance(figure, kind) else figure


@pytest.mark.parametrize("name", experiments())
def test_a_page_follows_from_its_rows_and_changes_with_a_wrong_row(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: Path(file).touch())  # drawing takes seconds
    shutil.copytree(RESULTS / name, tmp_path / name)
    pages = pages_of(tmp_path, name)
    assert pages == {file: (RESULTS / name / file).read_text() for file in pages}
    rows = tmp_path / name / "rows.json"
    if not rows.is_file():  # nothing has been measured yet
        return
    document = json.loads(rows.read_text())
    every = [(row, figures_of(row)) for row in document["rows"].values()]
    kind = float if any(isinstance(each, float) for _, figures in every for each in figures) else int
    wrong = next(row for row, figures in every if any(isinstance(each, kind) for each in figures))
    for records in wrong["tables"].values():
        records[:] = [[halved(figure, kind) for figure in record] for record in records]
    rows.write_text(json.dumps(document))
    assert pages_of(tmp_path, name) != pages


def figures_of(row: dict[str, Any]) -> list[Any]:
    return [figure for records in row["tables"].values() for record in records for figure in record]
