"""The page of the hardening's experiment."""

from __future__ import annotations

from lab.experiments.codefend.rows import DetectorRow
from lab.experiments.codefend.tables import DETECTORS
from lab.experiments.hardening.rows import AdaptedRow, AloneRow, HardRow, SceneRow, StripRow
from lab.experiments.harness.page import Column, table
from lab.statistics import wilson

_COMMAND = "pointillist lab stale --only hardening --run"


def share(value: float, count: int) -> str:
    """Return a share with its Wilson interval of 95 %."""
    found = wilson(round(value * count), count)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


ATTACKED: tuple[Column[SceneRow], ...] = (
    Column("network", lambda row: row.model),
    Column("frame", lambda row: f"{row.width}×{row.height}"),
    Column("n", lambda row: str(row.frames)),
    Column("clean", lambda row: share(row.clean, row.frames)),
    Column("attacked", lambda row: share(row.attacked, row.frames)),
    Column("attacked, shown ten times", lambda row: share(row.resubmitted, row.frames)),
)
HARD: tuple[Column[HardRow], ...] = (
    Column("network", lambda row: row.model),
    Column("frame", lambda row: f"{row.width}×{row.height}"),
    Column("r", lambda row: f"{row.drop:g}"),
    Column("n", lambda row: str(row.frames)),
    Column("right", lambda row: share(row.right / row.frames, row.frames)),
)
ADAPTED: tuple[Column[AdaptedRow], ...] = (
    Column("network", lambda row: row.model),
    Column("scenes", lambda row: row.scenes),
    Column("L∞ ε", lambda row: f"{row.eps:g}"),
    Column("frame", lambda row: f"{row.width}×{row.height}"),
    Column("n", lambda row: str(row.frames)),
    Column("clean", lambda row: share(row.clean, row.frames)),
    Column("EOT-PGD", lambda row: share(row.attacked, row.frames)),
    Column("EOT-PGD, shown ten times", lambda row: share(row.resubmitted, row.frames)),
    Column("all three attacks, each shown ten times", lambda row: share(row.worst, row.frames)),
)
ALONE: tuple[Column[AloneRow], ...] = (
    Column("network", lambda row: row.model),
    Column("scenes", lambda row: row.scenes),
    Column("L∞ ε", lambda row: f"{row.eps:g}"),
    Column("frame", lambda row: f"{row.width}×{row.height}"),
    Column("attack", lambda row: row.attack),
    Column("n", lambda row: str(row.frames)),
    Column("shown ten times", lambda row: share(row.right, row.frames)),
)
STRIP: tuple[Column[StripRow], ...] = (
    Column("network", lambda row: row.model),
    Column("accuracy", lambda row: share(row.accuracy, row.scenes)),
    Column("FRR", lambda row: share(row.frr, row.scenes)),
    Column("passes", lambda row: f"{row.passes:.1f}"),
    Column("backdoored network", lambda row: row.sick),
    Column("attack success", lambda row: f"{row.attack_success:.3f}"),
    Column("its FRR", lambda row: f"{row.sick_frr:.4f}"),
    Column("its FAR", lambda row: f"{row.far:.4f}"),
)


def scene_page(
    rows: list[SceneRow],
    hard: list[HardRow],
    strip: list[StripRow],
    adapted: list[AdaptedRow],
    alone: list[AloneRow],
    statistics: list[DetectorRow],
) -> list[str]:
    """Return the fleet's network before and after: under attack, on hard scenes, and the errors of STRIP."""
    sums = {name: [row for row in hard if row.model == name] for name in sorted({row.model for row in hard})}
    totals = [
        f"{name}: {sum(row.right for row in own)} of {sum(row.frames for row in own)} answers to hard scenes right; "
        "each scene is shown behind several drops."
        for name, own in sums.items()
    ]
    return [
        "# The fleet's network, hardened",
        f"Made by `{_COMMAND}`; the measurements are described in `lab/experiments/hardening/scene.py`.",
        "Usual scenes, 25 % dropped, EOT-PGD L∞ .03 (20 steps, 4 draws a step), rounded to 8 bits; shares with "
        "their intervals of 95 %:",
        table(ATTACKED, sorted(rows, key=lambda row: (row.height, row.model))),
        "Hardened networks under three gradient attacks: EOT-PGD, the same with momentum on the margin of logits (50 "
        "steps), and towards the margins of the three likeliest other classes. Attacked scenes are rounded to 8 bits "
        "here too, after the attack: .02, .03, .04, .0627 and .08 become 5, 8, 10, 16 and 20 of 255, of which 8 is "
        "more than .03. What is not listed was not measured:"
        if adapted
        else "",
        table(ADAPTED, adapted),
        "Attacks of other kinds, each alone on the first of these scenes: Square, without gradients (2,000 answers), "
        "and AutoAttack for random defences (two attacks of 100 steps, 20 draws a step). A lower share than above, on "
        "the same scenes, shows that the three attacks have not converged. Their shares of these 50 were not kept, so "
        "50 scenes are compared with all 300:"
        if alone
        else "",
        table(ALONE, alone),
        "Hard scenes, not attacked:",
        *totals,
        table(HARD, sorted(hard, key=lambda row: (row.height, row.drop, row.model))),
        "STRIP on whole scenes; an attacker made the backdoored network from the network, with a sticker as its "
        "trigger:",
        table(STRIP, strip),
        "All statistics of probes on these backdoored networks, by the size of the frames ([what each statistic "
        "is](../codefend/README.md)). The bundle resizes each frame to the network's input, which squeezes the "
        "sticker of a wide frame. The defender has 1,000 other scenes of that size: 100 are overlays, and 900 "
        "set the thresholds, for 1 % of false alarms. *Clean + effective*: clean scenes, and those of 400 with "
        "the sticker that reach the target. *Detected*: the share of the latter that is flagged:"
        if statistics
        else "",
        table(DETECTORS, statistics),
    ]
