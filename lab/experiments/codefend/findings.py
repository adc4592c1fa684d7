"""The project's own requirements, with the measured figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.published import TABLE_3, TABLE_4, PublishedDetection, PublishedRepair
from lab.experiments.codefend.rows import DetectionRow, ModelRow, RepairRow

LARGEST_FRR = 0.018
"""Largest realised rate, for a requested 1 %."""
PURE = "pure"

_MOST_POISON = 0.01
"""The largest share of poisoned pictures in the paper."""

P = TypeVar("P", PublishedDetection, PublishedRepair)
R = TypeVar("R", DetectionRow, RepairRow)


@dataclass(frozen=True)
class Finding:
    """One requirement, or a figure without one (`must` is None). Figures are shares from 0 to 1 unless `plain`; smaller
    is better unless `larger`."""

    what: str
    paper: str
    must: float | None
    aim: float | None
    measured: float | None
    larger: bool = False
    plain: bool = False
    """True for a number that is not a share."""
    spoiled: str = ""
    """The reason why the requirement counts as missed despite its value."""
    interval: tuple[float, float] | None = None
    """Its interval of 95 %, where the figure is a sample's."""
    count: int | None = None
    """The number of pictures or episodes."""

    @property
    def verdict(self) -> str:
        """`aim`, `must`, `missed` or `not measured`; empty without a requirement."""
        if self.measured is None:
            return "not measured"
        if self.must is None:
            return ""
        sign = -1 if self.larger else 1
        if self.spoiled or sign * self.measured > sign * self.must + 1e-12:
            return "missed"
        return "aim" if self.aim is not None and sign * self.measured <= sign * self.aim + 1e-12 else "must"


def findings(
    models: Sequence[ModelRow], detections: Sequence[DetectionRow], repairs: Sequence[RepairRow]
) -> list[Finding]:
    """Return all findings, in the order of the README."""
    return [*_detection(models, detections), *_repair(models, repairs), *_special(models, repairs)]


def _detection(models: Sequence[ModelRow], rows: Sequence[DetectionRow]) -> Iterable[Finding]:
    for model in models:
        if model.trigger != "patch" or model.rate != 0.01:
            continue
        row = _one(rows, model=model.model, frames="whole", sequential=False)
        wrong = row is not None and row.frr > LARGEST_FRR
        yield Finding(
            f"STRIP, whole frames, {model.model}: FAR at FRR set to 1 %",
            _of_paper(TABLE_3, model, lambda each: f"{each.far:g} % at FRR {each.frr:g} %"),
            0.006, 0.001, None if row is None else row.far,
            spoiled=f"realised FRR {row.frr:.3f}" if row is not None and wrong else "",
        )  # fmt: skip
    for model in models:
        row = _one(rows, model=model.model, frames="r = 0.25", sequential=False)
        if row is not None:
            yield Finding(
                f"STRIP, r = .25 rebuilt, {model.model}: missed of those that reach the target",
                "–", 0.4, 0.1, row.far_effective,
                spoiled=f"realised FRR {row.frr:.3f}" if row.frr > LARGEST_FRR else "",
            )  # fmt: skip
    for row in rows:
        if row.sequential and row.frames == "whole":
            every = _one(rows, model=row.model, frames="whole", sequential=False)
            worse = every is not None and (row.frr > every.frr or row.far > every.far)
            yield Finding(
                f"STRIP, sequential, {row.model}: mean passes of a clean frame",
                "100", 12, 8, row.mean_passes, plain=True,
                spoiled=f"FRR {row.frr:.4f}, FAR {row.far:.4f} compared with {every.frr:.4f}, {every.far:.4f}"
                if every is not None and worse else "",
            )  # fmt: skip


def _repair(models: Sequence[ModelRow], rows: Sequence[RepairRow]) -> Iterable[Finding]:
    for model in models:
        row = _one(rows, model=model.model, method="default", quarantine=PURE)
        if row is None or model.trigger != "patch":
            continue
        tuned = _one(rows, model=model.model, method=FINE_TUNING, quarantine=PURE)
        beaten = tuned is not None and row.success_after >= tuned.success_after
        yield Finding(
            f"repair, {model.model}: ASR after (floor {100 * model.floor:.2f} %)",
            _of_paper(TABLE_4, model, lambda each: f"{each.success_after:.2f} %"),
            model.floor + 0.007, model.floor + 0.003, row.success_after,
            spoiled=f"the best fine-tuning has {tuned.success_after:.4f}" if tuned is not None and beaten else "",
        )  # fmt: skip
        yield Finding(
            f"repair, {model.model}: clean accuracy lost",
            _of_paper(TABLE_4, model, lambda each: f"{each.accuracy_before - each.accuracy_after:.2f} points"),
            0.01, 0.003, row.clean_before - row.clean_after,
        )  # fmt: skip
        if model.network == "resnet20":
            yield Finding(
                f"repair, {model.model}: recovered accuracy", "–", 0.875, 0.9, row.recovered_after, larger=True
            )


def _special(models: Sequence[ModelRow], rows: Sequence[RepairRow]) -> Iterable[Finding]:
    for row in rows:
        if row.method == "default" and row.quarantine == "30 % impure":
            yield Finding(
                f"repair, {row.model}, 30 % impure: recovered accuracy",
                "–",
                0.86,
                None,
                row.recovered_after,
                larger=True,
            )
    kinds = {model.model: model.trigger for model in models}
    for row in rows:
        if row.method != "default" or row.quarantine != PURE:
            continue
        lost = row.clean_before - row.clean_after
        if kinds.get(row.model) == "blended":
            yield Finding(
                f"repair, {row.model}: ASR after, at ≤ 2 points (aim: 1)", "–", 0.05, 0.01, row.success_after,
                spoiled=f"{100 * lost:.1f} points lost" if lost > 0.02 else "",
            )  # fmt: skip
        if kinds.get(row.model) == "two":
            yield Finding(f"repair, {row.model}: ASR after", "< 5 %", 0.03, 0.01, row.success_after)


def _of_paper(of: Sequence[P], model: ModelRow, shown: Callable[[P], str]) -> str:
    """Return the paper's figure for the model's data set and trigger, of the paper's own network.

    A dash for other networks than the paper's kind, and for poison rates that it does not name.
    """
    trigger = model.model.split("-")[1].upper()
    found = [each for each in of if each.data.replace("-", "").lower() == model.data and each.trigger == trigger]
    return shown(found[0]) if found and model.network != "resnet20" and model.rate <= _MOST_POISON else "–"


def _one(rows: Sequence[R], **wanted: object) -> R | None:
    return next((row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())), None)
