"""The experiment's rows as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.findings import PURE, Finding
from lab.experiments.codefend.published import SENTINET, TABLE_3, TABLE_4, TABLE_5
from lab.experiments.codefend.rows import DetectionRow, DisagreementRow, ModelRow, RepairRow
from lab.experiments.harness.page import cells
from lab.results.markdown import markdown


def percent(value: float | None, places: int = 2) -> str:
    """Return a share in per cent."""
    return "–" if value is None else f"{100 * value:.{places}f}"


def finding_cells(found: Sequence[Finding]) -> Iterator[dict[str, str]]:
    """Yield the cells of every requirement with its verdict, by the name of the column."""

    def shown(finding: Finding, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.1f}" if finding.plain else f"{percent(value)} %"

    for each in found:
        sign = "≥" if each.larger else "≤"
        yield {
            "what": each.what,
            "paper": each.paper,
            "must": f"{sign} {shown(each, each.must)}",
            "aim": "–" if each.aim is None else f"{sign} {shown(each, each.aim)}",
            "measured": shown(each, each.measured),
            "reached": each.verdict + (f" ({each.spoiled})" if each.spoiled else ""),
        }


def findings_table(found: Sequence[Finding]) -> str:
    """Return every requirement with its verdict."""
    return cells(finding_cells(found))


def models_table(rows: Sequence[ModelRow]) -> str:
    """Return the backdoored models, in the form of the paper's Table 1."""
    lines = [
        [
            row.model, row.data, row.network, row.trigger, f"{100 * row.rate:g}",
            "the next" if row.target < 0 else str(row.target),
            percent(row.clean_network), percent(row.clean_accuracy), percent(row.attack_success), percent(row.floor),
        ]
        for row in rows
    ]  # fmt: skip
    heads = ["model", "data", "network", "trigger", "poisoned, %", "target", "clean network", "CA", "ASR", "floor"]
    return markdown(heads, lines)


def detection_table(rows: Sequence[DetectionRow]) -> str:
    """Return our Table 3."""
    lines = [
        [
            row.model, row.frames, "sequential" if row.sequential else "N = 100", f"{row.clean} + {row.poisoned}",
            percent(row.attack_success, 1),
            f"{percent(row.frr)} [{percent(row.frr_low)}, {percent(row.frr_high)}]",
            f"{percent(row.far)} [{percent(row.far_low)}, {percent(row.far_high)}]",
            percent(row.far_effective), f"{row.threshold_bits:.3f}", f"{row.mean_passes:.1f}", f"{row.seconds:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    heads = [
        "model", "frames", "passes", "clean + stamped", "ASR, %", "FRR, %", "FAR, %", "FAR of effective, %",
        "threshold, bits", "mean passes, clean", "seconds",
    ]  # fmt: skip
    return markdown(heads, lines)


def disagreement_table(rows: Sequence[DisagreementRow]) -> str:
    """Return the table of STRIP, drop disagreement and both."""
    heads = ["model", "drops", "clean + effective", "AUC: STRIP", "drop"]
    heads += [f"{name}: detected / false alarms, %" for name in ("STRIP", "drop", "both")]
    lines = [
        [
            row.model, f"{row.drops} × r = {row.ratio:g}", f"{row.clean} + {row.poisoned}",
            f"{row.auc_strip:.3f}", f"{row.auc_drop:.3f}",
            f"{percent(row.detected_strip, 1)} / {percent(row.frr_strip)}",
            f"{percent(row.detected_drop, 1)} / {percent(row.frr_drop)}",
            f"{percent(row.detected_fused, 1)} / {percent(row.frr_fused)}",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown(heads, lines)


def published_detection() -> str:
    """Return Table 3 as printed, and SentiNet's figures below it."""
    lines = [[row.data, row.trigger, f"{row.frr:g}", f"{row.far:g}"] for row in TABLE_3]
    lines.append([f"{SENTINET.data}, SentiNet", SENTINET.trigger, f"{SENTINET.frr:g}", f"{SENTINET.far:g}"])
    return markdown(["data", "trigger", "FRR, % (its FNR)", "FAR, % (its FPR)"], lines)


def repair_table(rows: Sequence[RepairRow]) -> str:
    """Return our Table 4: a line for each repair."""
    lines = [
        [
            row.model, row.method, row.quarantine, percent(row.clean_before), percent(row.clean_after),
            percent(row.success_before), percent(row.success_after), percent(row.recovered_after),
            "–" if row.target_found is None else str(row.target_found), percent(row.activation, 1),
            "–" if row.change_outside is None else f"{row.change_outside:.4f}", f"{row.seconds:.0f}",
            "yes" if row.published else "refused",
        ]
        for row in rows
    ]  # fmt: skip
    heads = [
        "model", "method", "quarantine", "CA before", "CA after", "ASR before", "ASR after", "recovered",
        "target found", "activation", "change outside", "seconds", "published",
    ]  # fmt: skip
    return markdown(heads, lines)


def published_repair() -> str:
    """Return Table 4 as printed."""
    lines = [
        [
            row.data, row.trigger, f"{row.accuracy_before:.2f}", f"{row.success_before:g}",
            f"{row.accuracy_after:.2f}", f"{row.success_after:.2f}",
        ]
        for row in TABLE_4
    ]  # fmt: skip
    return markdown(["data", "trigger", "CA before", "ASR before", "CA after", "ASR after"], lines)


def comparison_table(rows: Sequence[RepairRow], model: str) -> str:
    """Return Table 5: the printed figures, and ours for the same kind of model."""
    lines = [[name, "as printed", f"{accuracy:.2f}", f"{success:.2f}", "–"] for name, accuracy, success in TABLE_5]
    lines += [
        [row.method, "here", percent(row.clean_after), percent(row.success_after), percent(row.recovered_after)]
        for row in rows
        if row.model == model and (row.quarantine == PURE or row.method == FINE_TUNING)
    ]
    return markdown(["method", "where", "CA after", "ASR after", "recovered"], lines)
