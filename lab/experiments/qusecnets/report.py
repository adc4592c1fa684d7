"""The page of the experiment, made from its rows alone: a verdict, the paper's attacks, adaptive attacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from lab.experiments.cells import Row
from lab.experiments.harness.page import write_page
from lab.experiments.harness.store import ROWS, Store
from lab.experiments.qusecnets import plots
from lab.experiments.qusecnets.adversarial import ATTACKED
from lab.experiments.qusecnets.network import NETWORKS
from lab.experiments.qusecnets.plan import BLACK, GRID, GRID_ROWS, HONEST, WHITE, WHOLE_ROWS, WHOLE_SUFFIX, AttackRow
from lab.experiments.qusecnets.plan import ROWS as ATTACKS
from lab.experiments.qusecnets.published import MAINS, PUBLISHED, REQUIREMENTS, published
from lab.experiments.qusecnets.residual import EPOCHS, RESIDUAL
from lab.experiments.qusecnets.steep_report import steep_section, steep_verdict
from lab.experiments.qusecnets.steepness import STEEP, Point
from lab.results.margin import margin
from lab.results.markdown import markdown

CURVES = "accuracy-by-eps.png"
ORDER = tuple(dict.fromkeys((RESIDUAL.name, "mnist-cq2-attacked", "mnist-cq2", STEEP, *NETWORKS)))
"""The order of the networks on the page."""
PAPERS_EPS: Final = 0.3
"""The bound of the rows `fgsm` on MNIST."""
GRID_EPS: Final = sorted([PAPERS_EPS, *(row.eps for row in GRID_ROWS if row.eps is not None)])


@dataclass(frozen=True)
class Network:
    """A network of the page: its model, and the command that made its rows."""

    name: str
    model: str
    command: str


def write_report(store: Store) -> list[str]:
    """Write README.md and the plots from the stored rows; return the verdict's lines."""
    out, rows = store.folder, sorted(store.records("rows", Row), key=lambda row: ORDER.index(row.subject))
    points = store.records("steepness", Point)
    networks = sorted(store.records("networks", Network), key=lambda each: ORDER.index(each.name))
    first, *others = verdict(rows)
    lines = [first, *steep_verdict(points, rows), *others]
    names = list(dict.fromkeys(row.subject for row in rows))
    plots.by_eps(rows, out / CURVES)
    parts = [
        "# QuSecNets, measured",
        f"Made by `pointillist lab stale --only qusecnets --run`; rows and their provenance are in `{ROWS}`. " + HOW,
        "## In short",
        "\n".join(f"- {line}" for line in lines),
        "## As the paper did it",
        PAPER_TEXT,
        *(_table(rows, names, data, (WHITE, BLACK)) for data in ATTACKS),
        "What the paper's text prints (its bars have no numbers):",
        _published(),
        "## FGSM by ε and number of levels (Figures 5 and 6)",
        grid_text(rows),
        _grid(rows),
        "## Attackers who know the layer, and controls",
        HONEST_TEXT,
        *(_table(rows, names, data, (HONEST,)) for data in ATTACKS),
        f"![accuracy by ε under PGD with exact gradients]({CURVES})",
        *steep_section(points, out),
        "## The networks",
        NETWORKS_TEXT,
        "\n".join(f"- `{each.model}`, by `{each.command}`" for each in networks),
    ]
    write_page(out / "README.md", parts)
    return lines


