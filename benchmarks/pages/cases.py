"""Cases of figures that need arithmetic on their document. The TOML files of the pages name these functions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.pages.cost_pages import ON_THE_SERVER, camera_bytes, cells_of, total_cpu_ms
from benchmarks.pages.figure import NONE, Case, Cases
from benchmarks.pages.red_team_cases import judged, paired, shown_again, strongest_of_the_same, transferred
from benchmarks.pages.red_team_figures import CONDITIONS
from lab.experiments.certified import experiment as certified_labels
from lab.experiments.certified.measure import Row as CertifiedRow
from lab.experiments.codefend import report as codefend_report
from lab.experiments.codefend import tables as codefend_tables
from lab.experiments.harness.store import Store
from lab.experiments.qusecnets.plan import WHOLE_SUFFIX
from lab.experiments.scale.measure import LARGE
from lab.experiments.scale.measure import WHOLE as REBUILT_WHOLE
from lab.experiments.super_iot import report as super_iot_report
from lab.experiments.super_iot import tables as super_iot_tables
from lab.experiments.super_iot.plan import RATIOS
from lab.experiments.super_iot.published import TABLE_1
from lab.experiments.super_iot.rows import QualityRow, Row
from lab.experiments.super_iot.verdict import quality_findings
from lab.statistics import Interval, independent_difference, wilson

MIB: Final = 2**20
PAPER_RATIOS: Final = tuple(RATIOS)


def _hostile(document: Any) -> Iterator[Case]:
    found = document["result"]
    replays = found["replays_removed"]
    refused = found["hostile"] - found["frames_foreign"] - replays
    grew = ", ".join(f"{role} {size / MIB:.0f} MiB" for role, size in found["grew_bytes"].items())
    yield {**found, "replays": replays, "refused": refused, "grew": grew}


def _attacks(document: Any) -> Iterator[Case]:
    for name, case in document["result"].items():
        seen = case["seen"]
        times = {
            short: NONE if seen.get(long) is None else f"{seen[long]:.1f}"
            for short, long in (
                ("audit_before", "audit_before_s"),
                ("audit_after", "audit_after_s"),
                ("end", "seconds_from_ctrl_c_to_the_end_of_up"),
            )
        }
        yield {
            **case,
            **times,
            "name": name,
            "what": case["what"].rstrip("."),
            "outcome": "succeeds" if case["succeeded"] else "fails",
            "reached": "missed" if case["succeeded"] or case["lost"] else "must",
            "p99_must": NONE if "p99_after_s" in seen else "≤ 2 ×",
            "p99_after_s": seen.get("p99_after_s"),
            "grown_mib": seen.get("database_growth_mib"),
        }


def _at_scale(cells: Sequence[Case]) -> Iterator[Case]:
    compared = [cell for cell in cells if cell["way"] != REBUILT_WHOLE]
    for (what, must, attack), (lines, is_large) in itertools.product(
        (("clean", "≥ .995", False), ("under a blind PGD of L∞ .03", "≥ .98", True)),
        (("64 to 96", False), ("240 to 1,080", True)),
    ):
        some = [c for c in compared if bool(c["attack"]) is attack and (int(c["height"]) >= LARGE) is is_large]
        chain, whole = (sum(float(cell[way]) * int(cell["frames"]) for cell in some) for way in ("chain", "whole"))
        least = min(some, key=lambda cell: float(cell["ratio"]))
        low, middle, high = (least[name] for name in ("ratio_low", "ratio", "ratio_high"))
        yield {
            "what": what, "lines": lines, "must": must, "ratio": chain / whole, "cells": len(some),
            "frames": sum(int(cell["frames"]) for cell in some),
            "least": middle, "low": low, "high": high,
        }  # fmt: skip


def _cost(document: Any) -> Iterator[Case]:
    cells = cells_of(document, "cameras")
    least, most = cells[0], cells[-1]
    yield {
        **most,
        "fewest": least["cameras"],
        "p99_s": most["latency_s"]["p99"],
        "cpu_ratio": total_cpu_ms(most) / total_cpu_ms(least),
        "server_bytes": camera_bytes(most, least, ON_THE_SERVER),
        "fleet_bytes": camera_bytes(most, least, ("fleet",)),
    }


PICTURES: Final = 100
"""Pictures of the paper's Table I."""


