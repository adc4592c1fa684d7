from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from infra.cli.rows import print_rows

CAMERAS = ("camera", "is", "frames", "last", "sends", "why")
PROCESSORS = ("processor", "running", "serves", "is live", "runs", "since", "refused")


def lines(names: tuple[str, ...], *rows: tuple[str, ...], width: int = 80) -> list[str]:
    console = Console(width=width, file=StringIO(), soft_wrap=True)
    print_rows(console, names, rows)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("names", "row"),
    [
        (CAMERAS, (
            "crossing/crossing-0", "degraded", "1234567", "12 s ago", "1920×1088 2/s", "the source gives no frames",
        )),
        (PROCESSORS, (
            "processor-1", "yes", "scene@1", "yes", "classifier on openvino int8, reconstruction on torch float32",
            "2026-11-22 10:31:02Z", "expected a signature of somebody whom it trusts, got none",
        )),
    ],
    ids=["cameras", "processors"],
)  # fmt: skip
@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_word_is_broken_whatever_the_width(names: tuple[str, ...], row: tuple[str, ...], width: int) -> None:
    shown = lines(names, row, width=width)
    words = {word.strip(":") for line in shown for word in line.split()}
    assert {word for value in row for word in value.split()} <= words | {word.strip(",") + "," for word in words}
    assert max(map(len, shown)) <= max(width, max(map(len, row)) + 12)


def test_what_fits_is_a_table_and_a_column_without_values_is_left_out() -> None:
    shown = lines(CAMERAS, ("local/cam-0", "online", "5", "1 s ago", "64×48 2/s", ""))
    assert "│ local/cam-0 │ online │ 5      │ 1 s ago │ 64×48 2/s │" in shown
    assert "why" not in "\n".join(shown)
