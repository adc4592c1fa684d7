"""The Markdown of the experiment, made from its CSV file alone: a verdict, the paper's rows, the honest ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from lab.experiments.cells import Row
from lab.experiments.qusecnets import plots
from lab.experiments.qusecnets.network import NETWORKS
from lab.experiments.qusecnets.plan import BLACK, HONEST, ROWS, WHITE, AttackRow, Plan
from lab.experiments.qusecnets.published import MAINS, PUBLISHED, REQUIREMENTS, published
from lab.experiments.qusecnets.steep_report import STEEPNESS_FILE, steep_section, steep_verdict
from lab.experiments.qusecnets.steepness import STEEP, Point
from lab.results.csv_rows import read_rows, write_rows
from lab.results.markdown import markdown
from schemas.runtime.atomic_file import replacing

ROWS_FILE = "rows.csv"
SETTINGS = "settings.json"
CURVES = "accuracy-by-eps.png"
ORDER = tuple(dict.fromkeys(("mnist-cq2-attacked", "mnist-cq2", STEEP, *NETWORKS)))
"""Of the networks on the page."""


def write_rows_beside(out: Path, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Write the rows of the networks `names`; those that `out` has of others stay, those of the same go."""
    file = out / ROWS_FILE
    kept = [row for row in read_rows(file, Row) if row.subject not in names] if file.is_file() else []
    write_rows(file, sorted((*kept, *rows), key=lambda row: ORDER.index(row.subject)), Row)