def verdict(rows: Sequence[Row]) -> list[str]:
    """Return the requirements with their figures, and the accuracy that an adaptive attacker leaves."""
    lines = []
    for name in (*MAINS, RESIDUAL.name):
        for wanted in REQUIREMENTS:
            found = _find(rows, name, f"{wanted.attack}{WHOLE_SUFFIX}") or _find(rows, name, wanted.attack)
            if found is None:
                lines.append(f"{name}, {wanted.attack}, white-box as the paper did it: not measured")
                continue
            word = "aim" if found.accuracy >= wanted.aim else "must" if found.accuracy >= wanted.must else "MISSED"
            figure = published("mnist", wanted.attack, name.removeprefix("mnist-"))
            paper = "not a network of the paper" if figure is None else f"paper {figure:.3f}"
            asked = f"{paper}, must {wanted.must}, aim {wanted.aim}"
            line = f"{_share(found)} of {found.n}: {word} ({asked})"
            bare = _find(rows, "mnist-plain", wanted.attack)
            if bare is not None and bare.accuracy >= wanted.must:
                line = (
                    f"{_share(found)} of {found.n} ({asked}): no finding, the plain network keeps {bare.accuracy:.3f}"
                )
            lines.append(f"{name}, {found.label}, white-box as the paper did it: {line}")
    for name in dict.fromkeys(row.subject for row in rows):
        honest = [(row.accuracy, row) for row in rows if row.subject == name and row.attack == "worst"]
        clean = _find(rows, name, "clean")
        if honest and clean is not None:
            _, row = honest[0]
            lines.append(f"{name}: clean {clean.accuracy:.3f}; {row.label}: {_share(row)} of {row.n}")
            lines += _hidden(rows, name, row.eps)
    return lines


def _hidden(rows: Sequence[Row], name: str, eps: float | None) -> list[str]:
    """Return a warning if an attack without the layer's own gradient beats those with it, on as many pictures.

    One of a few pictures is chance: the upper end of its interval lies below the share that exact gradients leave.
    """
    exact = [row for row in rows if row.subject == name and row.attack.startswith("pgd-") and row.eps == eps]
    others = [_find(rows, name, key) for key in ("bpda-identity", "bpda-soft", "transfer")]
    if not exact or not any(others):
        return []
    through = max(exact, key=lambda row: row.n)
    best = min((row for row in others if row is not None), key=lambda row: row.accuracy)
    if best.n != through.n or best.ci_high >= through.accuracy:
        return []
    return [
        f"{name}: the layer hides its gradient: {best.label} leaves {best.accuracy:.3f}, exact gradients "
        f"{through.accuracy:.3f}"
    ]


def _find(rows: Sequence[Row], name: str, attack: str, targeted: bool = False) -> Row | None:
    found = [row for row in rows if (row.subject, row.attack, row.targeted) == (name, attack, targeted)]
    return found[0] if found else None


def _share(row: Row) -> str:
    return f"{row.accuracy:.3f} ±{margin(row.accuracy, row.ci_low, row.ci_high):.3f}"


def _table(rows: Sequence[Row], names: Sequence[str], data: str, knowledge: tuple[str, ...]) -> str:
    own = [name for name in names if name.startswith(f"{data}-")]
    lines = []
    for wanted in (*ATTACKS[data], *WHOLE_ROWS):
        cells = [_cell(rows, name, wanted, data) for name in own]
        if wanted.knowledge in knowledge and any(cells):
            kind = ", targeted" if wanted.targeted else ""
            lines.append([wanted.label + kind, wanted.knowledge, *(cell or "not measured" for cell in cells)])
    return markdown(["attack", "attacker", *own], lines)


def _grid(rows: Sequence[Row]) -> str:
    lines = []
    for eps in GRID_EPS:
        found = [_at(rows, name, eps) for name in GRID]
        lines.append([f"{eps:g}", *("not measured" if row is None else f"{_share(row)} ({row.n})" for row in found)])
    return markdown(["ε", *GRID], lines)


def _at(rows: Sequence[Row], name: str, eps: float) -> Row | None:
    found = _find(rows, name, f"fgsm-{eps:g}")
    return _find(rows, name, "fgsm") if found is None and eps == PAPERS_EPS else found


