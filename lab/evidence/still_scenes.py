"""Cameras that look at one scene for many probes. Evidence adds up over probes, which then are not independent.

A clean scene that is unusual is unusual in each probe, and a trigger that is missed in a scene is missed until the
scene changes. Each scene has some measured frames; each probe shows one of them, drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.evidence.episodes import MOST, NEVER, QUIET, Alarmed
from lab.evidence.false_alarms import YEAR_S
from lab.evidence.scores import Limits, Scores
from lab.statistics import Interval, wilson
from schemas.evidence.alarms import no_classes, rule_of, track_probe
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe, Track, advance

PROBES: Final = 400_000
"""About as many clean probes are simulated, at least one appearance of each scene."""
VISITS: Final = 20
"""Maximum number of appearances of each clean scene."""

Scene = Sequence[Probe]
"""The probes of the frames of one scene, as the camera's rule judges them."""


def scenes_of(scores: Scores, frames: int, limits: Limits, rule: EvidenceRule) -> list[Scene]:
    """Return the scenes of `scores` (n · `frames`,), the frames of a scene in a row."""
    probes = [track_probe(limits.kind, each, rule).probe for each in scores.probes(limits)]
    return [probes[first : first + frames] for first in range(0, len(probes), frames)]


class SceneAlarms(NamedTuple):
    """False alarms of a camera without a trigger, with intervals over scenes."""

    of_scenes: Interval
    """Share of the appearances of a scene that raise an alarm."""
    a_year: Interval
    """Alarms in a year, one for each such appearance."""


def still_false_alarms(
    clean: Scores,
    frames: int,
    limits: Limits,
    rule: EvidenceRule,
    stay_probes: int,
    probes_per_s: float,
    *,
    seed: int = 0,
) -> SceneAlarms:
    """Return the false alarms of a camera that shows the scenes of `clean`, each for `stay_probes` probes.

    `clean` has `frames` scores of each scene in a row. Of a longer stay, the first `MOST` probes are simulated.
    """
    alarms = appearances_with_alarm(clean, frames, limits, rule, min(stay_probes, MOST), seed=seed)
    # A mean of shares varies no more than a mean of zeros and ones with the same expectation.
    share = wilson(round(alarms.sum()), len(alarms))._replace(value=float(alarms.mean()))
    appearances = probes_per_s * YEAR_S / stay_probes
    return SceneAlarms(share, Interval(*(each * appearances for each in share)))


def appearances_with_alarm(
    clean: Scores, frames: int, limits: Limits, rule: EvidenceRule, stay_probes: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """Return the share of each scene's appearances that raise an alarm or more, (n,).

    One camera shows all scenes in a random order, each for `stay_probes` probes, again and again.
    """
    generator = np.random.default_rng(seed)
    scenes, track_rule = scenes_of(clean, frames, limits, rule), rule_of(limits.kind, rule)
    visits = int(np.clip(PROBES // (len(scenes) * stay_probes), 1, VISITS))
    order = np.concatenate([generator.permutation(len(scenes)) for _ in range(visits)])
    # Some scenes before give the camera its history.
    earlier = generator.integers(0, len(scenes), -(-2 * rule.history_probes // stay_probes))
    appearances, track = np.zeros(len(scenes)), Track()
    for number, scene in enumerate([*earlier.tolist(), *order.tolist()]):
        raised = False
        for probe in _shown(scenes[scene], stay_probes, generator):
            track, alarm = advance(track, probe, track_rule, no_classes)
            raised |= alarm is not None
        appearances[scene] += raised and number >= len(earlier)
    return appearances / visits


def still_episodes(
    clean: Scores,
    before: Scores,
    attacked: Scores,
    starts: NDArray[np.bool_],
    frames: int,
    limits: Limits,
    rule: EvidenceRule,
    stay_probes: int,
    *,
    seed: int = 0,
) -> Alarmed:
    """Simulate an attack that begins at each of the scenes `starts` (n,) of `attacked`.

    A camera stays `stay_probes` probes at each scene. It has shown `QUIET` probes without the trigger, of scenes of
    `clean` and of the first attacked scene `before` the trigger appears in it. All later scenes, drawn from all of
    `attacked`, have the trigger too, also where it misses its target.
    """
    generator, track_rule = np.random.default_rng(seed), rule_of(limits.kind, rule)
    earlier, untouched, later = (scenes_of(each, frames, limits, rule) for each in (clean, before, attacked))
    first = list[float]()
    for scene in np.flatnonzero(starts).tolist():
        # The camera has looked at the scene for 0 to `stay_probes` - 1 probes when the trigger appears.
        looked = int(generator.integers(stay_probes))
        seen, left = min(QUIET, looked), min(MOST, stay_probes - looked)
        quiet = [*_probes_of(earlier, QUIET - seen, stay_probes, generator), *_shown(untouched[scene], seen, generator)]
        harmful = [
            *_shown(later[scene], left, generator),
            *_probes_of(later, MOST - left, stay_probes, generator),
        ]
        track, found = Track(), NEVER
        for place, probe in enumerate([*quiet, *harmful]):
            track, alarm = advance(track, probe, track_rule, no_classes)
            if alarm is not None and place >= QUIET:
                found = place - QUIET + 1
                break
        first.append(found)
    return Alarmed(np.array(first))


def _probes_of(
    scenes: Sequence[Scene], count: int, stay_probes: int, generator: np.random.Generator
) -> Iterator[Probe]:
    """Yield `count` probes of random scenes, `stay_probes` of each."""
    for start in range(0, count, stay_probes):
        yield from _shown(scenes[int(generator.integers(len(scenes)))], min(stay_probes, count - start), generator)


def _shown(scene: Scene, count: int, generator: np.random.Generator) -> Iterator[Probe]:
    return map(scene.__getitem__, generator.integers(0, len(scene), count).tolist())
