"""The plan of the certified labels, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from lab.backdoor.catalogue import MODELS
from lab.backdoor.train import shipped_models
from lab.experiments.certified.measure import STAMPED, Row, Subject, certified
from lab.experiments.certified.published import PUBLISHED, Published
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.page import Column, table, write_page
from lab.experiments.harness.plan import Plan, Workplace
from lab.results.bounds import LEGEND, reached
from processors.bundle import shipped_bundle

NAME: Final = "certified"
TABLES: Final = {"rows": Row}
_CODE: Final = "lab.experiments.certified.measure:certified"
_SCENES: Final = "scenes-640x480"
_TWO_PERCENT: Final = 78
"""Side of a square of 2 % of a frame of 640×480."""
STICKERS: Final = "cifar10-stickers"
SCENE_STICKERS: Final = "scene-stickers"
"""Networks after training with `pointillist lab harden --stickers`. They ship with the lab."""
SUBJECTS: Final = (
    Subject("cifar10", "cifar10", 5, 5),
    Subject(STICKERS, "cifar10", 5, 5),
    Subject(SCENE_STICKERS, _SCENES, _TWO_PERCENT, _TWO_PERCENT, count=100, windows=8),
    Subject("scene", _SCENES, _TWO_PERCENT, _TWO_PERCENT, count=100),
    Subject("cifar10", "cifar10", 5, 5, "plate"),
    Subject("cifar10", "cifar10", 5, 5, "grey"),
    Subject("cifar10-hardened", "cifar10", 5, 5),
    Subject(STICKERS, "cifar10", 5, 5, windows=8),
    *(Subject("cifar10", "cifar10", side, side, count=300) for side in (2, 3, 4, 7)),
    *(
        Subject(backdoored, pictures, side, side, count=300)
        for backdoored, side in (("resnet20-c-1", 4), ("resnet20-d-1", 6))
        for pictures in (STAMPED, "cifar10")
    ),
)


_NONE: Final = "–"
BOUNDS: Final = {
    (STICKERS, "cifar10", 5): ("≥ .58", "≥ .68", "≥ .88", "≥ .90"),
    (SCENE_STICKERS, _SCENES, _TWO_PERCENT): ("≥ .90", "≥ .97", _NONE, _NONE),
}
"""Bounds by network, pictures and the patch's rows: must and aim of the certified share, and of the clean one."""


def bounds(row: Row) -> tuple[str, str, str, str]:
    """Return must and aim of the certified share, and must and aim of the clean one."""
    return BOUNDS.get((row.network, row.pictures, row.rows), (_NONE,) * 4)


