"""The page of the experiment, made from its rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab.experiments.aigan.published import BLACK_BOX, DEFENDED, TIMES, WHITE_BOX
from lab.experiments.aigan.rows import Generator, SuccessRow, TimeRow
from lab.experiments.harness.page import write_page
from lab.experiments.harness.store import Store
from lab.results.bounds import LEGEND, reached
from lab.results.markdown import markdown

COMMAND: Final = "pointillist lab stale --only aigan --run"
REPORT: Final = "README.md"
NAMES: Final = {
    "mnist": "MNIST", "cifar10": "CIFAR-10", "scene": "scenes", "scene-hardened": "scenes, hardened network",
}  # fmt: skip


_NONE: Final = "–"
_BOUNDS: Final = {
    ("mnist", "white-box"): ("≥ 98.50", "≥ 99.50"),
    ("mnist", "black-box"): ("≥ 95.00", _NONE),
    ("cifar10", "white-box"): ("≥ 90.00", "≥ 97.00"),
    ("cifar10", "black-box"): ("≥ 75.00", _NONE),
}
"""Bounds of the success of AI-GAN on the whole test split in %, by task and knowledge: must and aim."""
_TIMES: Final = ("≥ 70", "≥ 150")
"""Bounds of the time of PGD-40 ÷ AI-GAN: must and aim."""


def plot(folder: Path, name: str) -> Path:
    """Return the file of a plot."""
    return folder / f"{name}.png"


def write_report(store: Store) -> list[str]:
    """Write `README.md` from the stored rows; there is no verdict."""
    folder, generators = store.folder, store.records("generators", Generator)
    rows, times = store.records("success", SuccessRow), store.records("times", TimeRow)
    plots = sorted(file.name for file in folder.glob("*.png"))
    parts = [
        "# AI-GAN",
        "Targeted attacks in one pass of a trained generator (Bai et al. 2023), on test pictures, each towards a "
        "random class other than its label. A success is a picture that the network takes for that class. Shares come "
        "with Wilson's intervals of 95 %; accuracy is that of the network on the attacked pictures, clean that before.",
        f"```console\n$ {COMMAND}\n```",
        *(f"`{each.name}`: {each.knowledge}, trained against {each.bundle} by `{each.command}`" for each in generators),
        "## The bare network (Tables II and IV)",
        LEGEND,
        _successes(rows),
        "Rows of 10000 pictures are the whole test split. The others are its first pictures.",
        "The recipe departs from the paper in the attacker's favour. The shipped white-box generators of MNIST and "
        "CIFAR-10 had a second training for the share of missed targets alone, without AI-GAN's discriminator and "
        "attacker: it took them from .9887 and .8644 of all test pictures to the figures above. Both black-box "
        "attackers train on the target's own training pictures and labels, where the paper's know nothing of the "
        "training data.",
        "By the class that was asked for, in %:",
        _by_class(rows),
        "The MNIST network `mnist-b` was trained at five times the usual learning rate: attacks by gradients reach "
        "more of their targets on it than on one trained at the usual rate, which the generator did not attack. The "
        "scene generator was made by an earlier state of the code and was not trained further: its command makes "
        "another one today.",
        "## Under defences (Table V)",
        "The attackers know the bare network and no defence. Drop and reconstruction is the fleet's live chain with "
        "25 % of the pixels dropped by masks that nobody outside knows.",
        "In the paper's Table V, attackers know the bare network and no defence either, but its defences are networks "
        "trained against attacks. "
        f"Against training by PGD, its AI-GAN reaches {DEFENDED['mnist']} of the targets on MNIST and "
        f"{DEFENDED['cifar10']} on CIFAR-10. It is ahead of PGD in 10 of 12 cells there. {_against_pgd(rows)}",
        _defended(rows),
        "## Time (Table VI)",
        "All attacks of a data set in one run, in batches of the same size and on as many threads: the generator under "
        "ONNX Runtime, as it ships, gradients by PyTorch through the bundle's network with its normalisations folded. "
        "Clocks start after a first run; "
        "the generator's time is the median of five passes, the others' is of one. The bounds are the paper's ratio, "
        "but its PGD has 20 steps. With 20 steps our ratios would be about half, and the lower bound would be reached "
        f"by {_at_20_steps(times)}. The two runtimes differ: the generators ship as ONNX alone.",
        _times(times),
        "\n".join(f"![{name.removesuffix('.png')}]({name})" for name in plots),
    ]
    write_page(folder / REPORT, parts)
    return []


def _against_pgd(rows: list[SuccessRow]) -> str:
    """Return the sentence on the defences behind which one attack reaches more targets, beyond the intervals."""
    found = {(row.task, row.defence, row.attack): row for row in rows if row.target < 0 and row.defence != "none"}
    pairs = [
        (row, found[row.task, row.defence, "PGD-40"])
        for row in found.values()
        if row.attack == "AI-GAN" and row.knowledge == "white-box" and (row.task, row.defence, "PGD-40") in found
    ]
    behind = [ours for ours, theirs in pairs if theirs.low > ours.high]
    ahead = [ours for ours, theirs in pairs if ours.low > theirs.high]
    return (
        f"Here, of {len(pairs)} pairs of a network and a defence, PGD-40 reaches more targets than AI-GAN beyond the "
        f"intervals in {_named(behind)}, and AI-GAN more than PGD-40 in {_named(ahead)}."
    )


def _named(rows: list[SuccessRow]) -> str:
    """Return the number of rows, with their pictures and defences."""
    names = "; ".join(f"{NAMES[row.task]} behind {row.defence}" for row in rows)
    return f"{len(rows)} ({names})" if rows else "none"


def _at_20_steps(times: list[TimeRow]) -> str:
    """Return the pictures on which PGD with half of the measured time would reach the lower bound."""
    own = {row.task: row.seconds for row in times if row.attack == "AI-GAN"}
    least = float(_TIMES[0].removeprefix("≥ "))
    ratios = {NAMES[row.task]: row.seconds / own[row.task] / 2 for row in times if row.attack == "PGD-40"}
    names = "; ".join(f"*{name}*" for name, ratio in ratios.items() if ratio >= least)
    return f"{names or 'none'} of the {len(ratios)}"


def _percent(row: SuccessRow) -> str:
    return f"{100 * row.share:.2f} ({100 * row.low:.2f}–{100 * row.high:.2f})"


def _successes(rows: list[SuccessRow]) -> str:
    heads = (
        "pictures", "attacker", "attack", "L∞ ε", "n", "success, %", "accuracy, %", "clean, %", "paper",
        "must", "aim", "reached",
    )  # fmt: skip
    return markdown(heads, _success_lines([row for row in rows if row.target < 0 and row.defence == "none"]))


def _success_lines(rows: list[SuccessRow]) -> Iterator[list[str]]:
    for row in rows:
        published = WHITE_BOX if row.knowledge == "white-box" else BLACK_BOX
        paper = published.get(row.task, "–") if row.attack == "AI-GAN" else "–"
        bounds = _BOUNDS.get((row.task, row.knowledge), (_NONE, _NONE)) if row.attack == "AI-GAN" else (_NONE, _NONE)
        yield [
            NAMES[row.task], row.knowledge, row.attack, f"{row.eps:.4f}", str(row.images), _percent(row),
            f"{100 * row.accuracy:.2f}", f"{100 * row.clean:.2f}", paper, *bounds, reached(*bounds, _percent(row)),
        ]  # fmt: skip


def _by_class(rows: list[SuccessRow]) -> str:
    by_generator = [row for row in rows if row.attack == "AI-GAN" and row.target >= 0]
    kinds = dict.fromkeys((row.task, row.knowledge) for row in by_generator)
    targets = sorted({row.target for row in by_generator})
    shares = {(row.task, row.knowledge, row.target): f"{100 * row.share:.1f}" for row in by_generator}
    return markdown(
        ("pictures", "attacker", *(str(target) for target in targets)),
        ([NAMES[task], kind, *(shares.get((task, kind, target), "–") for target in targets)] for task, kind in kinds),
    )


def _defended(rows: list[SuccessRow]) -> str:
    heads = ("pictures", "defence", "attack", "n", "success, %", "accuracy, %", "clean, %")
    lines = (
        [NAMES[row.task], row.defence, row.attack, str(row.images), _percent(row),
         f"{100 * row.accuracy:.2f}", f"{100 * row.clean:.2f}"]
        for row in sorted(rows, key=lambda row: (list(NAMES).index(row.task), row.defence))
        if row.target < 0 and row.knowledge == "white-box" and row.defence != "none"
    )  # fmt: skip
    return markdown(heads, lines)


def _times(rows: list[TimeRow]) -> str:
    own = {row.task: row.seconds for row in rows if row.attack == "AI-GAN"}
    heads = (
        "pictures",
        "attack",
        "n",
        "threads",
        "seconds",
        "÷ AI-GAN",
        "paper, 1,000 attacks",
        "must",
        "aim",
        "reached",
    )
    return markdown(heads, (_time_line(row, f"{row.seconds / own[row.task]:.1f}") for row in rows))


def _time_line(row: TimeRow, ratio: str) -> list[str]:
    bounds = _TIMES if row.attack == "PGD-40" else (_NONE, _NONE)
    return [
        NAMES[row.task], row.attack, str(row.images), str(row.threads), f"{row.seconds:.3f}", ratio, TIMES[row.attack],
        *bounds, reached(*bounds, ratio),
    ]  # fmt: skip
