"""The paper's tables from rows, with its own figures in italics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lab.experiments.cells import Point, Row
from lab.experiments.preprocessing.defences import NONE, OURS
from lab.experiments.preprocessing.papers_steps import PAPERS_STEPS
from lab.experiments.preprocessing.plan import RATE_FACTORS, STANDARD
from lab.experiments.preprocessing.published import (
    BPDA_50,
    DELTAS,
    EOT_CLEAN_50,
    EOT_CURRENT_50,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_5_LINF,
    TABLE_6,
    Attacked,
)
from lab.experiments.preprocessing.variance import VarianceRow
from lab.results.margin import margin
from lab.results.markdown import markdown


def share(row: Row | VarianceRow) -> str:
    """Return a share with the margin of its interval."""
    return f"{row.accuracy:.3f} ±{margin(row.accuracy, row.ci_low, row.ci_high):.3f}"


def in_the_last_round(row: Row, points: Sequence[Point]) -> Attacked | None:
    """Return ACC and ASR as the paper counts them: in the last round, in which a found target stays found."""
    own = [each for each in points if (each.defence, each.attack) == (row.defence, row.attack)]
    last = max(own, key=lambda each: each.round, default=None)
    return None if last is None else Attacked(last.accuracy, last.found)


def _papers_name(defence: str) -> str:
    """Return the paper's name of a defence: ours has its figures with either steps."""
    return OURS if defence == PAPERS_STEPS else defence


def _text(figures: Attacked | None, style: str = "") -> str:
    if figures is None:
        return ""
    return f"{style}{figures.acc:.2f}" + ("" if figures.asr is None else f" / {figures.asr:.2f}") + style


def table_1(rows: Sequence[VarianceRow]) -> str:
    """Return l2, SSIM and clean accuracy."""
    lines = []
    for row in rows:
        paper = TABLE_1.get(_papers_name(row.defence), (None, None, None))
        printed = ["" if value is None else f" *{value:.2f}*" for value in paper]
        lines.append(
            [
                row.defence,
                f"{row.l2:.3f}{printed[0]}",
                f"{row.ssim:.2f}{printed[1]}",
                f"{share(row)}{printed[2]}",
                str(row.n),
            ]
        )
    return markdown(["function", "l2", "SSIM", "ACC, clean", "n"], lines)


def table_3(rows: Sequence[Row]) -> str:
    """Return the blind attacks on every defence."""
    chosen = [row for row in rows if row.attack in {each.key for each in STANDARD} and "δ" not in row.defence]
    every = dict.fromkeys(row.defence for row in chosen)
    leading = [name for name in (NONE, OURS, PAPERS_STEPS) if name in every]
    names = [*leading, *(name for name in every if name not in leading)]
    lines = []
    for each in STANDARD:
        own = {row.defence: row for row in chosen if row.attack == each.key}
        if own:
            first = next(iter(own.values()))
            cells = [_beside(own.get(name), _printed(name, each.key)) for name in names]
            lines.append([each.label, str(first.n), f"{first.l_inf:.3f}", f"{first.rms:.4f}", *cells])
    return markdown(["attack", "n", "L∞", "l2", *(f"{name}: ACC / ASR" for name in names)], lines)


def _printed(name: str, key: str) -> Attacked | None:
    return {NONE: TABLE_2, OURS: TABLE_3}.get(_papers_name(name), {}).get(key)


def _beside(row: Row | None, paper: Attacked | None = None) -> str:
    if row is None:
        return ""
    return f"{_text(Attacked(row.accuracy, row.success))} {_text(paper, '*')}".rstrip()


def released(rows: Sequence[Row], points: Sequence[Point]) -> str:
    """Return BPDA and BPDA + EOT of the paper."""
    keys = ("bpda", *(f"bpda-{factor:g}" for factor in RATE_FACTORS), "eot-clean", "eot-current", "bpda-surrogate")
    papers = {"bpda": BPDA_50, "eot-clean": EOT_CLEAN_50, "eot-current": EOT_CURRENT_50}
    lines = []
    for key in keys:
        for row in rows:
            if row.attack == key and (row.defence == OURS or row.defence not in TABLE_6):
                paper = papers.get(key, {}).get(_papers_name(row.defence))
                lines.append([
                    row.label, row.defence, str(row.n), share(row), f"{row.success or 0:.2f}", f"{row.rms:.4f}",
                    _text(in_the_last_round(row, points)), _text(paper, "*"),
                ])  # fmt: skip
    return markdown(["attack", "defence", "n", "ACC", "ASR", "l2", *_COUNTED], lines)


_COUNTED: Final = ("ACC / ASR as the paper counts", "the paper's")


def adaptive(rows: Sequence[Row]) -> str:
    """Return our function under adaptive attacks."""
    chosen = [
        row for row in rows
        if row.defence in (OURS, PAPERS_STEPS) and (row.attack.startswith("eot-") or row.attack == "surrogate")
    ]  # fmt: skip
    lines = [
        [row.defence, row.label, "targeted" if row.targeted else "untargeted", str(row.n), share(row),
         f"{row.worst:.3f}", "" if row.success is None else f"{row.success:.2f}", f"{row.rms:.4f}"]
        for row in chosen if row.attack not in ("eot-clean", "eot-current")
    ]  # fmt: skip
    return markdown(["function", "attack", "goal", "n", "ACC", "worst of the draws", "ASR", "l2"], lines)


def table_4(rows: Sequence[Row]) -> str:
    """Return ACC over δ, with the paper's figures below."""
    lines = []
    for each in STANDARD:
        own = {row.defence: row for row in rows if row.attack == each.key and "δ" in row.defence}
        if own:
            lines.append([each.label, *(_beside(own.get(f"ours, δ = {limit:.2f}")) for limit in DELTAS)])
            if each.key in TABLE_4:
                lines.append(["*the paper's ACC*", *(f"*{value:.2f}*" for value in TABLE_4[each.key])])
    return markdown(["attack: ACC / ASR", *(f"δ = {limit:.2f}" for limit in DELTAS)], lines)


def table_5(rows: Sequence[Row]) -> str:
    """Return ours and other defences under adaptive attacks, with the paper's figure at its norm."""
    others = dict.fromkeys(row.defence for row in rows if row.attack.startswith("known-"))
    lines = [_known(rows, name, "known-linf", "known-l2") for name in others]
    if lines:
        lines.append(_known(rows, OURS, "eot-3", "eot-10-l2"))
    return markdown(["defence", "n", "L∞ 8/255", "l2 .05"], lines)


def _known(rows: Sequence[Row], name: str, linf: str, l2: str) -> list[str]:
    own = {row.attack: row for row in rows if row.defence == name and not row.targeted}
    paper = f" *{TABLE_5[name]:.2f}*" if name in TABLE_5 else ""
    printed = (paper, "") if name in TABLE_5_LINF else ("", paper)
    shares = [share(own[key]) if key in own else "not measured" for key in (linf, l2)]
    counts = {str(own[key].n) for key in (linf, l2) if key in own}
    return [name, ", ".join(sorted(counts)), *(text + figure for text, figure in zip(shares, printed, strict=True))]


def table_6(rows: Sequence[Row], points: Sequence[Point]) -> str:
    """Return the recombined steps."""
    lines = []
    for name, paper in TABLE_6.items():
        row = next((row for row in rows if (row.defence, row.attack) == (name, "bpda")), None)
        if row is not None:
            counted = in_the_last_round(row, points)
            lines.append([name, str(row.n), share(row), f"{row.success or 0:.2f}", _text(counted), _text(paper, "*")])
    return markdown(["function", "n", "ACC", "ASR", *_COUNTED], lines)
