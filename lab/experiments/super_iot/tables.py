"""Markdown tables from the CSV rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lab.experiments.harness.page import cells
from lab.experiments.super_iot.defences import DEFAULT, PAPER, WITHOUT_ATTACKS
from lab.experiments.super_iot.published import TABLE_1, TABLE_2
from lab.experiments.super_iot.rivals import STANDARD
from lab.experiments.super_iot.rows import Comparison, QualityRow, Row, SizeRow
from lab.experiments.super_iot.sizes import LOSSY, WHOLE
from lab.experiments.super_iot.verdict import Finding
from lab.results.margin import margin
from lab.results.markdown import markdown
from lab.statistics import paired_interval

PAPER_RATIO = 0.10
"""Drop ratio at which the paper compares itself with the others."""


def share(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a share to three places, with the margin of its interval."""
    if value is None:
        return "–"
    text = f"{value:.3f}".removeprefix("0") if value < 1 else "1.000"
    return text if low is None or high is None else f"{text} ±{f'{margin(value, low, high):.3f}'.removeprefix('0')}"


def attack_name(row: Row | Comparison) -> str:
    """Return a name such as `PGD .01, targeted`."""
    return row.label if row.attack == "clean" else f"{row.label}, {'targeted' if row.targeted else 'untargeted'}"


def _attacks(rows: Iterable[Row]) -> list[tuple[str, bool, str]]:
    """Return the distinct attacks in the order of the rows."""
    return list(dict.fromkeys((row.attack, row.targeted, attack_name(row)) for row in rows))


def by_ratio(rows: Sequence[Row], defence: str, scope: str = "sweep", rounded: bool = True) -> str:
    """Return Table I: accuracy for every attack and drop ratio. The paper's figures stand next to its own rows."""
    chosen = [row for row in rows if (row.defence, row.scope, row.rounded) == (defence, scope, rounded)]
    ratios = sorted({row.r for row in chosen if row.r is not None})
    heads = ["attack", "n × repeats", "bare", *(f"r = {ratio:.2f}" for ratio in ratios)]
    lines: list[list[str]] = []
    for attack, targeted, name in _attacks(chosen):
        cells = {row.r: row for row in chosen if (row.attack, row.targeted) == (attack, targeted)}
        first = next(iter(cells.values()))
        lines.append(
            [name, f"{first.n} × {first.repeats}", share(first.undefended)]
            + [share(c.accuracy, c.ci_low, c.ci_high) if (c := cells.get(ratio)) else "" for ratio in ratios]
        )
        if defence == PAPER and attack in TABLE_1 and (targeted or attack in ("clean", "deepfool")):
            lines.append(_printed(attack, ratios))
    return markdown(heads, lines)


def _printed(attack: str, ratios: list[float]) -> list[str]:
    from lab.experiments.super_iot.plan import RATIOS

    bare, *values = TABLE_1[attack]
    printed = dict(zip(RATIOS, values, strict=True))
    cells = [f"*{share(printed[ratio])}*" if ratio in printed else "" for ratio in ratios]
    return ["*the paper's, ResNet-29*", "*100*", f"*{share(bare)}*", *cells]


def compared_with_baselines(rows: Sequence[Row], ratios: Sequence[float]) -> str:
    """Return Table II: distances, the bare network, the baselines at their papers' settings, and ours.

    Ours is shown at the given ratios.
    """
    chosen = [row for row in rows if row.scope == "sweep" and row.rounded]
    baselines = [name for name in STANDARD if any(row.defence == name for row in chosen)]
    ours = [(mode, ratio) for mode in (DEFAULT, PAPER) for ratio in ratios]
    heads = ["attack", "L∞", "L2", "bare", *baselines, *(f"{mode} r = {ratio:.2f}" for mode, ratio in ours)]
    lines = []
    for attack, targeted, name in _attacks(chosen):
        cells = {(row.defence, row.r): row for row in chosen if (row.attack, row.targeted) == (attack, targeted)}
        first = next(iter(cells.values()))
        line = [name, f"{first.l_inf:.4f}", f"{first.l2:.3f}", share(first.undefended)]
        wanted = [*((baseline, None) for baseline in baselines), *ours]
        line += [share(c.accuracy, c.ci_low, c.ci_high) if (c := cells.get(place)) else "" for place in wanted]
        lines.append(line)
    return markdown(heads, lines)


