"""The paper's tables from rows, with its own figures in italics."""

from __future__ import annotations

from collections.abc import Sequence

from lab.experiments.cells import Row
from lab.experiments.preprocessing.plan import RATE_FACTORS, STANDARD
from lab.experiments.preprocessing.published import (
    BPDA_50,
    DELTAS,
    EOT_50,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    Attacked,
)
from lab.experiments.preprocessing.variance import VarianceRow
from lab.results.markdown import markdown


def share(row: Row | VarianceRow) -> str:
    """Return a share with half the width of its interval."""
    return f"{row.accuracy:.3f} ±{(row.ci_high - row.ci_low) / 2:.3f}"


def table_1(rows: Sequence[VarianceRow]) -> str:
    """Return l2, SSIM and clean accuracy."""
    lines = []
    for row in rows:
        paper = TABLE_1.get(row.defence)
        printed = [f" *{value:.2f}*" for value in paper] if paper else ["", "", ""]
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
    names = list(dict.fromkeys(row.defence for row in chosen))
    lines = []
    for each in STANDARD:
        own = {row.defence: row for row in chosen if row.attack == each.key}
        if own:
            first = next(iter(own.values()))
            cells = [_beside(own.get(name), _printed(name, each.key)) for name in names]
            lines.append([each.label, str(first.n), f"{first.l_inf:.3f}", f"{first.rms:.4f}", *cells])
    return markdown(["attack", "n", "L∞", "l2", *(f"{name}: ACC / ASR" for name in names)], lines)


def _printed(name: str, key: str) -> Attacked | None:
    return {"none": TABLE_2, "ours": TABLE_3}.get(name, {}).get(key)


def _beside(row: Row | None, paper: Attacked | None = None) -> str:
    if row is None:
        return ""
    text = f"{row.accuracy:.2f}" + ("" if row.success is None else f" / {row.success:.2f}")
    if paper is None:
        return text
    return f"{text} *{paper.acc:.2f}" + ("*" if paper.asr is None else f" / {paper.asr:.2f}*")


def released(rows: Sequence[Row]) -> str:
    """Return BPDA and BPDA + EOT of the paper."""
    keys = ("bpda", *(f"bpda-{factor:g}" for factor in RATE_FACTORS), "eot-clean", "eot-current", "bpda-surrogate")
    lines = []
    for key in keys:
        for row in rows:
            if (row.attack == key and row.defence not in TABLE_6) or (row.attack == key and row.defence == "ours"):
                paper = {"bpda": BPDA_50, "eot-clean": EOT_50}.get(key, {}).get(row.defence)
                printed = "" if paper is None else f"*{paper.acc:.2f} / {paper.asr:.2f}*"
                found = "" if row.found is None else f"{row.found:.2f}"
                lines.append(
                    [
                        row.label,
                        row.defence,
                        str(row.n),
                        share(row),
                        f"{row.success or 0:.2f}",
                        found,
                        f"{row.rms:.4f}",
                        printed,
                    ]
                )
    return markdown(["attack", "defence", "n", "ACC", "ASR", "found", "l2", "paper's ACC / ASR"], lines)


def adaptive(rows: Sequence[Row]) -> str:
    """Return our function under adaptive attacks."""
    chosen = [
        row for row in rows if row.defence == "ours" and (row.attack.startswith("eot-") or row.attack == "surrogate")
    ]
    lines = [
        [row.label, "targeted" if row.targeted else "untargeted", str(row.n), share(row), f"{row.worst:.3f}",
         "" if row.success is None else f"{row.success:.2f}", f"{row.rms:.4f}"]
        for row in chosen if row.attack not in ("eot-clean", "eot-current")
    ]  # fmt: skip
    return markdown(["attack", "goal", "n", "ACC", "worst of the draws", "ASR", "l2"], lines)


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
    """Return other defences under adaptive attacks."""
    names = list(dict.fromkeys(row.defence for row in rows if row.attack.startswith("known-")))
    lines = []
    for name in names:
        own = {row.attack: row for row in rows if row.defence == name and row.attack.startswith("known-")}
        paper = f"*{TABLE_5[name]:.2f}*" if name in TABLE_5 else ""
        cells = [share(own[key]) if key in own else "not measured" for key in ("known-linf", "known-l2")]
        lines.append([name, str(next(iter(own.values())).n), *cells, paper])
    return markdown(["defence", "n", "L∞ 8/255", "l2 .05", "paper"], lines)


def table_6(rows: Sequence[Row]) -> str:
    """Return the recombined steps."""
    lines = []
    for name, paper in TABLE_6.items():
        row = next((row for row in rows if (row.defence, row.attack) == (name, "bpda")), None)
        if row is not None:
            lines.append(
                [
                    name,
                    str(row.n),
                    share(row),
                    f"{row.success or 0:.2f}",
                    f"{row.found or 0:.2f}",
                    f"*{paper.acc:.2f} / {paper.asr:.2f}*",
                ]
            )
    return markdown(["function", "n", "ACC", "ASR", "found", "paper's ACC / ASR"], lines)
