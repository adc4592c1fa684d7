"""The catalogue of ten attacks at a glance: what each statistic detects, what each repair leaves, and the worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lab.backdoor.catalogue import MODELS
from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.findings import PURE, Finding
from lab.experiments.codefend.plan import ATTACKS, FLAGGED, OWN_MODE, SOURCE, WITHOUT_TRIGGER
from lab.experiments.codefend.rows import CameraRow, DetectorRow, RepairRow, StillRow
from lab.experiments.codefend.scores import BEATRIX, OWN, SCALED, TOGETHER
from lab.experiments.codefend.still import A_MINUTE, FOUR_VIEWS, TEN_MINUTES
from lab.experiments.codefend.still_scores import SCENES
from lab.experiments.codefend.tables import percent
from lab.results.markdown import markdown
from lab.statistics import wilson

STATISTICS: Final = (*OWN.values(), TOGETHER, SCALED, BEATRIX)
OURS: Final = "ours"
REPAIRS: Final = (OURS, FINE_TUNING, *WITHOUT_TRIGGER)
THRESHOLDS: Final = ("usual", "chosen")
"""The threshold of the recorder's settings, and the one that clean pictures choose."""
_DETECTED: Final = {"resnet20-wanet": (0.8, 0.95), SOURCE: (0.5, 0.95), "resnet20-strip-aware": (0.6, 0.95)}
"""Least share of detected frames and the aim, for the attacks that have their own requirement."""
_CIFAR10_LABELS: Final = np.repeat(np.arange(10), 1000)
"""The labels of CIFAR-10's test split, in another order."""


def detection_matrix(rows: Sequence[DetectorRow]) -> str:
    """Return the share of frames that each statistic detects, in per cent, attack by attack; empty without rows."""
    found = {(row.model, row.statistic): row for row in rows}
    lines = [
        [name, *(percent(found[model, each].detected, 1) if (model, each) in found else "–" for each in STATISTICS)]
        for model, name in ATTACKS.items()
        if any((model, each) in found for each in STATISTICS)
    ]
    return markdown(["attack", *STATISTICS], lines)


def repair_matrix(rows: Sequence[RepairRow]) -> str:
    """Return the success that each repair leaves, and the accuracy that it loses; empty without rows.

    A model has rows of one quarantine for each method; the first counts. Ours are of the quarantine without other
    frames.
    """
    found: dict[tuple[str, str], RepairRow] = {}
    for row in rows:
        found.setdefault((row.model, OURS if _is_ours(row) else row.method), row)

    def shown(row: RepairRow) -> str:
        text = f"{percent(row.success_after, 1)} ({100 * (row.clean_before - row.clean_after):.1f})"
        return text if row.published else f"{text}, refused"

    lines = [
        [name, percent(found[model, OURS].success_before, 1)]
        + [shown(found[model, each]) if (model, each) in found else "–" for each in REPAIRS]
        for model, name in ATTACKS.items()
        if (model, OURS) in found
    ]
    return markdown(["attack", "before", *REPAIRS], lines)


def _is_ours(row: RepairRow) -> bool:
    return row.method == OWN_MODE.get(row.model, "default") and row.quarantine in (PURE, FLAGGED)


def findings_of_attacks(
    detectors: Sequence[DetectorRow],
    cameras: Sequence[CameraRow],
    still: Sequence[StillRow],
    repairs: Sequence[RepairRow],
) -> Iterator[Finding]:
    """Yield the requirements on the whole catalogue; the worst of the attacks that were measured, with their number."""
    every = {row.model: row for row in detectors if row.statistic == TOGETHER}
    detected = {
        model: Share(row.detected, row.detected_low, row.detected_high, row.poisoned) for model, row in every.items()
    }
    false = {model: Share(row.frr, row.frr_low, row.frr_high, row.clean) for model, row in every.items()}
    what = "detected frames at 1 % false alarms"
    for model, (must, aim) in _DETECTED.items():
        yield _finding(f"{what}, {ATTACKS[model]}", detected.get(model), must, aim, larger=True)
    yield _worst(what, _inside(detected), 0.5, 0.95, larger=True)
    yield _outside(what, _beyond(detected), larger=True)
    yield _worst("false alarms of all statistics", _inside(false), 0.01, None)
    yield _outside("false alarms of all statistics", _beyond(false))
    for choice in THRESHOLDS:
        rows = {row.model: row for row in cameras if row.thresholds == choice and row.model in ATTACKS}
        alarmed = {
            model: Share(row.alarmed, row.alarmed_low, row.alarmed_high, row.episodes) for model, row in rows.items()
        }
        yield _worst(f"cameras with an alarm in 40 probes, {choice} threshold", alarmed, 0.95, 1.0, larger=True)
        a_year = {model: Share(row.false_alarms) for model, row in rows.items()}
        what = f"false alarms of a camera in a year, if each probe is a picture of its own, {choice} threshold"
        yield _worst(what, a_year, 1, 0.1, plain=True)
    yield from _of_still_cameras(still)
    yield from _cures(repairs)