def printed_table_2() -> str:
    """Return the paper's own Table II."""
    from lab.experiments.super_iot.published import TABLE_2_COLUMNS

    lines = [[attack, *(f"{value:g}" for value in values)] for attack, values in TABLE_2.items()]
    return markdown(["attack", *TABLE_2_COLUMNS], lines)


def key_ratios(rows: Sequence[Row], scope: str = "all") -> str:
    """Return accuracy and restored share at the key ratios, over all pictures."""
    chosen = [row for row in rows if row.scope == scope and row.rounded and row.r is not None]
    heads = ["attack", "defence", "r", "n", "L∞", "L2", "bare", "accuracy", "restored"]
    lines = [
        [
            attack_name(row),
            row.defence,
            f"{row.r:.2f}",
            str(row.n),
            f"{row.l_inf:.4f}",
            f"{row.l2:.3f}",
            share(row.undefended),
            share(row.accuracy, row.ci_low, row.ci_high),
            share(row.restored, row.restored_low, row.restored_high),
        ]
        for row in chosen
    ]
    return markdown(heads, lines)


def compared_with_unrounded(rows: Sequence[Row]) -> str:
    """Return the default on adversarial frames before and after rounding to 8 bits, with equal pictures and masks."""
    chosen = {
        (row.attack, row.targeted, row.r, row.rounded): row
        for row in rows
        if row.scope == "sweep" and row.defence == DEFAULT and row.r is not None
    }
    lines = []
    for (attack, targeted, ratio, rounded), row in chosen.items():
        other = chosen.get((attack, targeted, ratio, True))
        if not rounded and other is not None:
            cells = [f"{found.l_inf:.4f} / {found.l2:.3f}" for found in (row, other)]
            bare = [share(found.undefended) for found in (row, other)]
            accuracy = [share(found.accuracy, found.ci_low, found.ci_high) for found in (row, other)]
            lines.append([attack_name(row), f"{ratio:.2f}", *cells, *bare, *accuracy])
    heads = [
        "attack",
        "r",
        "L∞ / L2 unrounded",
        "rounded",
        "bare, unrounded",
        "rounded",
        "default, unrounded",
        "rounded",
    ]
    return markdown(heads, lines)


def without_attacks(rows: Sequence[Row]) -> str:
    """Return the default compared with the same network trained without any attacked picture."""
    chosen = {
        (row.attack, row.targeted, row.r, row.defence): row for row in rows if row.scope == "sweep" and row.rounded
    }
    lines = []
    for (attack, targeted, ratio, defence), row in chosen.items():
        other = chosen.get((attack, targeted, ratio, DEFAULT))
        if defence == WITHOUT_ATTACKS and other is not None:
            cells = [share(found.accuracy, found.ci_low, found.ci_high) for found in (row, other)]
            lines.append([attack_name(row), f"{ratio:.2f}", *cells])
    return markdown(["attack", "r", WITHOUT_ATTACKS, "default"], lines)


def requirement_cells(found: Sequence[Finding]) -> Iterator[dict[str, str]]:
    """Yield the cells of each requirement and its measured figure, by the name of the column."""
    for finding in found:
        wanted = finding.requirement
        kind = "" if wanted.attack in ("clean", "deepfool") else ", targeted" if wanted.targeted else ", untargeted"
        what = "restored, " if wanted.what == "restored" else ""
        paper, must, aim = ("–" if value is None else f"{value:g}" for value in (wanted.paper, wanted.must, wanted.aim))
        if wanted.what == "psnr" and finding.measured is not None:
            measured = f"{finding.measured:.2f}"
        else:
            measured = share(finding.measured, finding.low, finding.high)
        yield {
            "figure": f"{what}{finding.label}{kind}", "r": f"{wanted.r:.2f}", "paper": paper, "must": must, "aim": aim,
            "measured": measured, "n": str(finding.n), "reached": finding.reached,
        }  # fmt: skip


