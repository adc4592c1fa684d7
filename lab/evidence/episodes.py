"""Episodes of an attack on one camera: clean probes, then the trigger in every frame until the alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.evidence.scores import Scores
from lab.strip.fused import Fused
from schemas.evidence.alarms import KINDS, Tracks, advance_all
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
    """Probes with the trigger until the first alarm, for each of n episodes and by the alert's kind.

    `probes` holds (n,) for each kind, `NEVER` without an alarm. An alarm before the trigger does not count, and may
    hide the one that the trigger would raise.
    """

    probes: dict[str, NDArray[np.float64]]

    @property
    def either(self) -> NDArray[np.float64]:
        """Return the probes until the first alarm of any kind, (n,)."""
        found: NDArray[np.float64] = np.min(list(self.probes.values()), axis=0)
        return found

    def in_time(self, kind: str | None = None) -> int:
        """Return the number of episodes with an alarm within `IN_TIME` probes, of one kind or of any."""
        probes = self.either if kind is None else self.probes[kind]
        return int((probes <= IN_TIME).sum())

    def quantile(self, share: float) -> float | None:
        """Return the probes within which a `share` of the episodes has an alarm; None if it is never."""
        found = float(np.quantile(self.either, share, method="inverted_cdf"))
        return None if found == NEVER else found


@dataclass(frozen=True)
class Starts:
    """Whether each of n starts without a trigger raises an alarm, (n,) for each kind."""

    alarmed: dict[str, NDArray[np.bool_]]

    @property
    def either(self) -> NDArray[np.bool_]:
        """Return whether each start raises an alarm of any kind, (n,)."""
        found: NDArray[np.bool_] = np.any(list(self.alarmed.values()), axis=0)
        return found


def episodes(
    clean: Scores,
    attacked: Scores,
    limits: Fused,
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
    first: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(count):
        shown = [harmless[place] for place in generator.integers(0, len(harmless), quiet)]
        shown += [harmful[place] for place in generator.integers(0, len(harmful), MOST)]
        alarms = _alarms(shown, rule, every, quiet)
        for kind in KINDS:
            later = [place - quiet + 1 for place in alarms[kind] if place >= quiet]
            first[kind].append(later[0] if later else NEVER)
    return Alarmed({kind: np.array(each) for kind, each in first.items()})


def clean_starts(
    clean: Scores, limits: Fused, rule: EvidenceRule, *, every: int = 20, count: int, seed: int = 0
) -> Starts:
    """Return which of `count` starts of a camera without a trigger raise an alarm in their first `QUIET` probes.

    A camera without a baseline is judged by the thresholds alone.
    """
    generator = np.random.default_rng(seed)
    harmless, found = clean.probes(limits), {kind: np.zeros(count, np.bool_) for kind in KINDS}
    for number in range(count):
        shown = [harmless[place] for place in generator.integers(0, len(harmless), QUIET)]
        for kind, places in _alarms(shown, rule, every, 0).items():
            found[kind][number] = bool(places)
    return Starts(found)


def _alarms(shown: Sequence[Probe], rule: EvidenceRule, every: int, quiet: int) -> dict[str, list[int]]:
    """Return the places in `shown` at which each kind raises an alarm, until all have after `quiet` probes.

    Frames between two probes count with the verdict of the probe before them.
    """
    alarms: dict[str, list[int]] = {kind: [] for kind in KINDS}
    tracks = Tracks()

    def classes(first: int, last: int) -> list[int]:
        return [shown[seq // every].class_id for seq in range(first, last + 1)]

    for place, probe in enumerate(shown):
        numbered = probe._replace(seq=every * place)
        tracks, found = advance_all(tracks, numbered, rule, classes)
        for each in found:
            alarms[each.kind].append(place)
        if all(places and places[-1] >= quiet for places in alarms.values()):
            break
    return alarms
