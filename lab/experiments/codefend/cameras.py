"""Cameras that show pictures of the backdoored models: probes until the alarm, and false alarms in a year."""

from __future__ import annotations

from lab.cache import Cache
from lab.evidence.measure import Found, Stream, chosen_rule, figures_of
from lab.experiments.codefend.rows import CameraRow
from lab.experiments.codefend.scores import DROP, STRIP, Numbers, scores
from lab.experiments.codefend.subjects import Subject
from lab.statistics import wilson
from lab.strip.disagreement import fused
from schemas.evidence.alarms import DISAGREEMENT
from schemas.evidence.alarms import STRIP as BY_STRIP
from schemas.evidence.rule import EvidenceRule

FRR = 0.01


def cameras(subject: Subject, numbers: Numbers, cache: Cache) -> list[CameraRow]:
    """Return the row of the usual rule, and that of the rule whose thresholds the defender's pictures choose."""
    found, stream, usual = scores(subject, numbers, cache), Stream(), EvidenceRule()
    known = found.known
    limits = fused(known.values[STRIP], known.values[DROP], FRR)
    chosen = chosen_rule(known.scores, limits, usual, stream)
    rows = []
    for name, rule in (("usual", usual), ("chosen", chosen)):
        each = figures_of(found.clean.scores, found.stamped.scores, limits, rule, stream)
        rows.append(_row(subject.name, name, each, len(found.clean.verdict)))
    return rows


def _row(model: str, name: str, found: Found, clean: int) -> CameraRow:
    after, start, share, rate = found.after_baseline, found.from_start, found.alarmed(), found.rate
    return CameraRow(
        model=model,
        thresholds=name,
        strip_octaves=found.rule.entropy_octaves,
        drop_octaves=found.rule.disagreement_octaves,
        clean=clean,
        episodes=len(after.either),
        median_probes=after.quantile(0.5),
        p95_probes=after.quantile(0.95),
        alarmed=share.value, alarmed_low=share.low, alarmed_high=share.high,
        alarmed_strip=found.alarmed(BY_STRIP).value,
        alarmed_drop=found.alarmed(DISAGREEMENT).value,
        from_start=wilson(start.in_time(), len(start.either)).value,
        clean_starts=found.clean_starts.value,
        false_alarms=rate.value,
        false_alarms_bound=rate.bound,
    )  # fmt: skip
