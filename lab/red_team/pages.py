"""The pages: a front page for all runs, readable in three minutes, and a page with the details of each run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lab.red_team import plots
from lab.red_team.plan import CLEAN, MAIN
from lab.red_team.result import Result, Row
from lab.results.csv_rows import write_rows
from lab.results.markdown import markdown
from schemas.runtime.atomic_file import replacing

RESULT: Final = "result.json"
ATTACKS: Final = "attacks.csv"
CURVES: Final = "curves.png"
ABOUT: Final = """\
A network is attacked through everything that defends it, by adaptive white-box attackers. What counts is the *worst
case* (robust accuracy): a picture counts only if every attack fails on it, and fails again each time the same attacked
picture is shown again (a random defence has ten chances to err). Changes are bounded by L∞ ε on frames in [0, 1] and
are not rounded to 8 bits, which favours the attacker. The *signs of masking* say where a high figure proves nothing,
because gradients fail and not attackers; the *checklist* (Carlini et al. 2019) says of each point whether the
evaluation holds: passed, failed, or not run. A weak defence can pass every point.
[ADR 23](../../adr/0023-red-team.md) has the threat model and why this is judged and nothing else.

*Strongest attack* and *checklist* are as stored by each run. The runs on the plain network `cifar10` are older than the
rule that compares attacks on the same pictures ([adaptive attackers](../robustness.md))."""
KEY_KNOWN: Final = "key-known"
UPPER: Final = """\
*Attacks*: those on this defence within ε, which make up the worst case. Rows with different numbers of attacks must not
be compared: an attacker who knows the key can do no worse than one who does not, so that the accuracy of a row
`key-known` with fewer attacks is an upper bound."""
THREAT: Final = """\
- **Goal**: any wrong answer (untargeted), or a chosen wrong one (targeted, a random other class for each picture).
- **Norm**: L∞, at most ε on frames with values in [0, 1], before anything is dropped; the frames stay in [0, 1].
- **Knowledge**: {knowledge}
- **Submissions**: the same attacked frame is shown {times} time{s}, each with draws of its own; one wrong answer is
  enough."""


def run_name(bundle: str, defence: str, drop_ratio: float | None, eps: float) -> str:
    """Return the name of a run's folders, of batches and of pages: two runs must not use each other's batches."""
    return f"{bundle}-{defence}{'' if drop_ratio is None else f'-r{drop_ratio:g}'}-{eps:.4g}"


def write_pages(out: Path, run: str, result: Result) -> Path:
    """Write the run `run` into its folder below `out`, and rewrite the front page. Return the front page's path."""
    folder = out / run
    folder.mkdir(parents=True, exist_ok=True)
    document = result.document()
    _write(folder / RESULT, json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_rows(folder / ATTACKS, result.rows(), Row)
    if not plots.draw(result.outcomes, len(result.defence.bundle.settings.classes), folder / CURVES):
        (folder / CURVES).unlink(missing_ok=True)  # of an earlier run
    write_details(folder)
    return write_front(out)


def write_details(folder: Path) -> None:
    """Write the page of the run in `folder` from its result."""
    document = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    _write(folder / "README.md", _details(document, (folder / CURVES).is_file()))


def write_front(out: Path) -> Path:
    """Write the front page from the results of all runs in `out`. Return its path."""
    front = out / "README.md"
    _write(front, _front(out))
    return front


def _write(file: Path, text: str) -> None:
    with replacing(file) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _front(out: Path) -> str:
    heads = [
        "network", "defence", "ε", "pictures", "clean", "attacks × submissions", "worst case",
        "of the pictures that met all costly attacks that ran", "strongest attack",
        "signs of masking", "checklist: passed / failed / not run",
    ]  # fmt: skip
    lines, findings, known = [], [], False
    for file in sorted(out.glob(f"*/{RESULT}")):
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known |= found["settings"]["defence"] == KEY_KNOWN
        lines.append(_line(file.parent.name, found))
        findings.append(f"### {file.parent.name}\n\n" + "\n".join(f"- {line}" for line in _findings(found)))
    parts = ["# The red team", ABOUT, "## Worst cases", markdown(heads, lines), *([UPPER] if known else [])]
    if beside := [file for file in sorted(out.glob("*.md")) if file.name != "README.md"]:
        parts.append(
            "Validation of the attacks: " + ", ".join(f"[{_title(file)}]({file.name})" for file in beside) + "."
        )
    return "\n\n".join((*parts, *findings)) + "\n"


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as lines:
        return next(lines, page.stem).lstrip("# ").strip()


def _line(name: str, found: Mapping[str, Any]) -> list[str]:
    settings, judged = found["settings"], found["worst_case_of_judged"]
    status = list(found["checklist"].values())
    defence = settings["defence"] + (f", r = {settings['drop']:g}" if settings["drop"] is not None else "")
    return [
        f"[{settings['bundle']}]({name}/README.md)", defence, _strength(found["eps"]), str(found["images"]),
        _share(found["clean_accuracy"], found["intervals"]["clean_accuracy"]),
        f"{len(found['per_attack'])} × {settings['submissions']}", _worst(found),
        "" if judged is None else f"{_share(judged['accuracy'], judged['interval'])} of {judged['images']}",
        str(found["strongest"]),
        str(len(found["masking_signs"])) if _others([Row(**row) for row in found["attacks"]]) else "not tested",
        " / ".join(str(status.count(each)) for each in ("passed", "failed", "not run")),
    ]  # fmt: skip


def _worst(found: Mapping[str, Any]) -> str:
    value = found["worst_case_accuracy"]
    return "no attack ran" if value is None else _share(value, found["intervals"]["worst_case_accuracy"])


def _findings(found: Mapping[str, Any]) -> list[str]:
    """Return the essential findings: signs, failed or missing points, and the command."""
    lines = [f"**sign of masking**: {sign}" for sign in found["masking_signs"]]
    for point, status in found["checklist"].items():
        if status != "passed":
            lines.append(f"**{status}**: {point}: {found['reasons'][point]}")
    return [*lines, f"`{found['settings']['command']}`"]


def _details(document: Mapping[str, Any], drawn: bool) -> str:
    settings, times = document["settings"], document["settings"]["submissions"]
    threat = THREAT.format(knowledge=settings["knowledge"], times=times, s="" if times == 1 else "s")
    verdicts = [[point, status, document["reasons"][point]] for point, status in document["checklist"].items()]
    rows = [Row(**row) for row in document["attacks"]]
    drop = "" if settings["drop"] is None else f", r = {settings['drop']:g}"
    precision = settings.get("gradient_precision", "float32")  # older results do not have it
    gradients = "" if precision == "float32" else f", gradients in {precision}, answers and verdicts in float32"
    parts = [
        f"# {settings['bundle']} behind {settings['defence']}{drop}, ε = {_strength(document['eps'])}",
        f"Made by `{settings['command']}` from {settings['data']}, seed {settings['seed']}, on {settings['device']}"
        f"{gradients}. All numbers are in [{ATTACKS}]({ATTACKS}) and [{RESULT}]({RESULT}).",
        markdown(["what", "accuracy"], _headlines(document, rows)), _counts(rows),
        "## Threat model", threat,
        "## Signs of gradient masking",
        "\n".join(f"- {sign}" for sign in document["masking_signs"]) or _no_sign(rows),
        "## Checklist", markdown(["point", "verdict", "why"], verdicts),
        "## Attacks", ATTACKS_TEXT.format(compared=_compared(document, rows)), _table(rows),
        f"![accuracy over ε, steps and draws a gradient]({CURVES})" if drawn else "",
        "## Left out" if document["left_out"] else "",
        "\n".join(f"- {line}" for line in document["left_out"]),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


ATTACKS_TEXT: Final = """\
`accuracy` is of one submission a picture, the mean over its submissions; `every time` of pictures that are right in
all of them; both over `n` pictures, wrongly classified ones included. Attacks on the first {compared} pictures met
all of them; beyond, attacks other than `eot-pgd` went only for pictures that everything before had left standing,
which counts for the worst case and not here. Pictures that are never right when clean are not attacked. Rows below the
line are not attacks on this defence within ε: they test the attacks themselves."""


def _no_sign(rows: Sequence[Row]) -> str:
    """Return the words on a run without a sign: most signs compare two attacks."""
    return "None was seen among the attacks that ran." if len(_others(rows)) else "Not tested: one attack ran."


def _others(rows: Sequence[Row]) -> list[Row]:
    """Return everything that ran besides the main attack and the pictures without an attack."""
    return [row for row in rows if row.kind != CLEAN and row.name != MAIN]


def _attacks(rows: Sequence[Row]) -> list[Row]:
    """Return the attacks on the defence itself within the bound."""
    return [row for row in rows if row.counts and row.kind != CLEAN]


def _compared(document: Mapping[str, Any], rows: Sequence[Row]) -> int:
    """Return the number of first pictures that met all attacks but the main one."""
    return max((row.compared for row in _attacks(rows) if row.name != MAIN), default=int(document["images"]))


def _counts(rows: Sequence[Row]) -> str:
    """Return the numbers of attacks of a run, and how many met how many of the first pictures."""
    attacks, others = len(_attacks(rows)), sum(not row.counts and row.kind != CLEAN for row in rows)
    met = Counter(row.compared for row in _attacks(rows))
    sizes = ", ".join(f"{count} met the first {size}" for size, count in sorted(met.items(), reverse=True))
    return (
        f"{attacks + others} attack{'s' * (attacks + others > 1)} ran: {attacks} on this defence within ε, which "
        f"count{'s' * (attacks == 1)} for the worst case, and {others or 'none'} to test the attacks themselves. "
        f"Pictures that each of the {attacks} met whatever the others did (n, below): {sizes}. Point 7 of the "
        "checklist counts the pictures without an attack as one more run."
    )


def _headlines(document: Mapping[str, Any], rows: Sequence[Row]) -> list[list[str]]:
    images, attacks, worst = document["images"], _attacks(rows), document["worst_case_accuracy"]
    intervals, judged = document["intervals"], document["worst_case_of_judged"]
    standing = document.get("worst_case_images", images)
    last = sum(row.pictures >= standing for row in attacks)
    lines = [
        ["clean, one submission", _share(document["clean_accuracy"], intervals["clean_accuracy"])],
        [f"worst case over {len(attacks)} attacks and {document['settings']['submissions']} submissions, "
         f"{'all' if standing == images else 'the first'} {standing} pictures"
         + (f" (the last one met {last} of the attacks)" if last < len(attacks) else ""),
         "no attack ran" if worst is None else _share(worst, intervals["worst_case_accuracy"])],
    ]  # fmt: skip
    if judged is not None and judged["images"] < standing:
        lines.append([
            f"the same, the first {judged['images']}: they met {', '.join(judged['attacks'])}",
            _share(judged["accuracy"], judged["interval"]),
        ])  # fmt: skip
    return lines


def _table(rows: Sequence[Row]) -> str:
    heads = ["attack", "ε", "steps × draws, or queries", "n", "accuracy", "every time", "target reached", "seconds"]
    counted = [_cells(row) for row in rows if row.counts]
    others = [_cells(row) for row in rows if not row.counts]
    line = [["—"] * len(heads)] if counted and others else []
    return markdown(heads, [*counted, *line, *others])


def _cells(row: Row) -> list[str]:
    effort = f"{row.steps} × {row.samples}" if row.steps else str(row.queries or "")
    return [
        row.name, _strength(row.eps), effort, str(row.compared),
        _share(row.accuracy, (row.accuracy_low, row.accuracy_high)),
        _share(row.every_time, (row.every_time_low, row.every_time_high)),
        "" if row.target_reached is None else f"{row.target_reached:.3f}", f"{row.seconds:.0f}",
    ]  # fmt: skip


def _share(value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _strength(eps: float) -> str:
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{eps:.4g}"
