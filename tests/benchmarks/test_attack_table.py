"""What the table of attacks says of a cell."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.security.attacks.table.page import markdown, verdict

CELL: dict[str, Any] = {
    "attack": "wills", "who": "stranger", "what": "leaves a will", "answer": "refused", "done": {"tries": 3},
    "reached": {}, "seen": {"mqtt login": 3.0}, "unseen": [], "frames_over_expected": 1.0, "p99_before_s": 0.1,
    "p99_during_s": 0.15, "load": 1.0, "lost": 0, "status_of_up": 0,
}  # fmt: skip


def test_an_attack_that_reached_nothing_and_was_counted_is_refused() -> None:
    assert verdict(CELL) == "refused"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reached": {"reached: let in": 2}}, "let in: 2"),
        ({"lost": 4}, "4 lost"),
        ({"unseen": ["mqtt login"]}, "not seen by mqtt login"),
        ({"p99_during_s": 0.21}, "others wait"),
        ({"p99_during_s": None}, "others wait"),
    ],
)
def test_an_attack_is_refused_only_when_nothing_is_wrong(change: dict[str, Any], words: str) -> None:
    assert verdict(CELL | change) == f"**{words}**"
    assert words in markdown([CELL | change])
