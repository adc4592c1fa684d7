"""The pages of the experiment, made from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.experiments.harness.page import write_page
from lab.experiments.harness.store import ROWS, Store
from lab.experiments.super_iot import plots, tables
from lab.experiments.super_iot.adaptive import SCOPE as EOT
from lab.experiments.super_iot.defences import DEFAULT, PAPER
from lab.experiments.super_iot.rows import Comparison, JudgeRow, QualityRow, Row, SizeRow
from lab.experiments.super_iot.verdict import (
    ComparisonVerdict,
    Finding,
    by_clean_accuracy,
    compared,
    findings,
    quality_findings,
)
from lab.results.markdown import markdown

COMMAND = "pointillist lab stale --only super-iot --run"


def plot_file(out: Path, name: str) -> Path:
    """Return the file of a plot."""
    return out / f"{name}.png"


@dataclass(frozen=True)
class JudgeResults:
    """All results of one judge."""

    name: str
    about: JudgeRow
    rows: list[Row]
    adaptive: list[Row]
    comparisons: list[Comparison]

    @property
    def findings(self) -> list[Finding]:
        """The requirements with the measured figures."""
        return findings(self.name, self.rows)


def read_results(store: Store) -> list[JudgeResults]:
    """Return the results of every judge."""
    rows, adaptive = store.records("accuracy", Row), store.records("adaptive", Row)
    comparisons = store.records("comparisons", Comparison)
    return [
        JudgeResults(
            each.name, each, [row for row in rows if row.judge == each.name],
            [row for row in adaptive if row.judge == each.name],
            [row for row in comparisons if row.judge == each.name],
        )
        for each in store.records("judges", JudgeRow)
    ]  # fmt: skip


def verdict_lines(judges: Sequence[JudgeResults], quality: Sequence[QualityRow]) -> list[str]:
    """Return the verdict's lines: counts of the requirements, the two comparisons, and PSNR."""
    lines = []
    for judge in judges:
        reached = [finding.verdict for finding in judge.findings]
        counts = ", ".join(f"{reached.count(word)} {word}" for word in ("aim", "must", "missed", "not measured"))
        lines.append(f"{judge.name}: figures asked for: {counts}")
        matched, costlier = by_clean_accuracy(judge.comparisons)
        lines.append(f"{judge.name}: nowhere below paper mode: {_text(compared(judge.comparisons, 'paper'))}")
        lines.append(f"{judge.name}: at matched clean accuracy nowhere below the best baseline: {_text(matched)}")
        lines.append(
            f"{judge.name}: nowhere below a baseline that costs more clean accuracy than our largest drop: "
            f"{_text(costlier)}"
        )
    lines += [
        f"PSNR at r = {finding.requirement.r:.2f}: {finding.verdict}"
        + ("" if finding.measured is None else f", {finding.measured:.2f} dB")
        for finding in quality_findings(quality)
    ]
    return lines


def _text(verdict: ComparisonVerdict) -> str:
    if not verdict.cells:
        return "not measured"
    if verdict.holds:
        return f"holds in all {verdict.cells} cells ({verdict.behind} of them behind, within the interval)"
    worst = verdict.below[0]
    ratio = "" if worst.r is None else f" at r = {worst.r:.2f}"
    return (
        f"FAILS in {len(verdict.below)} of {verdict.cells} cells, {verdict.behind} more are behind within the "
        f"interval; the worst, of {worst.n} pictures, is {tables.attack_name(worst)} against {worst.against}{ratio}: "
        f"{worst.difference:+.3f} [{worst.ci_low:+.3f}, {worst.ci_high:+.3f}]"
    )


def write_report(store: Store) -> list[str]:
    """Write README.md, a page for each judge and the plots; return the verdict's lines."""
    out, judges = store.folder, read_results(store)
    quality, sizes = store.records("psnr", QualityRow), store.records("bytes", SizeRow)
    swept = [row for row in judges[0].rows if row.scope == "sweep"] if judges else []
    if swept:
        plots.accuracy_by_ratio(swept, plot_file(out, "figure-6"))
    if sizes:
        plots.bytes_against_accuracy(sizes, plot_file(out, "bytes"))
    lines = verdict_lines(judges, quality)
    for judge in judges:
        write_page(out / f"{judge.name}.md", _judge_page(judge))
    write_page(out / "README.md", _front_page(judges, quality, sizes, lines, out))
    return lines


