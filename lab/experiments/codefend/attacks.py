"""The catalogue of ten attacks at a glance: what each statistic detects, what each repair leaves, and the worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.findings import PURE, Finding
from lab.experiments.codefend.plan import BLENDED, CATALOGUE, FLAGGED, MAIN, OWN_MODE, SOURCE, WITHOUT_TRIGGER
from lab.experiments.codefend.rows import CameraRow, DetectorRow, RepairRow
from lab.experiments.codefend.scores import BEATRIX, OWN, SCALED, TOGETHER
from lab.experiments.codefend.tables import percent
from lab.results.markdown import markdown

ATTACKS: Final[Mapping[str, str]] = {
    MAIN: "patch (BadNets)", BLENDED: "blended", SOURCE: "patch, source-specific", **CATALOGUE,
}  # fmt: skip
"""The model and the name of each attack."""
STATISTICS: Final = (*OWN.values(), TOGETHER, SCALED, BEATRIX)
OURS: Final = "ours"
REPAIRS: Final = (OURS, FINE_TUNING, *WITHOUT_TRIGGER)
THRESHOLDS: Final = ("usual", "chosen")
"""The threshold of the recorder's settings, and the one that clean pictures choose."""
_DETECTED: Final = {"resnet20-wanet": (0.8, 0.95), SOURCE: (0.5, 0.95), "resnet20-strip-aware": (0.6, 0.95)}
"""Least share of detected frames and the aim, for the attacks that have their own requirement."""


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
    detectors: Sequence[DetectorRow], cameras: Sequence[CameraRow], repairs: Sequence[RepairRow]
) -> Iterator[Finding]:
    """Yield the requirements on the whole catalogue; the worst of the attacks that were measured, with their number."""
    together = {row.model: row for row in detectors if row.statistic == TOGETHER and row.model in ATTACKS}
    for model, (must, aim) in _DETECTED.items():
        row = together.get(model)
        yield Finding(
            f"detected frames at 1 % false alarms, {ATTACKS[model]}", "–", must, aim,
            None if row is None else row.detected, larger=True,
        )  # fmt: skip
    yield _worst(
        "detected frames at 1 % false alarms", {model: row.detected for model, row in together.items()}, 0.5, 0.95, True
    )
    yield _outside(
        "detected frames at 1 % false alarms",
        {row.model: row.detected for row in detectors if row.statistic == TOGETHER and row.model not in ATTACKS},
        larger=True,
    )
    yield _worst("false alarms of all statistics", {model: row.frr for model, row in together.items()}, 0.01, None)
    yield _outside(
        "false alarms of all statistics",
        {row.model: row.frr for row in detectors if row.statistic == TOGETHER and row.model not in ATTACKS},
    )
    for choice in THRESHOLDS:
        rows = {row.model: row for row in cameras if row.thresholds == choice and row.model in ATTACKS}
        alarmed = {model: row.alarmed for model, row in rows.items()}
        yield _worst(f"cameras with an alarm in 40 probes, {choice} threshold", alarmed, 0.95, 1.0, True)
        false = {model: row.false_alarms for model, row in rows.items()}
        what = f"false alarms of a camera in a year, if each probe is a picture of its own, {choice} threshold"
        yield _worst(what, false, 1, 0.1, plain=True)
    cured = {row.model: row for row in reversed(repairs) if _is_ours(row) and row.model in ATTACKS}
    # A rejected network is not published, and the attack stays.
    refused = sum(not row.published for row in cured.values())
    success = {model: row.success_after for model, row in cured.items()}
    spoiled = f"{refused} refused by the guard" if refused else ""
    yield _worst("repair: ASR after", success, 0.05, 0.02, spoiled=spoiled)
    others = {
        f"{row.model}, quarantine {row.quarantine}": row.success_after
        for row in repairs
        if row.method == "default" and row is not cured.get(row.model)
    }
    yield _outside("repair: ASR after", others)
    own_class = {model: row.recovered_after for model, row in cured.items()}
    yield _worst("repair: frames with the trigger that get their own class", own_class, None, None, True)
    lost = {model: row.clean_before - row.clean_after for model, row in cured.items()}
    yield _worst("repair: clean accuracy lost", lost, 0.015, 0.01)


def _outside(what: str, values: Mapping[str, float], *, larger: bool = False) -> Finding:
    """Return the worst figure that was measured beyond the ten attacks, which has no requirement."""
    if not values:
        return Finding(f"{what}, outside the ten attacks", "–", None, None, None, larger)
    model = (min if larger else max)(values, key=lambda name: values[name])
    return Finding(
        f"{what}, outside the ten attacks, worst of {len(values)}: {model}", "–", None, None, values[model], larger
    )


def _worst(
    what: str,
    values: Mapping[str, float],
    must: float | None,
    aim: float | None,
    larger: bool = False,
    plain: bool = False,
    spoiled: str = "",
) -> Finding:
    """Return the finding on the worst of `values` by model. It is missed if a model is missing or with `spoiled`."""
    if not values:
        return Finding(f"{what}, worst attack", "–", must, aim, None, larger, plain)
    model = (min if larger else max)(values, key=lambda name: values[name])
    missing = "" if len(values) == len(ATTACKS) else f"{len(values)} of {len(ATTACKS)} attacks measured"
    return Finding(
        f"{what}, worst of {len(values)} attacks: {ATTACKS[model]}",
        "–",
        must,
        aim,
        values[model],
        larger,
        plain,
        missing or spoiled,
    )