def requirements(found: Sequence[Finding]) -> str:
    """Return the requirements with the measured figures."""
    return cells(requirement_cells(found))


def quality(rows: Sequence[QualityRow]) -> str:
    """Return the PSNR by mode, masks and ratio."""
    lines = [
        [
            row.mode,
            row.masks,
            f"{row.r:.2f}",
            str(row.n),
            f"{row.psnr:.2f} ±{margin(row.psnr, row.ci_low, row.ci_high):.2f}",
        ]
        for row in rows
    ]
    return markdown(["reconstruction", "masks", "r", "n", "PSNR in dB"], lines)


def comparisons_with_baselines(found: Sequence[Comparison]) -> str:
    """Return, for every attack and baseline, the setting nearest to the default at equal clean accuracy."""
    chosen = [c for c in found if c.kind == "matched"]
    families = list(dict.fromkeys(family(c.against) for c in chosen))
    lines = []
    for name in dict.fromkeys(attack_name(c) for c in chosen):
        cells = []
        for wanted in families:
            group = [c for c in chosen if attack_name(c) == name and family(c.against) == wanted]
            if not group:
                cells.append("")
                continue
            worst = min(group, key=lambda c: c.difference)
            low, high = _bounds(worst)
            interval = f"{worst.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
            cells.append(f"{interval} at {worst.against}, clean {share(worst.clean)}")
        lines.append([name, *cells])
    return markdown(["default minus baseline", *families], lines)


def _bounds(found: Comparison) -> tuple[float, float]:
    """Return the interval of a difference. It has a width also where the two never differ on any picture."""
    if found.difference or found.ci_low < found.ci_high:
        return found.ci_low, found.ci_high
    same = np.ones(found.n, np.bool_)
    return paired_interval(same, same)[1:]


def family(name: str) -> str:
    """Return the baseline of a setting: the name in front of its parameters."""
    return name.partition(" (")[0]


def sizes(rows: Sequence[SizeRow]) -> str:
    """Return the bytes, and the accuracy if it was measured, for every encoding of every source."""
    lines = [
        [
            row.source,
            row.encoding,
            "" if row.setting is None else f"{row.setting:g}",
            str(row.n),
            f"{row.bytes:.0f}",
            f"{row.bytes / row.raw_bytes:.3f}",
            share(row.accuracy),
        ]
        for row in rows
    ]
    return markdown(["source", "encoding", "r or quality", "n", "bytes", "of raw", "accuracy"], lines)


def at_equal_accuracy(rows: Sequence[SizeRow]) -> str:
    """Return, for each of our ratios, the bytes of other encodings at equal accuracy, and the smallest encoding."""
    judged = [row for row in rows if row.accuracy is not None]
    others = [encoding for encoding in (*LOSSY, *WHOLE) if any(row.encoding == encoding for row in judged)]
    lines = []
    for row in judged:
        if row.encoding != "lossless":
            continue
        assert row.accuracy is not None
        needed = {encoding: bytes_for(row.accuracy, judged, encoding) for encoding in others}
        cells = ["never reaches it" if (size := needed[encoding]) is None else f"{size:.0f}" for encoding in others]
        every = {"ours": row.bytes} | {name: size for name, size in needed.items() if size is not None}
        winner = min(every, key=lambda name: every[name])
        lines.append([f"{row.setting:.2f}", share(row.accuracy), f"{row.bytes:.0f}", *cells, winner])
    return markdown(["r", "accuracy", "ours, lossless", *others, "fewest bytes"], lines)


def bytes_for(accuracy: float, rows: Sequence[SizeRow], encoding: str) -> float | None:
    """Return the least bytes at which an encoding reaches an accuracy, between its qualities linear in log(bytes)."""
    points = sorted((row.bytes, row.accuracy) for row in rows if row.encoding == encoding and row.accuracy is not None)
    before: tuple[float, float] | None = None
    for size, reached in points:
        if reached >= accuracy:
            if before is None:
                return size
            part = (accuracy - before[1]) / (reached - before[1])
            return math.exp((1 - part) * math.log(before[0]) + part * math.log(size))
        before = (size, reached)
    return None
