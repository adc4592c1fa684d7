"""The verdict of each cell in the table of attacks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.security.attacks.table.__main__ import judged
from benchmarks.security.attacks.table.page import markdown, verdict
from benchmarks.security.attacks.table.target import DROPPED, MALLORY, Target
from infra.state_folder import Layout
from schemas.identity import CameraId

CELL: dict[str, Any] = {
    "attack": "wills", "who": "stranger", "what": "leaves a will", "answer": "refused", "done": {"tries": 3},
    "reached": {}, "seen": {"mqtt login": 3.0}, "unseen": [], "frames_over_expected": 1.0, "p99_before_s": 0.1,
    "p99_during_s": 0.15, "load": 1.0, "lost": 0, "status_of_up": 0,
}  # fmt: skip


def test_an_attack_without_effect_that_was_counted_is_refused() -> None:
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
def test_each_effect_of_an_attack_is_named_in_its_verdict(change: dict[str, Any], words: str) -> None:
    assert verdict(CELL | change) == f"**{words}**"
    assert words in markdown([CELL | change])


def test_an_attack_that_silences_a_camera_succeeds(tmp_path: Path) -> None:
    layout, cameras = Layout(tmp_path), (CameraId("local/cam-0"), CameraId("local/cam-1"))
    with closing(sqlite3.connect(layout.database)) as connection, connection:
        connection.execute("create table frames (camera, captured_ms, recorded_ms, dropped_per_block)")
        rows = [(camera, at, at + 20, DROPPED) for at in range(0, 2000, 100) for camera in (*cameras, MALLORY)]
        off = [row for row in rows if row[0] == cameras[1] and row[1] >= 1000]
        connection.executemany("insert into frames values (?, ?, ?, ?)", [row for row in rows if row not in off])
    target = Target.__new__(Target)
    object.__setattr__(target, "layout", layout)
    object.__setattr__(target, "cameras", cameras)
    cell = CELL | {"quiet_ms": [(0, 1000)], "during_ms": [(1000, 2000)]}
    assert judged(target, cell)["reached"] == {"reached: good cameras silenced": 1}
    assert verdict(judged(target, cell)) == "**good cameras silenced: 1**"
    assert judged(target, cell | {"during_ms": [(500, 1000)], "quiet_ms": [(0, 500)]})["reached"] == {}