def _front_page(
    judges: Sequence[JudgeResults],
    quality: Sequence[QualityRow],
    sizes: Sequence[SizeRow],
    verdict: list[str],
    out: Path,
) -> list[str]:
    parts = ["# SUPER-IoT, measured", _how(judges), "## Verdict", "\n".join(f"- {line}" for line in verdict)]
    for number, judge in enumerate(judges):
        found = judge.findings + (quality_findings(quality) if number == 0 else [])
        parts += [f"### Figures asked for, judge {judge.name}", tables.requirements(found)]
    if any(judge.adaptive for judge in judges):
        parts += ["## The attacker who knows the defence", EOT_TEXT]
        parts += [tables.key_ratios(judge.adaptive, EOT) for judge in judges if judge.adaptive]
    if quality:
        parts += ["## PSNR on clean pictures", tables.quality(quality)]
    if sizes:
        parts += ["## Bytes", BYTES_TEXT]
        if any(row.accuracy is not None for row in sizes):
            parts += [tables.at_equal_accuracy(sizes)]
        parts += [_plot(out, "bytes", "accuracy over bytes a frame"), tables.sizes(sizes)]
    figures = [_plot(out, name, title) for name, title in PLOTS]
    if any(figures):
        parts += ["## Figures of the paper", *figures]
    return [*parts, "\n".join(f"- [{judge.name}]({judge.name}.md): all rows" for judge in judges)]


def _how(judges: Sequence[JudgeResults]) -> str:
    heads = ["judge", "model", "pictures", "classified correctly, bare"]
    lines = [
        [each.about.name, f"`{each.about.model_id}`", str(each.about.pictures), str(each.about.correct)]
        for each in judges
    ]
    command, data = (judges[0].about.command, judges[0].about.data) if judges else (COMMAND, "")
    return "\n\n".join((
        f"Made by `{command}` from {data}; rows and their provenance are in `{ROWS}`.",
        "Every share is of the pictures that the bare network classifies correctly, ± the distance to the farther "
        "end of its 95 % interval. The attacker knows the network and not the defence, unless said otherwise. "
        "Adversarial pictures are rounded to 8 bits before the drop. A block of 64 pixels loses whole ones: r = .01 "
        "drops 1 of 64, r = .05 drops 3.",
        markdown(heads, lines),
    ))  # fmt: skip


def _plot(out: Path, name: str, title: str) -> str:
    return f"![{title}]({plot_file(out, name).name})" if plot_file(out, name).is_file() else ""


EOT_TEXT = (
    "EOT-PGD descends through the whole default: drop under fresh masks that the attacker cannot know, reconstruction, "
    "denoising, network; the gradient is the mean over masks at the current iterate. `worst of all resubmissions` "
    "counts a picture only when it survives every one of the repeats."
)
BYTES_TEXT = (
    "Ours are the bytes of the pixels, without the message around them (at most 44 bytes at 32×32, 52 at any size). "
    "Accuracy is of all pictures, clean, with the defence behind ours and none behind the others. Between qualities, "
    "bytes are interpolated linearly in their logarithm."
)
PLOTS = (
    ("figure-3", "a picture by drop ratio"),
    ("figure-4", "Algorithm 1 round by round, one picture at r = .25"),
    ("figure-5", "Algorithm 1 by step sizes, mean of a few pictures at r = .25"),
    ("figure-6", "accuracy and share not sent by drop ratio"),
)
MATCHED_TEXT = (
    "A baseline's setting has some clean accuracy; the default is taken at the drop ratio where its own is the same, "
    "mixed linearly between neighbouring ratios (what a camera gets that draws between the two, frame by frame). If "
    "the baseline keeps fewer clean pictures than our largest drop, that drop is taken unmixed, and nothing is "
    "matched. The difference is paired over pictures. Each cell is the setting that comes closest, or gets ahead."
)


def _judge_page(judge: JudgeResults) -> list[str]:
    return [
        f"# {judge.name}",
        f"`{judge.about.model_id}`. Rows: [`{ROWS}`]({ROWS}).",
        _section("Table I, default", tables.by_ratio(judge.rows, DEFAULT)),
        _section("Table I, paper mode", tables.by_ratio(judge.rows, PAPER)),
        _section("Table II", tables.compared_with_baselines(judge.rows, (tables.PAPER_RATIO, 0.25, 0.50))),
        _section("Table II as the paper has it", tables.printed_table_2()),
        _section("Every picture, one mask each", tables.key_ratios(judge.rows)),
        _section(
            "At matched clean accuracy", tables.comparisons_with_baselines(judge.comparisons), before=MATCHED_TEXT
        ),
        _section("Before and after rounding to 8 bits", tables.compared_with_unrounded(judge.rows)),
        _section("Trained without any attack", tables.without_attacks(judge.rows)),
        _section("The attacker who knows the defence", tables.key_ratios(judge.adaptive, EOT), before=EOT_TEXT),
    ]


def _section(title: str, table: str, before: str = "") -> str:
    """Return a table under its title, or an empty string without a table."""
    return "\n\n".join(part for part in (f"## {title}", before, table) if part) if table else ""