def _super_iot(store: Store) -> Iterator[Case]:
    judges, quality = super_iot_report.read_results(store), store.records("psnr", QualityRow)
    found = [*(judges[0].findings if judges else []), *quality_findings(quality)]
    return super_iot_tables.requirement_cells(found)


def _paper_mode(store: Store) -> Iterator[Case]:
    """Yield the paper's own method next to its Table I, at its two main ratios."""
    for row in _super_iot_rows(store, "paper", rounded=True):
        if row.r in (0.25, 0.5):
            yield _next_to_the_paper(row)


def _unrounded(store: Store) -> Iterator[Case]:
    """Yield the attacks as the paper has them, before rounding to 8 bits, next to the bare network under them."""
    for row in _super_iot_rows(store, "default", rounded=False):
        if row.r in (0.25, 0.5):
            yield {**_next_to_the_paper(row), "bare": row.undefended}


def _below_the_paper(store: Store) -> Iterator[Case]:
    """Yield the cells of the default below the paper's."""
    for row in _super_iot_rows(store, "default", rounded=True):
        case = _next_to_the_paper(row)
        if row.accuracy < case["published"]:
            ours = Interval(row.accuracy, row.ci_low, row.ci_high)
            theirs = wilson(round(PICTURES * case["published"]), PICTURES)
            differs = independent_difference(ours, theirs).high < 0
            yield {**case, "how": "below" if differs else "below, within the interval"}


def _super_iot_rows(store: Store, defence: str, *, rounded: bool) -> Iterator[Row]:
    for row in store.records("accuracy", Row):
        wanted = row.judge, row.scope, row.defence, row.rounded, row.targeted
        paper = row.attack not in ("clean", "deepfool")
        if wanted == ("cifar10", "sweep", defence, rounded, paper) and row.r in PAPER_RATIOS and row.attack in TABLE_1:
            yield row


def _next_to_the_paper(row: Row) -> dict[str, Any]:
    published = TABLE_1[row.attack][1 + PAPER_RATIOS.index(row.r or 0)]
    return {**asdict(row), "published": published}


def _foreign(document: Any) -> Iterator[Case]:
    yield from sorted(document["networks"], key=lambda case: -float(case["missed"]))


def _photographs(document: Any) -> Iterator[Case]:
    gain_db = document["psnr_db"] - document["biharmonic_psnr_db"]
    yield {"gain_db": gain_db, "time_ratio": document["seconds"] / document["biharmonic_seconds"]}


def _general(document: Any) -> Iterator[Case]:
    """Yield the accuracy of the general network behind each drop, under each profile."""
    shown = [row for row in document["rows"] if row["figure"] == "accuracy" and row["profile"] != "bare"]
    for profile in ("raw", "video"):
        mine = [row for row in shown if row["profile"] == profile]
        for row, must in zip(mine, ("≥ .98", "≥ .98", "≥ .96"), strict=True):
            yield {**row, "must": must}


def _codefend(store: Store) -> Iterator[Case]:
    return codefend_tables.finding_cells(codefend_report.read_findings(store))


def _patch_drill(document: Any) -> Iterator[Case]:
    runs = document["runs"]
    waits = [wait for run in runs for wait in run["seconds_to_alert"].values()]
    seen = [wait for wait in waits if wait is not None]
    yield {
        **document,
        "alerted": len(seen),
        "stickers": len(waits),
        "slowest_s": max(seen),
        "false_alerts": sum(sum(run["false_alerts"].values()) for run in runs),
        "lost": sum(run["audit"]["frames_lost"] for run in runs),
    }