def grid_text(rows: Sequence[Row]) -> str:
    """Return what the grid shows of the paper's two claims: fewer constant levels, and trained ones, keep more."""
    constant, trained = ([name for name in GRID if name.startswith(f"mnist-{kind}")] for kind in ("cq", "tq"))

    def ahead(pairs: Iterable[tuple[str, str]]) -> str:
        found = [(_at(rows, left, eps), _at(rows, right, eps)) for left, right in pairs for eps in GRID_EPS]
        both = [(left, right) for left, right in found if left is not None and right is not None]
        return f"{sum(left.ci_low > right.ci_high for left, right in both)} of {len(both)}"

    return (
        "The paper's bars have no numbers. Its text says that fewer constant levels keep more, and that trained "
        "thresholds do significantly better than constant ones in most cases. Here, beyond the intervals, the network "
        f"with fewer constant levels keeps more in {ahead(pairwise(constant))} comparisons of neighbours at one ε. "
        f"Trained thresholds (one for all pixels) keep more than as many constant ones in "
        f"{ahead(zip(trained, constant, strict=True))} comparisons, and constant ones more in "
        f"{ahead(zip(constant, trained, strict=True))}."
    )


def _cell(rows: Sequence[Row], name: str, wanted: AttackRow, data: str) -> str:
    row = _find(rows, name, wanted.key, wanted.targeted)
    if row is None:
        return ""
    paper = None if wanted.targeted else published(data, wanted.key.removesuffix(WHOLE_SUFFIX), name.partition("-")[2])
    target = "" if row.success is None else f", target {row.success:.2f}"
    return f"{_share(row)} ({row.n}){target}" + ("" if paper is None else f"; *paper {paper:.3f}*")


def _published() -> str:
    lines = [[each.data, each.attack, each.network, f"{each.accuracy:.4f}", each.source] for each in PUBLISHED]
    return markdown(["data", "attack", "network", "accuracy", "where"], lines)


HOW = (
    "Accuracies are of the first test pictures, right or wrong, ± the distance to the farther end of the 95 % "
    "interval; in brackets how many. "
    "The rows of all test pictures cover the whole split, because its first pictures are harder than the rest. "
    "cq: n constant levels, z = 50 as in the paper; steep: the same weights at a larger z, which is not the paper's; "
    "tq: thresholds and z trained with the network, one threshold for all pixels; printed: as in the paper, with the "
    "squared error and, for tq, one threshold for each pixel. A network's layer is the stage `quantisation` of its "
    "bundle, the one that runs live. A row that is not there was not measured."
)
PAPER_TEXT = (
    "White-box: the attacker differentiates the network and its layer, which is a smooth function; that is what an "
    "attack library does when it is handed the model. FGSM is one step. C&W is clipped to L∞ .1 after it was made, 3 "
    "× 100 iterations. Black-box: the attack is made on a substitute, trained on the answers to 1,000 pictures. JSMA "
    "may change 14.5 % of the values, so on MNIST it does 56 steps; the paper's does 100 and is stronger. The "
    "paper's figures stand only at the kinds of network that its text names."
)
HONEST_TEXT = (
    "PGD goes through the layer with its exact gradient, or past it with that of the identity or of one soft sigmoid "
    "(BPDA). Square needs no gradient. `transfer` is made on the plain network. Random signs are the control. `worst "
    "of all` counts a picture if it survives every attack within the bound that was made on it, but for those of the "
    "grid. Square, PGD of 100 steps and C&W met the first 50 of the 200 pictures only, so it is an upper bound. Where "
    "an attack without gradients or of one step beats those with exact ones, the layer hides its gradient."
)
NETWORKS_TEXT = (
    "CleverHans' basic CNN, trained by `python -m lab.experiments.qusecnets.training NAME`, cross-entropy (`printed`: "
    "squared error) on clean pictures that are shifted (and mirrored on CIFAR-10). No attack takes part, except in "
    f"`attacked`: that one is then trained for {ATTACKED.epochs} epochs by PGD in the output box of its layer, the "
    "values that the layer can return for pictures within .3. The paper does not do this; it shows what quantisation "
    "alone leaves open. What is behind the layer of `attacked` is not the paper's network either, but model B of "
    "Carlini and Wagner with four smaller convolutions. `residual` has a residual network there, trained for "
    f"{EPOCHS} epochs by `python -m lab.experiments.qusecnets.residual`. Each folder's `training.md` "
    "has its accuracy and what a trained layer learned."
)
