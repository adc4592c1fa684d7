"""Cameras that show pictures of the backdoored models: probes until the alarm, and false alarms in a year."""

from __future__ import annotations

from typing import NamedTuple

from lab.cache import Cache
from lab.evidence.measure import Choice, Found, Stream, chosen_rule, figures_of
from lab.evidence.scores import Limits
from lab.experiments.codefend.rows import CameraRow, SplittingRow
from lab.experiments.codefend.scores import Numbers, scores
from lab.experiments.codefend.subjects import Subject
from schemas.evidence.rule import EvidenceRule


class Cameras(NamedTuple):
    """The row of the usual rule, that of the rule whose threshold the defender's pictures choose, and their estimates
    of false alarms."""

    cameras: list[CameraRow]
    splitting: list[SplittingRow]


def cameras(subject: Subject, numbers: Numbers, cache: Cache) -> Cameras:
    """Return the rows of a model."""
    found, stream, usual = scores(subject, numbers, cache), Stream(), EvidenceRule()
    strip = subject.bundle.settings.strip
    assert strip is not None
    limits = Limits(strip.threshold_bits, found.combined.threshold)
    rows = Cameras([], [])
    for name, choice in (("usual", Choice(usual)), ("chosen", chosen_rule(found.known.scores, limits, usual, stream))):
        each = figures_of(found.clean.scores, found.stamped.scores, limits, choice, stream)
        rows.cameras.append(_row(subject.name, name, each, len(found.clean.verdict)))
        for which, estimate in (("measured", each.false_alarms.measured), ("deeper", each.false_alarms.deeper)):
            rows.splitting.append(
                SplittingRow(subject.name, name, which, *estimate.rate, list(estimate.passages), estimate.rests_on_few)
            )
    return rows


def _row(model: str, name: str, found: Found, clean: int) -> CameraRow:
    after, rate = found.after_baseline, found.false_alarms.measured.rate
    return CameraRow(
        model=model,
        thresholds=name,
        octaves=found.octaves,
        clean=clean,
        episodes=len(after.probes),
        median_probes=after.quantile(0.5),
        p95_probes=after.quantile(0.95),
        alarmed=found.alarmed.value, alarmed_low=found.alarmed.low, alarmed_high=found.alarmed.high,
        from_start=found.alarmed_from_start.value,
        clean_starts=found.clean_starts.value,
        false_alarms=rate.value, false_alarms_low=rate.low, false_alarms_high=rate.high,
        false_alarms_bound=found.false_alarms.bound,
        allowed=found.allowed,
        exceeds=found.exceeds,
        few_passages=found.false_alarms.rests_on_few,
    )  # fmt: skip