def _scenes(rows: Sequence[Case]) -> Iterator[Case]:
    for row in sorted(rows, key=lambda row: "hardened" not in row["model"]):
        must, aim = ("≥ .95", "≥ .98") if "hardened" in row["model"] else (NONE, NONE)
        always = _interval(row["resubmitted"], row["frames"])
        yield {**row, **always, "network": _short(row["model"]), "must": must, "aim": aim}
    yield from _clean(rows, lambda model: "≥ .99" if "hardened" in model else NONE)


def _clean(rows: Sequence[Case], must: Callable[[str], str]) -> Iterator[Case]:
    """Yield the lowest accuracy of each network on scenes that are not attacked."""
    for model in sorted({row["model"] for row in rows}):
        shares = [float(row["clean"]) for row in rows if row["model"] == model]
        yield {"of": _short(model), "rows": len(shares), "lowest": min(shares), "clean_must": must(model)}


def _short(model_id: str) -> str:
    """Return the name and version of a network, with the first digits of its digest."""
    name, plus, digest = model_id.partition("+")
    return f"{name}{plus}{digest[:4]}"


def _interval(share: str, count: str) -> dict[str, float]:
    """Return the interval of 95 % of a share of `count` frames, as `low` and `high`."""
    found = wilson(round(float(share) * int(count)), int(count))
    return {"low": found.low, "high": found.high}


_WITHSTOOD: Final = {
    ("hard", 0.03): ("≥ .78", "≥ .90"), ("dim", 0.03): ("≥ .80", "≥ .90"), ("usual", 0.0627): ("≥ .78", "≥ .90"),
    ("usual", 0.03): ("≥ .98", "1"),
}  # fmt: skip
"""Bounds of the robust accuracy on scenes, by their kind and ε: must and aim."""


def _withstood(rows: Sequence[Case]) -> Iterator[Case]:
    for row in rows:
        must, aim = _WITHSTOOD.get((row["scenes"], float(row["eps"])), (NONE, NONE))
        worst = _interval(row["worst"], row["frames"])
        yield {**row, **worst, "network": _short(row["model"]), "must": must, "aim": aim}
    yield from _clean(rows, lambda _: "≥ .98")


def _alone(rows: Sequence[Case]) -> Iterator[Case]:
    """Yield single attacks. The bounds of the worst case hold for the strongest one only."""
    for row in rows:
        must, aim = NONE, NONE
        if row["attack"] == "auto-attack":
            must, aim = _WITHSTOOD.get((row["scenes"], float(row["eps"])), (NONE, NONE))
        attack = "AutoAttack" if row["attack"] == "auto-attack" else row["attack"].capitalize()
        bounds = _interval(row["right"], row["frames"])
        yield {**row, **bounds, "attack": attack, "network": _short(row["model"]), "must": must, "aim": aim}


def _hard_scenes(rows: Sequence[Case]) -> Iterator[Case]:
    right, frames = Counter[tuple[bool, int]](), Counter[tuple[bool, int]]()
    for row in rows:
        size = "hardened" in row["model"], int(row["height"])
        right[size] += int(row["right"])
        frames[size] += int(row["frames"])
    for lines in sorted({lines for hardened, lines in right if hardened}):
        if frames[False, lines] == frames[True, lines]:
            ratio = right[True, lines] / right[False, lines]
            yield {"lines": lines, "ratio": ratio, "frames": frames[True, lines]}


def _certified(store: Store) -> Iterator[Case]:
    """Yield each network on pictures and patches that have a bound for one of them."""
    bounded = {(pictures, height) for _, pictures, height in certified_labels.BOUNDS}
    for row in store.records("rows", CertifiedRow):
        if row.fill == "restorer" and (row.pictures, row.rows) in bounded:
            must, aim, clean_must, clean_aim = certified_labels.bounds(row)
            kind, _, size = row.pictures.partition("-")
            yield {
                **asdict(row),
                "shown": f"simulated scenes of {size.replace('x', '×')}" if size else kind.upper().replace("10", "-10"),
                "must": must, "aim": aim, "clean_must": clean_must, "clean_aim": clean_aim,
            }  # fmt: skip


