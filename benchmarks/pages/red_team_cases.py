"""Cases of the figures of the red team and of the paired table. See `cases.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.pages.figure import NONE, RESULTS, Case, read
from lab.experiments.hardening.paired import unpacked
from lab.experiments.hardening.paired_report import PRIMARY, Against, made, share_of, strength, summaries
from lab.experiments.hardening.rows import PairedRow
from lab.red_team.convergence import STRONGER
from lab.red_team.plan import CLEAN
from lab.statistics import wilson

_BOUNDS: Final = {"8/255": ("≥ .33", "≥ .40"), "0.01": ("≥ .60", "≥ .66")}
"""The required and the hoped accuracy of the hardened network by the strength."""
_SETTINGS_OF_EOT_PGD: Final = ("eot-pgd", "strength", "steps", "start", "step-size", "eot")
"""Attacks, by the first part of their names, that are EOT-PGD with other numbers."""


def judged(documents: Sequence[Case]) -> Iterator[Case]:
    """Each run of `lab red-team` with its bounds.

    The bounds hold for the pictures that met the costly attacks. A run with the key known has few attacks: its figure
    is an upper bound of accuracy, and has no bounds.
    """
    for found in documents:
        reached = Counter(found["checklist"].values())
        met_all = found["worst_case_of_judged"]
        mixed = met_all is not None and met_all["images"] < found["images"]
        bound = strength(found["eps"])
        bounded = "hardened" in found["settings"]["bundle"] and found["settings"]["defence"] == "fleet"
        must, aim = _BOUNDS[bound] if bounded else (NONE, NONE)
        low, high = found["intervals"]["worst_case_accuracy"]
        failed = [point for point, status in found["checklist"].items() if status == "failed"]
        yield {
            **found,
            "images": found.get("worst_case_images", found["images"]),
            "network": found["settings"]["bundle"].partition("+")[0],
            "bound": bound,
            "must": must,
            "aim": aim,
            "all_must": NONE if mixed else must,
            "all_aim": NONE if mixed else aim,
            "low": low,
            "high": high,
            "passed": reached["passed"],
            "failed": reached["failed"],
            "points": f" (point {', point '.join(failed)})" if failed else "",
            "met": _met(list(found["per_attack"]), found["settings"]["submissions"], found["images"]),
            "left": reached["not run"],
            "whole": reached["not run"] == 0 or None,
            "judged": met_all,
            "mixed": mixed or None,
        }


def _met(attacks: Sequence[str], submissions: int, images: int) -> str:
    """Return the attacks of a run and its pictures in words. With one attack, the accuracy is no worst case."""
    alike = sum(name.partition("/")[0] in _SETTINGS_OF_EOT_PGD for name in attacks)
    what = f"worst case of {len(attacks)} attacks" if len(attacks) > 1 else "upper bound by one attack"
    what += f" ({alike} of them settings of EOT-PGD)" if alike > 1 else ""
    shown = "shown once" if submissions == 1 else f"each shown {submissions} times"
    return f"{what}, {shown}, first {images} pictures"


def paired(rows: Sequence[Case]) -> Iterator[Case]:
    """Each network bare and behind the drop, on the same pictures, without an attack and in the worst case."""
    for each in summaries([_record(row) for row in rows]):
        for line in (each.clean, each.worst):
            strongest, always = line.strongest("always"), line.left.always
            run = _standing(each.network, each.eps) if line is each.worst else None
            met = run[: len(always)] if run is not None and len(run) >= len(always) else None
            yield {
                "network": each.network.partition("+")[0],
                "bound": strength(each.eps),
                "attacks": line.attacks if line.attacks != "none" else "no attack",
                "n": line.left.count,
                "times": each.submissions,
                **{side: line.share(side)._asdict() for side in ("bare", "always")},
                "gain": line.gain("always")._asdict(),
                "run": None if met is None else _share(met),
                "with_run": None if met is None else _share(met & always),
                "primary": line.gain(PRIMARY)._asdict() if line is each.worst else None,
                "smallest_gain": 100 * each.smallest_gain if line is each.worst else None,
                "alone": None
                if strongest is None
                else {"attack": made(strongest), **Against("", (strongest,)).share("always")._asdict()},
            }


def transferred(rows: Sequence[Case]) -> Iterator[Case]:
    """Each attack that was made on the bare network, behind the drop, alone and with all attacks of the published run.

    The run is the one of the same network, bound and number of pictures.
    """
    for row in map(_record, rows):
        left, bound = unpacked(row.always, row.pictures), strength(row.eps)
        found: dict[str, object] = {
            "network": row.network.partition("+")[0], "bound": bound, "attack": made(row), "n": row.pictures,
            "times": row.submissions, "alone": _share(left),
        }  # fmt: skip
        run = _standing(row.network, row.eps)
        if run is not None and len(run) == len(left):
            found["together"] = _share(left & run)
            found["must"], found["aim"] = _BOUNDS[bound]
        yield found


def _standing(network: str, eps: float) -> NDArray[np.bool_] | None:
    """Return which pictures withstand the published run of a network at a bound; None without such a run."""
    for run in read(RESULTS, "red-team/run"):
        if (run["network"], strength(float(run["eps"]))) == (network, strength(eps)):
            return unpacked(run["standing"], int(run["images"]))
    return None


def _share(left: NDArray[np.bool_]) -> dict[str, float]:
    return wilson(int(left.sum()), len(left))._asdict()


def shown_again(rows: Sequence[Case]) -> Iterator[Case]:
    """Each network whose attacker had several candidates for a picture, with the shares that withstand showings."""
    for row in rows:
        pictures = int(row["pictures"])
        shares = {name: share_of(row[name], pictures) for name in ("once", "ten", "hundred", "each_once", "each_ten")}
        yield {
            **row,
            **{name: f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for name, each in shares.items()},
            "network": row["network"].partition("+")[0],
            "bound": strength(float(row["eps"])),
        }


def _record(row: Case) -> PairedRow:
    numbers = {name: int(row[name]) for name in ("pictures", "submissions")}
    return PairedRow(**{**row, **numbers, **{name: float(row[name]) for name in ("eps", "seconds")}})


def strongest_of_the_same(documents: Sequence[Case]) -> Iterator[Case]:
    """Yield the strongest attack on the same pictures, next to the longest run of the main attack on these."""
    for found in documents:
        rows = [row for row in found["attacks"] if row["counts"] and row["name"] != CLEAN]
        longest = max((row for row in rows if row["name"].startswith("steps/")), key=_steps, default=None)
        if longest is None:
            continue
        same = [row for row in rows if row["compared"] == longest["compared"]]
        strongest = min(same, key=lambda row: float(row["every_time"]))
        points = 100 * (longest["every_time"] - strongest["every_time"])
        yield {
            "folder": found["folder"], "network": found["settings"]["bundle"].partition("+")[0],
            "defence": found["settings"]["defence"], "bound": strength(found["eps"]),
            "n": longest["compared"], "of": len(same), "strongest": strongest, "longest": longest, "points": points,
            "reached": "missed" if points >= 100 * STRONGER - 1e-9 else "must",
        }  # fmt: skip


def _steps(row: Case) -> int:
    return int(row["steps"])
