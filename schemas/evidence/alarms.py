"""The alarms of one boot of a camera: a track for each statistic of its probes, and the alarm of any."""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, Classes, Probe, Track, advance

STRIP: Final = "strip"
DISAGREEMENT: Final = "disagreement"
TYPICALITY: Final = "typicality"
KINDS: Final = (STRIP, DISAGREEMENT, TYPICALITY)
"""The kinds of alerts that this evidence raises, by the statistic."""


class Tracks(NamedTuple):
    """The track of each statistic, in the order of `KINDS`. Those that the bundle lacks are empty."""

    strip: Track = Track()
    disagreement: Track = Track()
    typicality: Track = Track()

    def level(self, rule: EvidenceRule) -> float:
        """Return the evidence level of the camera: 0 without evidence, 1 at an alarm."""
        return max(track.level(rule_of(kind, rule)) for kind, track in zip(KINDS, self, strict=True))


class Found(NamedTuple):
    """An alarm, and the kind of its alert."""

    kind: str
    alarm: Alarm


class Judged(NamedTuple):
    """A probe as one statistic judges it, and the rule of that statistic's track."""

    probe: Probe
    rule: EvidenceRule


def rule_of(kind: str, rule: EvidenceRule) -> EvidenceRule:
    """Return the rule of the track of `kind`."""
    return {STRIP: rule, DISAGREEMENT: rule.of_agreement, TYPICALITY: rule.of_typicality}[kind]


def judged_by(kind: str, probe: Probe, rule: EvidenceRule) -> Judged:
    """Return the probe as the statistic of `kind` judges it, with that statistic's rule."""
    if kind == STRIP:
        seen = probe.of_entropy(rule.entropy_octaves)
    elif kind == DISAGREEMENT:
        seen = probe.of_agreement(rule.disagreement_octaves)
    else:
        seen = probe.of_typicality(rule.typicality_octaves)
    return Judged(seen, rule_of(kind, rule))


def measures(kind: str, probe: Probe) -> bool:
    """Return whether the probe has the statistic of `kind`."""
    return {
        STRIP: True, DISAGREEMENT: probe.agreement_threshold > 0, TYPICALITY: probe.typicality_threshold > 0,
    }[kind]  # fmt: skip


def advance_all(tracks: Tracks, probe: Probe, rule: EvidenceRule, classes: Classes) -> tuple[Tracks, list[Found]]:
    """Apply `advance` to the tracks of all statistics; return them and the alarms.

    Flips of the verdicts confirm alarms of STRIP alone: a clean scene between two classes flips too.
    """
    found, after = list[Found](), list[Track]()
    for kind, track in zip(KINDS, tracks, strict=True):
        if not measures(kind, probe):
            # A bundle without the statistic can neither go on with an episode nor end it.
            after.append(Track())
            continue
        following, alarm = advance(track, *judged_by(kind, probe, rule), classes if kind == STRIP else no_classes)
        after.append(following)
        if alarm is not None:
            found.append(Found(kind, alarm))
    return Tracks(*after), found


def no_classes(first: int, last: int) -> tuple[int, ...]:
    """Return no verdicts."""
    return ()