def write_settings(out: Path, command: str, plan: Plan, models: dict[str, str]) -> None:
    """Keep with the results what the rows of each network, by name with its model's id, were made with."""
    made = {"command": command, "torch": version("torch"), "plan": asdict(plan)}
    known = _settings(out) | {name: {"model": model, **made} for name, model in models.items()}
    subjects = {row.subject for row in read_rows(out / ROWS_FILE, Row)}
    with replacing(out / SETTINGS) as fresh:
        kept = {name: known[name] for name in ORDER if name in known and name in subjects}
        fresh.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _settings(out: Path) -> dict[str, dict[str, object]]:
    file = out / SETTINGS
    found: dict[str, dict[str, object]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def write_report(out: Path) -> list[str]:
    """Write README.md and the plot into `out` from what is there; the verdict's lines."""
    rows = read_rows(out / ROWS_FILE, Row)
    points = read_rows(out / STEEPNESS_FILE, Point) if (out / STEEPNESS_FILE).is_file() else []
    first, *others = verdict(rows)
    lines = [first, *steep_verdict(points, rows), *others]
    names = list(dict.fromkeys(row.subject for row in rows))
    plots.by_eps(rows, out / CURVES)
    parts = [
        "# QuSecNets, measured",
        f"Made by `pointillist lab qusecnets`; what made each network's rows is in `{SETTINGS}` and at the end, rows "
        f"in `{ROWS_FILE}`. " + HOW,
        "## In short",
        "\n".join(f"- {line}" for line in lines),
        "## As the paper did it",
        PAPER_TEXT,
        *(_table(rows, names, data, (WHITE, BLACK)) for data in ROWS),
        "What the paper's text prints (its bars have no numbers):",
        _published(),
        "## Attackers who know the layer, and controls",
        HONEST_TEXT,
        *(_table(rows, names, data, (HONEST,)) for data in ROWS),
        f"![accuracy by ε under PGD with exact gradients]({CURVES})",
        *steep_section(points, out),
        "## The networks",
        NETWORKS_TEXT,
        "\n".join(f"- `{each['model']}`, by `{each['command']}`" for each in _settings(out).values()),
    ]
    with replacing(out / "README.md") as fresh:
        fresh.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return lines


def verdict(rows: Sequence[Row]) -> list[str]:
    """What was asked for, and what an honest attacker leaves of it."""
    lines = []
    for name in MAINS:
        for wanted in REQUIREMENTS:
            found = _find(rows, name, wanted.attack)
            if found is None:
                lines.append(f"{name}, {wanted.attack}, white-box as the paper did it: not measured")
                continue
            word = "aim" if found.accuracy >= wanted.aim else "must" if found.accuracy >= wanted.must else "MISSED"
            asked = f"paper {wanted.paper:.3f}, must {wanted.must}, aim {wanted.aim}"
            said = f"{_share(found)} of {found.n}: {word} ({asked})"
            bare = _find(rows, "mnist-plain", wanted.attack)
            if bare is not None and bare.accuracy >= wanted.must:
                said += f"; it tells nothing, the plain network keeps {bare.accuracy:.3f}"
            lines.append(f"{name}, {found.label}, white-box as the paper did it: {said}")
    for name in dict.fromkeys(row.subject for row in rows):
        honest = [(row.accuracy, row) for row in rows if row.subject == name and row.attack == "worst"]
        clean = _find(rows, name, "clean")
        if honest and clean is not None:
            _, row = honest[0]
            lines.append(f"{name}: clean {clean.accuracy:.3f}; {row.label}: {_share(row)} of {row.n}")
            lines += _hidden(rows, name, row.eps)
    return lines


def _hidden(rows: Sequence[Row], name: str, eps: float | None) -> list[str]:
    """Said loudly: attacks without the layer's own gradient that beat those with it, on as many pictures."""
    exact = [row for row in rows if row.subject == name and row.attack.startswith("pgd-") and row.eps == eps]
    others = [_find(rows, name, key) for key in ("bpda-identity", "bpda-soft", "transfer")]
    if not exact or not any(others):
        return []
    through = max(exact, key=lambda row: row.n)
    best = min((row for row in others if row is not None), key=lambda row: row.accuracy)
    if best.n != through.n or best.accuracy >= through.accuracy:
        return []
    return [
        f"{name}: THE LAYER HIDES ITS GRADIENT: {best.label} leaves {best.accuracy:.3f}, exact gradients "
        f"{through.accuracy:.3f}"
    ]


def _find(rows: Sequence[Row], name: str, attack: str, targeted: bool = False) -> Row | None:
    found = [row for row in rows if (row.subject, row.attack, row.targeted) == (name, attack, targeted)]
    return found[0] if found else None


def _share(row: Row) -> str:
    return f"{row.accuracy:.3f} ±{(row.ci_high - row.ci_low) / 2:.3f}"


def _table(rows: Sequence[Row], names: Sequence[str], data: str, knowledge: tuple[str, ...]) -> str:
    own = [name for name in names if name.startswith(f"{data}-")]
    lines = []
    for wanted in ROWS[data]:
        cells = [_cell(rows, name, wanted, data) for name in own]
        if wanted.knowledge in knowledge and any(cells):
            kind = ", targeted" if wanted.targeted else ""
            lines.append([wanted.label + kind, wanted.knowledge, *(cell or "not measured" for cell in cells)])
    return markdown(["attack", "attacker", *own], lines)


def _cell(rows: Sequence[Row], name: str, wanted: AttackRow, data: str) -> str:
    row = _find(rows, name, wanted.key, wanted.targeted)
    if row is None:
        return ""
    paper = None if wanted.targeted else published(data, wanted.key, name.partition("-")[2])
    target = "" if row.success is None else f", target {row.success:.2f}"
    return f"{_share(row)} ({row.n}){target}" + ("" if paper is None else f"; *paper {paper:.3f}*")


def _published() -> str:
    lines = [[each.data, each.attack, each.network, f"{each.accuracy:.4f}", each.source] for each in PUBLISHED]
    return markdown(["data", "attack", "network", "accuracy", "where"], lines)


HOW = (
    "Accuracies are of the first test pictures, right or wrong, ± half of the 95 % interval; in brackets how many. "
    "cq: n constant levels, z = 50 as in the paper; steep: the same weights at a larger z, which is not the paper's; "
    "tq: thresholds and z trained with the network. A network's layer is the stage `quantisation` of its bundle, the "
    "one that runs live. A row that is not there was not measured."
)
PAPER_TEXT = (
    "White-box: the attacker differentiates the network and its layer, which is a smooth function; that is what an "
    "attack library does when it is handed the model. FGSM is one step. C&W is clipped to L∞ .1 after it was made, 3 "
    "× 100 iterations. Black-box: the attack is made on a substitute, trained on the answers to 1,000 pictures. JSMA "
    "may change 14.5 % of the values."
)
HONEST_TEXT = (
    "PGD goes through the layer with its exact gradient, or past it with that of the identity or of one soft sigmoid "
    "(BPDA). Square needs no gradient. `transfer` is made on the plain network. Random signs are the control. `worst "
    "of all` counts a picture only when it survives every attack of the page within the bound. Where an attack "
    "without gradients or of one step beats those with exact ones, the layer hides its gradient."
)
NETWORKS_TEXT = (
    "CleverHans' basic CNN, trained by `python -m lab.experiments.qusecnets.training NAME`, cross-entropy on clean "
    "pictures that are shifted (and mirrored on CIFAR-10). No attack takes part, except in `attacked`: that one is "
    "then trained against attacks through the layer, which the paper does not do, to show what quantisation "
    "alone leaves open. Each folder's `training.md` has its accuracy and what a trained layer learned."
)
