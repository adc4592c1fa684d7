"""The README's figures are what the measuring commands wrote."""

from __future__ import annotations

from benchmarks.figures import BEGIN, END, README, with_table


def test_readme_shows_the_committed_measurements() -> None:
    text = README.read_text()
    assert BEGIN in text
    assert END in text
    assert with_table(text) == text
