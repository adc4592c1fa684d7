"""Pages for people from the rows of the hardening's experiments."""

from __future__ import annotations

from lab.experiments.hardening.rows import HardRow, SceneRow, StripRow
from lab.results.markdown import markdown
from lab.statistics import wilson

_COMMAND = "python -m lab.experiments.hardening.scene --out docs/results/hardening"


def share(value: float, count: int) -> str:
    """A share with its Wilson interval of 95 %."""
    found = wilson(round(value * count), count)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def scene_page(rows: list[SceneRow], hard: list[HardRow], strip: list[StripRow]) -> str:
    """The fleet's network before and after: under attack, on hard scenes, and STRIP's errors."""
    order = sorted(rows, key=lambda row: (row.height, row.model))
    attacked = [
        [
            row.model, f"{row.width}×{row.height}", str(row.frames), share(row.clean, row.frames),
            share(row.attacked, row.frames), share(row.resubmitted, row.frames),
        ]
        for row in order
    ]  # fmt: skip
    dark = [
        [row.model, f"{row.width}×{row.height}", f"{row.drop:g}", str(row.frames), f"{row.right / row.frames:.3f}"]
        for row in sorted(hard, key=lambda row: (row.height, row.drop, row.model))
    ]
    sums = {name: [row for row in hard if row.model == name] for name in sorted({row.model for row in hard})}
    totals = [
        f"{name}: {sum(row.right for row in own)} of {sum(row.frames for row in own)} hard scenes right."
        for name, own in sums.items()
    ]
    judged = [
        [
            row.model, share(row.accuracy, row.scenes), share(row.frr, row.scenes), f"{row.passes:.1f}", row.sick,
            f"{row.attack_success:.3f}", f"{row.sick_frr:.4f}", f"{row.far:.4f}",
        ]
        for row in strip
    ]  # fmt: skip
    return "\n\n".join(
        [
            "# The fleet's network, hardened",
            f"Made by `{_COMMAND}`; what the columns are stands in `lab/experiments/hardening/scene.py`.",
            "Usual scenes, 25 % dropped, EOT-PGD L∞ .03 (20 steps, 4 draws a step), rounded to 8 bits; shares with "
            "their intervals of 95 %:",
            markdown(("network", "frame", "n", "clean", "attacked", "attacked, right ten times of ten"), attacked),
            "Hard scenes, not attacked:",
            *totals,
            markdown(("network", "frame", "r", "n", "right"), dark),
            "STRIP on whole scenes; an attacker made the sick network of it, with the sticker:",
            markdown(
                ("network", "accuracy", "FRR", "passes", "sick network", "attack success", "its FRR", "its FAR"),
                judged,
            ),
        ]
    )
