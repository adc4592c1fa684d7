"""The alarms of one boot of a camera, by the entropies of its probes or by their p-values.

A bundle with several statistics gives each probe a p-value, which includes the entropy. A boot that changes between
bundles of both kinds begins a new track.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, Classes, Probe, Track, advance

STRIP: Final = "strip"
COMBINED: Final = "combined"
KINDS: Final = (STRIP, COMBINED)
"""The kinds of alerts that this evidence raises: by STRIP's entropy alone, or by all statistics together."""


class Tracks(NamedTuple):
    """The track of each kind, in the order of `KINDS`. The one that the bundle does not use is empty."""

    strip: Track = Track()
    combined: Track = Track()

    def level(self, rule: EvidenceRule) -> float:
        """Return the evidence level of the camera: 0 without evidence, 1 at an alarm."""
        return max(track.level(rule_of(kind, rule)) for kind, track in zip(KINDS, self, strict=True))


class TrackAlarm(NamedTuple):
    """An alarm, and the kind of its alert."""

    kind: str
    alarm: Alarm


class TrackProbe(NamedTuple):
    """A probe as one kind judges it, and the rule of that kind's track."""

    probe: Probe
    rule: EvidenceRule


def rule_of(kind: str, rule: EvidenceRule) -> EvidenceRule:
    """Return the rule of the track of `kind`."""
    return rule.of_p_values if kind == COMBINED else rule


def track_probe(kind: str, probe: Probe, rule: EvidenceRule) -> TrackProbe:
    """Return the probe as `kind` judges it, with the rule of its track."""
    by_p_value = kind == COMBINED
    seen = probe.of_p_value(rule.combined_octaves) if by_p_value else probe.of_entropy(rule.entropy_octaves)
    return TrackProbe(seen, rule_of(kind, rule))


def measures(kind: str, probe: Probe) -> bool:
    """Return whether `kind` judges the probe."""
    return (probe.p_value_threshold > 0) == (kind == COMBINED)


def advance_all(tracks: Tracks, probe: Probe, rule: EvidenceRule, classes: Classes) -> tuple[Tracks, list[TrackAlarm]]:
    """Apply `advance` to the track that judges the probe, and empty the other; return both and the alarms.

    Flips of the verdicts confirm alarms of STRIP alone: a clean scene between two classes flips too.
    """
    found, after = list[TrackAlarm](), list[Track]()
    for kind, track in zip(KINDS, tracks, strict=True):
        if not measures(kind, probe):
            # The bundle can neither go on with an episode of this kind nor end it.
            after.append(Track())
            continue
        seen: Classes = no_classes
        if kind == STRIP:
            # The clean p-values of all networks are alike.
            track, seen = track.with_network(probe.threshold_bits), classes
        following, alarm = advance(track, *track_probe(kind, probe, rule), seen)
        after.append(following)
        if alarm is not None:
            found.append(TrackAlarm(kind, alarm))
    return Tracks(*after), found


def no_classes(first: int, last: int) -> tuple[int, ...]:
    """Return no verdicts."""
    return ()
