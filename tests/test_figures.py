"""The README's figures are what the measuring commands wrote."""

from __future__ import annotations

from benchmarks.figures import (
    BACKDOORS_BEGIN,
    BACKDOORS_END,
    BEGIN,
    DEFENCE_BEGIN,
    DEFENCE_END,
    END,
    README,
    ROBUSTNESS_BEGIN,
    ROBUSTNESS_END,
    with_tables,
)


def test_readme_shows_the_committed_measurements() -> None:
    text = README.read_text()
    marks = (
        BEGIN, END, DEFENCE_BEGIN, DEFENCE_END, BACKDOORS_BEGIN, BACKDOORS_END, ROBUSTNESS_BEGIN, ROBUSTNESS_END,
    )  # fmt: skip
    for mark in marks:
        assert mark in text
    assert with_tables(text) == text