def _share(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _certified(row: Row) -> str:
    return _share(row.certified, row.certified_low, row.certified_high)


def _clean(row: Row) -> str:
    return _share(row.clean, row.clean_low, row.clean_high)


COLUMNS: Final[tuple[Column[Row], ...]] = (
    Column("network", lambda row: row.network),
    Column("pictures", lambda row: row.pictures),
    Column("patch", lambda row: f"{row.rows}×{row.columns}"),
    Column("fill", lambda row: row.fill),
    Column("windows", lambda row: f"{row.windows}×{row.windows}"),
    Column("n", lambda row: str(row.n)),
    Column("certified [95 %]", _certified),
    Column("must", lambda row: bounds(row)[0]),
    Column("aim", lambda row: bounds(row)[1]),
    Column("reached", lambda row: reached(*bounds(row)[:2], _certified(row))),
    Column("clean [95 %]", _clean),
    Column("clean: must", lambda row: bounds(row)[2]),
    Column("clean: aim", lambda row: bounds(row)[3]),
    Column("clean: reached", lambda row: reached(*bounds(row)[2:], _clean(row))),
    Column("passes, certificate", lambda row: f"{row.passes:.0f}"),
    Column("passes, label alone", lambda row: f"{row.label_passes:.0f}"),
)
OTHERS: Final[tuple[Column[Published], ...]] = (
    Column("method", lambda each: each.method),
    Column("network", lambda each: each.network),
    Column("pictures", lambda each: each.pictures),
    Column("certified", lambda each: each.certified),
    Column("clean", lambda each: each.clean),
    Column("source", lambda each: f"{each.source}{'' if each.checked else ' (not checked against the text)'}"),
)


_BACKDOORED: Final = (
    "The networks `resnet20-…` have a backdoor that nobody has repaired, with a trigger of the patch's size. "
    "Triggered pictures (*stamped*) of other classes carry the trigger, and *clean* is the share of them whose label "
    "by double masking is the true one. No picture whose label the trigger has changed can be certified as its true "
    "class: windows next to the trigger leave the attacker's label. The certificates of their clean pictures promise "
    "those labels in advance."
)


def plan(place: Workplace) -> Plan:
    """Each subject of `SUBJECTS`, in the order of its worth."""
    store = place.store(NAME)

    def cell(subject: Subject) -> Cell:
        backdoored = subject.network in MODELS
        bundle = _folder(subject.network)
        needs_data = subject.pictures != _SCENES
        inputs = (bundle, place.data_set("cifar10")) if needs_data else (bundle,)

        def measure() -> Tables:
            made_from = f"{own.code_state} {own.input_state}"
            data = place.needed_data() if needs_data else None
            poisoning = MODELS[subject.network].poisoning if subject.pictures == STAMPED else None
            return {"rows": [certified(subject, bundle, data, place.cache(NAME), made_from, poisoning)]}

        own = Cell(
            subject.name,
            (_CODE,),
            measure,
            (subject, MODELS[subject.network].poisoning) if backdoored else subject,
            inputs,
            (0.5 if subject.pictures == _SCENES else 0.025) * subject.count * subject.windows**4 / 36,
        )
        return own

    def write() -> list[str]:
        write_page(store.folder / "README.md", page(store.records("rows", Row)))
        return []

    return Plan(NAME, TABLES, tuple(map(cell, SUBJECTS)), store, write)


def _folder(network: str) -> Path:
    if network in MODELS:
        return shipped_models() / network / "bundle"
    if network in (STICKERS, SCENE_STICKERS):
        return Path(str(files("lab"))) / "networks" / network
    return shipped_bundle(network)


def page(rows: Sequence[Row]) -> list[str]:
    """Return the parts of the page."""
    return [
        "# Certified labels under adversarial patches (stickers)",
        f"Made by `pointillist lab stale --only {NAME} --run`. *Certified* is the share of pictures that keep their "
        "true label whatever one patch of this size shows, at any place. *Clean* is the accuracy of double masking "
        "on the same pictures. A certificate with k windows takes at most k·(k + 1) ÷ 2 passes: 666 with 6×6. "
        "[How to certify a network](../../howto/certify.md); [why](../../adr/0068-certified-labels.md).",
        LEGEND,
        table(COLUMNS, rows),
        *([_BACKDOORED] if any(row.pictures == STAMPED for row in rows) else []),
        "Published figures for one patch anywhere, not measured here. PatchCleanser's networks are larger, see "
        "pictures of 224×224 and were pretrained on ImageNet:",
        table(OTHERS, PUBLISHED),
        "Limits:\n\n"
        "- The certificate covers one patch of this size. It covers no larger patch, no second one, and no change "
        "spread over the whole frame.\n"
        "- Labels of CIFAR-10 reach their bound with at most eight windows along a side (49 windows of 8×8 pixels), "
        "and the bound lies inside the interval. With six they miss it. The network was trained on such windows, four "
        "pairs for each picture, after one that was trained for six windows had certified .540 of the same pictures.\n"
        "- Scenes reach theirs with 64 windows and a network that was trained for it (`scene-stickers`), on 100 whole "
        "frames: the bound lies inside the interval. The network that the fleet runs by default certifies fewer.\n"
        "- The pictures are whole. Live frames have dropped pixels, and 4×4 windows unless set otherwise: far fewer of "
        "them get a certificate ([live shares](../system.md)).\n"
        "- Larger networks that were trained on more pictures certify more, transformers above all.\n"
        "- A certificate by randomly dropped pixels needs p_A − p_B > 2Δ. At the fleet's ratios r = .25 and .5, one "
        "changed pixel has Δ = .75 and .50, so nothing is certified that way.\n"
        "- A certified label can be wrong: the share of wrong ones is not part of *certified*, which counts true "
        "labels alone.\n"
        "- Rounding may differ between batch sizes. A certificate holds for the arithmetic that made it.",
    ]