def _live_attack(document: Any) -> Iterator[Case]:
    for case in document["figures"]:
        alerts = [case[name] for name in ("bare", "plain")]
        yield {
            **case,
            "slowest_s": max(each["slowest_alert_s"] for each in alerts),
            "alerted": sum(each["alerted"] for each in alerts),
            "cameras": sum(each["cameras"] for each in alerts),
            "lost": sum(case[name]["frames_lost"] for name in CONDITIONS),
        }


def _parity(rows: Sequence[Case]) -> Iterator[Case]:
    same = [row for row in rows if row["success_foolbox"] and row["attack"] not in ("rotation", "lbfgs")]
    yield {
        "same": len(same),
        "points": max(100 * (float(row["success_foolbox"]) - float(row["success"])) for row in same),
        "far": 100 * (max(float(row["l2"]) / float(row["l2_foolbox"]) for row in same) - 1),
        **{row["attack"]: row for row in rows},
    }


def _broken(rows: Sequence[Case]) -> Iterator[Case]:
    most = max(int(row["images"]) for row in rows)
    main = [row for row in rows if int(row["images"]) == most]
    yield {**max(main, key=lambda row: float(row["attacked"])), "broken": len(main)}


_UNLIKE: Final = {
    "mnist-cq2-attacked": " (a deeper network than the paper's, trained against attacks)",
    "mnist-cq2-attacked-residual": " (a residual network, trained against attacks)",
    "mnist-cq2-steep": " (a layer 20 × as steep as the paper's, whose gradient vanishes)",
}
_VANISHING: Final = "mnist-cq2-steep"
"""A network with a vanishing gradient: what it keeps under FGSM shows no defence."""
_QUSECNETS: Final = {
    "fgsm": ("FGSM .3, white-box", "≥ .975", "≥ .985"),
    "box": ("worst by PGD in the output box of the layer, within .3", "≥ .93", "≥ .96"),
    "worst": ("worst of all attacks within .3", NONE, NONE),
}


def _qusecnets(rows: Sequence[Case]) -> Iterator[Case]:
    """Each network on the whole test split if that was measured, else on the first pictures."""
    some = [row for row in rows if row["subject"].startswith("mnist-cq") and row["eps"] == "0.3"]
    some.sort(key=lambda row: int(row["n"]))
    largest = {(row["subject"], row["attack"].removesuffix(WHOLE_SUFFIX)): row for row in some}
    for subject, key in itertools.product(sorted({row["subject"] for row in some}), _QUSECNETS):
        row = largest.get((subject, key))
        if row is None:
            continue
        attack, must, aim = _QUSECNETS[key]
        if key == "fgsm" and subject == _VANISHING:
            must = aim = NONE
        unlike = _UNLIKE.get(subject, "")
        yield {**row, "attack": attack, "must": must, "aim": aim, "unlike": unlike}


CASES: Final[Mapping[str, Cases]] = {
    "hostile": _hostile, "attacks": _attacks, "at_scale": _at_scale, "cost": _cost, "super_iot": _super_iot,
    "photographs": _photographs, "codefend": _codefend, "patch_drill": _patch_drill,
    "scenes": _scenes, "hard_scenes": _hard_scenes, "withstood": _withstood, "alone": _alone,
    "live_attack": _live_attack, "certified": _certified,
    "parity": _parity, "broken": _broken, "qusecnets": _qusecnets, "judged": judged,
    "paper_mode": _paper_mode, "unrounded": _unrounded, "below_the_paper": _below_the_paper, "foreign": _foreign,
    "general": _general, "paired": paired, "strongest_of_the_same": strongest_of_the_same,
    "transferred": transferred, "shown_again": shown_again,
}  # fmt: skip
"""The functions by the name in the TOML files. Each takes its document as `figure.read` returns it."""
