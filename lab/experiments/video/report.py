"""The page of the attack through the codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.experiments.harness.page import Column, table
from lab.experiments.video.measure import DROP, EPS, SAMPLES, SIZE, STEPS, TIMES, AttackRow
from lab.statistics import Interval, mean_interval, paired_interval, wilson

Rows = Sequence[AttackRow]


def _share(rows: Rows, field: str, of: int = 1) -> str:
    found = np.array([getattr(row, field) for row in rows]) / of
    # The answers to one picture depend on each other, so pictures are resampled.
    whole = bool((found == found.round()).all())
    return _interval(wilson(int(found.sum()), len(found)) if whole else mean_interval(found))


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _pairs(rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return np.array([row.video_first == 1 for row in rows]), np.array([row.raw_first == 1 for row in rows])


def _ratio(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Interval:
    """Return the ratio of two shares. Its interval is that of the difference ÷ `theirs`: it has a width at 1."""
    share = max(theirs.mean(), 1 / len(theirs))
    value, low, high = (1 + each / share for each in paired_interval(ours, theirs))
    return Interval(value, low, high)


COLUMNS: Final[tuple[Column[Rows], ...]] = (
    Column("network", lambda rows: rows[0].network),
    Column("scenes", lambda rows: str(len(rows))),
    Column("clean, `raw`", lambda rows: _share(rows, "clean_raw")),
    Column("clean, `video`", lambda rows: _share(rows, "clean_video")),
    Column("attacked, `raw`", lambda rows: _share(rows, "raw_first")),
    Column("attacked, `video`", lambda rows: _share(rows, "video_first")),
    Column("`video` − `raw`", lambda rows: _interval(paired_interval(*_pairs(rows)))),
    Column("`video` ÷ `raw`", lambda rows: _interval(_ratio(*_pairs(rows)))),
)
MORE: Final[tuple[Column[Rows], ...]] = (
    Column("network", lambda rows: rows[0].network),
    Column("`raw`", lambda rows: _share(rows, "raw", TIMES)),
    Column("`video`", lambda rows: _share(rows, "video", TIMES)),
    Column("attack on `raw`, sent under `video`", lambda rows: _share(rows, "raw_sent_by_video", TIMES)),
    Column("attack on `video`, sent under `raw`", lambda rows: _share(rows, "video_sent_by_raw", TIMES)),
)


def page(rows: Rows) -> list[str]:
    """Return the parts of the page."""
    networks = [[row for row in rows if row.network == name] for name in dict.fromkeys(row.network for row in rows)]
    return [
        "# Attacked through the codec",
        "Made by `pointillist lab stale --only video --run`; the measurement is described in "
        "`lab/experiments/video/measure.py`, the attacker in `lab/attacks/coded.py`.",
        f"Usual scenes of {SIZE[1]}×{SIZE[0]} pixels, {DROP:.0%} dropped, EOT-PGD L∞ {EPS:g} ({STEPS} steps, {SAMPLES} "
        "draws of the mask a step), rounded to 8 bits. Each profile is attacked by itself, `video` through fill and "
        "codec by BPDA. Shares of right answers, with intervals of 95 %. That of the difference is paired, and "
        "that of the ratio follows from it.",
        table(COLUMNS, networks),
        *[
            f"On `{rows[0].network}` the attack breaks nothing under either profile: its row does not compare them."
            for rows in networks
            if all(row.raw_first >= row.clean_raw and row.video_first >= row.clean_video for row in rows)
        ],
        f"The same attacked scenes sent {TIMES} times, each time under another mask; mean over all answers:",
        table(MORE, networks),
    ]
