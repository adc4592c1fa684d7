"""Cameras that show pictures of the backdoored models: probes until the alarm, and false alarms in a year."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lab.cache import Cache
from lab.evidence.measure import Choice, Found, Stream, chosen_rule, figures_of
from lab.experiments.codefend.rows import CameraRow, SplittingRow
from lab.experiments.codefend.scores import DROP, STRIP, Numbers, scores
from lab.experiments.codefend.subjects import Subject
from lab.statistics import wilson
from lab.strip.fused import fused
from schemas.evidence.alarms import DISAGREEMENT, TYPICALITY
from schemas.evidence.alarms import STRIP as BY_STRIP
from schemas.evidence.rule import EvidenceRule

FRR = 0.01


class Cameras(NamedTuple):
    """The row of the usual rule, that of the rule whose thresholds the defender's pictures choose, and their estimates
    of false alarms."""

    cameras: list[CameraRow]
    splitting: list[SplittingRow]


def cameras(subject: Subject, numbers: Numbers, cache: Cache) -> Cameras:
    """Return the rows of a model."""
    found, stream, usual = scores(subject, numbers, cache), Stream(), EvidenceRule()
    known = found.known
    limits = fused(known.values[STRIP], known.values[DROP], known.values[TYPICALITY], FRR)
    rows = Cameras([], [])
    for name, choice in (("usual", Choice(usual)), ("chosen", chosen_rule(known.scores, limits, usual, stream))):
        each = figures_of(found.clean.scores, found.stamped.scores, limits, choice, stream)
        rows.cameras.append(_row(subject.name, name, each, len(found.clean.verdict)))
        rows.splitting.extend(_splitting(subject.name, name, each))
    return rows


def _splitting(model: str, name: str, found: Found) -> Iterator[SplittingRow]:
    for kind, each in found.rates.items():
        statistic = {BY_STRIP: STRIP, DISAGREEMENT: DROP, TYPICALITY: TYPICALITY}[kind]
        for which, estimate in (("measured", each.measured), ("deeper", each.deeper)):
            yield SplittingRow(
                model, name, statistic, which, *estimate.rate, list(estimate.passages), estimate.rests_on_few
            )


def _row(model: str, name: str, found: Found, clean: int) -> CameraRow:
    after, start, share, rate = found.after_baseline, found.from_start, found.alarmed(), found.rate
    rule = found.choice.rule
    return CameraRow(
        model=model,
        thresholds=name,
        strip_octaves=rule.entropy_octaves,
        drop_octaves=rule.disagreement_octaves,
        typicality_octaves=rule.typicality_octaves,
        clean=clean,
        episodes=len(after.either),
        median_probes=after.quantile(0.5),
        p95_probes=after.quantile(0.95),
        alarmed=share.value, alarmed_low=share.low, alarmed_high=share.high,
        alarmed_strip=found.alarmed(BY_STRIP).value,
        alarmed_drop=found.alarmed(DISAGREEMENT).value,
        alarmed_typicality=found.alarmed(TYPICALITY).value,
        from_start=wilson(start.in_time(), len(start.either)).value,
        clean_starts=found.clean_starts.value,
        false_alarms=rate.value, false_alarms_low=rate.low, false_alarms_high=rate.high,
        false_alarms_bound=found.bound,
        allowed=found.allowed,
        exceeds=found.exceeds,
        few_passages=found.rests_on_few,
    )  # fmt: skip