def _of_still_cameras(rows: Sequence[StillRow]) -> Iterator[Finding]:
    """Yield the requirements on cameras that look at each scene for long."""
    scenes = {
        "a scene a minute": A_MINUTE, "a scene in ten minutes": TEN_MINUTES, "four views, a minute each": FOUR_VIEWS,
    }  # fmt: skip
    for scene, watch in scenes.items():
        chosen = {row.model: row for row in rows if (row.limited, row.stay, row.views) == (True, *watch)}
        alarmed = {
            model: Share(row.alarmed, row.alarmed_low, row.alarmed_high, row.episodes) for model, row in chosen.items()
        }
        yield _worst(
            f"cameras with an alarm in 40 probes after an effective trigger, {scene}", alarmed, 0.95, 1.0, larger=True
        )
        a_year = {model: Share(row.a_year, row.a_year_low, row.a_year_high) for model, row in chosen.items()}
        few = all(row.a_year <= 1 for row in chosen.values()) and any(row.a_year_high > 1 for row in chosen.values())
        spoiled = f"{SCENES.clean:,} scenes cannot show so few" if few else ""
        yield _worst(f"false alarms of a camera in a year, {scene}", a_year, 1, 0.1, plain=True, spoiled=spoiled)


def _cures(repairs: Sequence[RepairRow]) -> Iterator[Finding]:
    cured = {row.model: row for row in reversed(repairs) if _is_ours(row) and row.model in ATTACKS}
    # A rejected network is not published, and the attack stays.
    refused = sum(not row.published for row in cured.values())
    success = {model: _share_of_stamped(model, row.success_after) for model, row in cured.items()}
    spoiled = f"{refused} refused by the guard" if refused else ""
    yield _worst("repair: ASR after", success, 0.05, 0.02, spoiled=spoiled)
    others = {
        f"{row.model}, quarantine {row.quarantine}": _share_of_stamped(row.model, row.success_after)
        for row in repairs
        if row.method == "default" and row is not cured.get(row.model)
    }
    yield _outside("repair: ASR after", others)
    own_class = {model: _share_of_stamped(model, row.recovered_after) for model, row in cured.items()}
    yield _worst("repair: frames with the trigger that get their own class", own_class, None, None, larger=True)
    lost = {model: Share(row.clean_before - row.clean_after) for model, row in cured.items()}
    yield _worst("repair: clean accuracy lost", lost, 0.015, 0.01)


@dataclass(frozen=True)
class Share:
    """A figure of one attack, with its interval of 95 % and its count where they are known."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


def _share_of_stamped(model: str, share: float) -> Share:
    """Return a share of the stamped test pictures. For CIFAR-10, whose classes have equally many, with its interval."""
    sick = MODELS.get(model)
    if sick is None or sick.data != "cifar10" or sick.poisoning is None:
        return Share(share)
    count = int(sick.poisoning.attacks(_CIFAR10_LABELS).sum())
    return Share(*wilson(round(share * count), count), count)


def _inside(shares: Mapping[str, Share]) -> dict[str, Share]:
    return {model: share for model, share in shares.items() if model in ATTACKS}


def _beyond(shares: Mapping[str, Share]) -> dict[str, Share]:
    return {model: share for model, share in shares.items() if model not in ATTACKS}


def _outside(what: str, shares: Mapping[str, Share], *, larger: bool = False) -> Finding:
    """Return the worst figure that was measured beyond the ten attacks, which has no requirement."""
    where = f"{what}, outside the ten attacks"
    if not shares:
        return _finding(where, None, None, None, larger=larger)
    model = _worst_of(shares, larger)
    return _finding(f"{where}, worst of {len(shares)}: {model}", shares[model], None, None, larger=larger)


def _worst(
    what: str,
    shares: Mapping[str, Share],
    must: float | None,
    aim: float | None,
    *,
    larger: bool = False,
    plain: bool = False,
    spoiled: str = "",
) -> Finding:
    """Return the finding on the worst of `shares` by model. It is missed if a model is missing or with `spoiled`."""
    if not shares:
        return _finding(f"{what}, worst attack", None, must, aim, larger=larger, plain=plain)
    model = _worst_of(shares, larger)
    missing = "" if len(shares) == len(ATTACKS) else f"{len(shares)} of {len(ATTACKS)} attacks measured"
    what = f"{what}, worst of {len(shares)} attacks: {ATTACKS[model]}"
    return _finding(what, shares[model], must, aim, larger=larger, plain=plain, spoiled=missing or spoiled)


def _worst_of(shares: Mapping[str, Share], larger: bool) -> str:
    return (min if larger else max)(shares, key=lambda name: shares[name].value)


def _finding(
    what: str,
    share: Share | None,
    must: float | None,
    aim: float | None,
    *,
    larger: bool = False,
    plain: bool = False,
    spoiled: str = "",
) -> Finding:
    if share is None:
        return Finding(what, "–", must, aim, None, larger, plain, spoiled)
    interval = None if share.low is None or share.high is None else (share.low, share.high)
    return Finding(what, "–", must, aim, share.value, larger, plain, spoiled, interval, share.count)
