"""The experiment's rows as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.findings import PURE, Finding
from lab.experiments.codefend.published import SENTINET, TABLE_3, TABLE_4, TABLE_5
from lab.experiments.codefend.rows import (
    CameraRow,
    DetectionRow,
    DetectorRow,
    ModelRow,
    RepairRow,
    SplittingRow,
    StillRow,
)
from lab.experiments.harness.page import Column, cells
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

    def measured(finding: Finding) -> str:
        text = shown(finding, finding.measured)
        if finding.interval is not None:
            low, high = (f"{end:.1f}" if finding.plain else percent(end) for end in finding.interval)
            text += f" [{low}, {high}]"
        return text if finding.count is None else f"{text} of {finding.count}"

    for each in found:
        sign = "≥" if each.larger else "≤"
        yield {
            "what": each.what,
            "paper": each.paper,
            "must": "–" if each.must is None else f"{sign} {shown(each, each.must)}",
            "aim": "–" if each.aim is None else f"{sign} {shown(each, each.aim)}",
            "measured": measured(each),
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
        "model", "frames", "passes", "clean + triggered", "ASR, %", "FRR, %", "FAR, %", "FAR of effective, %",
        "threshold, bits", "mean passes, clean", "seconds",
    ]  # fmt: skip
    return markdown(heads, lines)


def _between(value: float, low: float, high: float) -> str:
    return f"{percent(value, 1)} [{percent(low, 1)}, {percent(high, 1)}]"


DETECTORS: Final[tuple[Column[DetectorRow], ...]] = (
    Column("model", lambda row: row.model),
    Column("statistic", lambda row: row.statistic + ("" if row.depth is None else f", from the last {row.depth}")),
    Column("clean + effective", lambda row: f"{row.clean} + {row.poisoned}"),
    Column("AUC", lambda row: "–" if row.auc is None else f"{row.auc:.3f}"),
    Column("detected, %", lambda row: _between(row.detected, row.detected_low, row.detected_high)),
    Column("false alarms, %", lambda row: _between(row.frr, row.frr_low, row.frr_high)),
)
"""The table of the statistics, alone and together."""


def _probes(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


def _rate(value: float, low: float, high: float) -> str:
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _false_alarms(row: CameraRow) -> str:
    found = _rate(row.false_alarms, row.false_alarms_low, row.false_alarms_high)
    return f"{found}, **more than {row.allowed:g}**" if row.exceeds else found


CAMERAS: Final[tuple[Column[CameraRow], ...]] = (
    Column("model", lambda row: row.model),
    Column("thresholds", lambda row: row.thresholds),
    Column("octaves", lambda row: f"{row.octaves:+g}"),
    Column("probes: median, 95 %", lambda row: f"{_probes(row.median_probes)}, {_probes(row.p95_probes)}"),
    Column("within 40, %", lambda row: _between(row.alarmed, row.alarmed_low, row.alarmed_high)),
    Column("from the first frame, %", lambda row: percent(row.from_start, 1)),
    Column("clean starts with an alarm, %", lambda row: percent(row.clean_starts, 1)),
    Column("false alarms a year", _false_alarms),
    Column("bound", lambda row: f"{row.false_alarms_bound:.2g}{', few passages' if row.few_passages else ''}"),
)
"""The table of simulated cameras."""

SPLITTING: Final[tuple[Column[SplittingRow], ...]] = (
    Column("model", lambda row: row.model),
    Column("thresholds", lambda row: row.thresholds),
    Column("scores", lambda row: row.scores),
    Column("false alarms a year", lambda row: _rate(row.false_alarms, row.low, row.high)),
    Column("passages", lambda row: ", ".join(f"{each:,}" for each in row.passages) + (": few" if row.few else "")),
)
"""The table of the estimates of false alarms."""


def _of_scenes(row: StillRow) -> str:
    return f"{percent(row.false_alarms)} [{percent(row.false_alarms_low)}, {percent(row.false_alarms_high)}]"


STILL: Final[tuple[Column[StillRow], ...]] = (
    Column("model", lambda row: row.model),
    Column("evidence of a scene", lambda row: "limited" if row.limited else "not limited"),
    Column("probes of a scene", lambda row: str(row.stay)),
    Column("scenes", lambda row: f"{row.views} in turn" if row.views else "new"),
    Column("clean scenes flagged in each frame, %", lambda row: f"{percent(row.flagged_always)} of {row.scenes}"),
    # At one probe a scene, so few scenes bound both too loosely: the table of simulated cameras has an estimate.
    Column("clean scenes with an alarm, %", lambda row: _of_scenes(row) if row.stay > 1 else "–"),
    Column(
        "false alarms a year",
        lambda row: _rate(row.a_year, row.a_year_low, row.a_year_high) if row.stay > 1 else "–",
    ),
    Column("attacks", lambda row: str(row.episodes)),
    Column("probes: median", lambda row: _probes(row.median_probes)),
    Column("within 40, %", lambda row: _between(row.alarmed, row.alarmed_low, row.alarmed_high)),
    Column("within 400, %", lambda row: percent(row.alarmed_ever, 1)),
)
"""The table of cameras that look at one scene for several probes."""


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


WITHOUT_TRIGGER: Final[tuple[Column[RepairRow], ...]] = (
    Column("model", lambda row: row.model),
    Column("method", lambda row: row.method),
    Column("quarantine", lambda row: row.quarantine or "–"),
    Column("CA before", lambda row: percent(row.clean_before)),
    Column("CA after", lambda row: percent(row.clean_after)),
    Column("ASR before", lambda row: percent(row.success_before)),
    Column("ASR after", lambda row: percent(row.success_after)),
    Column("recovered", lambda row: percent(row.recovered_after)),
    Column("published", lambda row: "yes" if row.published else "refused"),
)
"""The table of repairs without a trigger."""


def comparison_table(rows: Sequence[RepairRow], model: str) -> str:
    """Return Table 5: the printed figures, and ours for the same kind of model."""
    lines = [[name, "as printed", f"{accuracy:.2f}", f"{success:.2f}", "–"] for name, accuracy, success in TABLE_5]
    lines += [
        [row.method, "here", percent(row.clean_after), percent(row.success_after), percent(row.recovered_after)]
        for row in rows
        if row.model == model and (row.quarantine == PURE or row.method == FINE_TUNING)
    ]
    return markdown(["method", "where", "CA after", "ASR after", "recovered"], lines)
