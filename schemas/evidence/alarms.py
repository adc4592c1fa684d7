"""The alarms of one boot of a camera: a track for each statistic of its probes, and the alarm of either."""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, Classes, Probe, Track, advance

STRIP: Final = "strip"
DISAGREEMENT: Final = "disagreement"
KINDS: Final = (STRIP, DISAGREEMENT)
"""The kinds of alerts that this evidence raises, by the statistic."""


class Found(NamedTuple):
    """An alarm, and the kind of its alert."""

    kind: str
    alarm: Alarm


class Judged(NamedTuple):
    """A probe as one statistic judges it, and the rule of that statistic's track."""

    probe: Probe
    rule: EvidenceRule


def judged_by(kind: str, probe: Probe, rule: EvidenceRule) -> Judged:
    """Return the probe as the statistic of `kind` judges it, with that statistic's rule."""
    if kind == STRIP:
        return Judged(probe.of_entropy(rule.entropy_octaves), rule)
    return Judged(probe.of_agreement(rule.disagreement_octaves), rule.of_agreement)


def advance_both(
    entropies: Track, agreements: Track, probe: Probe, rule: EvidenceRule, classes: Classes
) -> tuple[Track, Track, list[Found]]:
    """Apply `advance` to the tracks of both statistics; return them and the alarms.

    Flips of the verdicts do not confirm an alarm of the agreements: a clean scene between two classes flips too.
    """
    found = list[Found]()
    entropies, alarm = advance(entropies, *judged_by(STRIP, probe, rule), classes)
    if alarm is not None:
        found.append(Found(STRIP, alarm))
    if not probe.agreement_threshold > 0:
        # A bundle without the statistic can neither go on with an episode nor end it.
        return entropies, Track(), found
    agreements, alarm = advance(agreements, *judged_by(DISAGREEMENT, probe, rule), no_classes)
    if alarm is not None:
        found.append(Found(DISAGREEMENT, alarm))
    return entropies, agreements, found


def no_classes(first: int, last: int) -> tuple[int, ...]:
    """Return no verdicts."""
    return ()
