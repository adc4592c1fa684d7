"""Episodes of an attack on one camera: clean probes, then the trigger in every frame until the alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.evidence.scores import Limits, Scores
from schemas.evidence.alarms import Tracks, advance_all
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe

EPISODES: Final = 200
IN_TIME: Final = 40
"""Probes within which an attack should raise its alarm."""
MOST: Final = 400
"""Probes after which an episode ends without an alarm."""
QUIET: Final = 64
"""Clean probes before the trigger: enough for a baseline."""
NEVER: Final = math.inf


@dataclass(frozen=True)
class Alarmed:
    """Probes with the trigger until the first alarm, for each of n episodes: (n,), `NEVER` without an alarm.

    An alarm before the trigger does not count, and may hide the one that the trigger would raise.
    """

    probes: NDArray[np.float64]

    @property
    def in_time(self) -> int:
        """Return the number of episodes with an alarm within `IN_TIME` probes."""
        return int((self.probes <= IN_TIME).sum())

    def quantile(self, share: float) -> float | None:
        """Return the probes within which a `share` of the episodes has an alarm; None if it is never."""
        found = float(np.quantile(self.probes, share, method="inverted_cdf"))
        return None if found == NEVER else found


def episodes(
    clean: Scores,
    attacked: Scores,
    limits: Limits,
    rule: EvidenceRule,
    *,
    quiet: int = QUIET,
    every: int = 20,
    count: int = EPISODES,
    seed: int = 0,
) -> Alarmed:
    """Simulate `count` episodes of a camera that shows random pictures, one of them in `every` frames as a probe.

    The first `quiet` probes are clean, and all later ones carry the trigger.
    """
    generator = np.random.default_rng(seed)
    harmless, harmful = clean.probes(limits), attacked.probes(limits)
    first = list[float]()
    for _ in range(count):
        shown = [harmless[place] for place in generator.integers(0, len(harmless), quiet)]
        shown += [harmful[place] for place in generator.integers(0, len(harmful), MOST)]
        later = [place - quiet + 1 for place in _alarms(shown, rule, every, quiet) if place >= quiet]
        first.append(later[0] if later else NEVER)
    return Alarmed(np.array(first))


def clean_starts(
    clean: Scores, limits: Limits, rule: EvidenceRule, *, every: int = 20, count: int, seed: int = 0
) -> int:
    """Return how many of `count` starts of a camera without a trigger raise an alarm in their first `QUIET` probes.

    A camera without a baseline is judged by the thresholds alone.
    """
    generator = np.random.default_rng(seed)
    harmless, found = clean.probes(limits), 0
    for _ in range(count):
        shown = [harmless[place] for place in generator.integers(0, len(harmless), QUIET)]
        found += bool(_alarms(shown, rule, every, 0))
    return found


def _alarms(shown: Sequence[Probe], rule: EvidenceRule, every: int, quiet: int) -> list[int]:
    """Return the places in `shown` at which an alarm is raised, until the first after `quiet` probes.

    Frames between two probes count with the verdict of the probe before them.
    """
    alarms, tracks = list[int](), Tracks()

    def classes(first: int, last: int) -> list[int]:
        return [shown[seq // every].class_id for seq in range(first, last + 1)]

    for place, probe in enumerate(shown):
        tracks, found = advance_all(tracks, probe._replace(seq=every * place), rule, classes)
        if found:
            alarms.append(place)
            if place >= quiet:
                break
    return alarms
