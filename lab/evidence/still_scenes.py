"""Cameras that look at one scene for many probes. Evidence adds up over probes, which then are not independent.

A clean scene that looks unusual to the statistics looks so in each of its probes, and a trigger that they miss in one
scene, they miss until the scene changes. Each scene has several frames of its own, which differ by the sensor's noise
and by the masks of their probes.
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
from schemas.evidence.alarms import no_classes, track_probe
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe, Track, advance

PROBES: Final = 400_000
"""Clean probes that are simulated at least, if a scene is not shown more than `VISITS` times."""
VISITS: Final = 20
"""Most times that each clean scene is shown."""

Scene = Sequence[Probe]
"""The probes of the frames of one scene, as the camera's rule judges them."""


def scenes_of(scores: Scores, frames: int, limits: Limits, rule: EvidenceRule) -> list[Scene]:
    """Return the scenes of `scores` (n · `frames`,), the frames of a scene in a row."""
    probes = [track_probe(limits.kind, each, rule).probe for each in scores.probes(limits)]
    return [probes[first : first + frames] for first in range(0, len(probes), frames)]


class SceneAlarms(NamedTuple):
    """False alarms of a camera without a trigger, with intervals over scenes."""

    of_scenes: Interval
    """Share of the scenes that raise an alarm when they appear."""
    a_year: Interval
    """Alarms in a year."""


def still_false_alarms(
    clean: Scores, frames: int, limits: Limits, rule: EvidenceRule, stay: int, probes_per_s: float, *, seed: int = 0
) -> SceneAlarms:
    """Return the false alarms of a camera that shows the scenes of `clean`, each for `stay` probes.

    `clean` has `frames` scores of each scene in a row. A scene raises its alarm in its first `MOST` probes, or hardly
    ever.
    """
    alarms = false_alarms_of_scenes(clean, frames, limits, rule, min(stay, MOST), seed=seed)
    # The share of a scene's appearances varies less than a scene that raises an alarm always or never.
    share = wilson(round(alarms.sum()), len(alarms))._replace(value=float(alarms.mean()))
    appearances = probes_per_s * YEAR_S / stay
    return SceneAlarms(share, Interval(*(each * appearances for each in share)))


def false_alarms_of_scenes(
    clean: Scores, frames: int, limits: Limits, rule: EvidenceRule, stay: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """Return the share of each scene's appearances that raise an alarm, (n,).

    One camera shows all scenes in a random order, each for `stay` probes, again and again.
    """
    generator = np.random.default_rng(seed)
    scenes, judged = scenes_of(clean, frames, limits, rule), track_probe(limits.kind, _ANY, rule).rule
    visits = int(np.clip(PROBES // (len(scenes) * stay), 1, VISITS))
    order = np.concatenate([generator.permutation(len(scenes)) for _ in range(visits)])
    # A first run through some scenes gives the camera its history.
    before = generator.integers(0, len(scenes), -(-2 * rule.history_probes // stay))
    alarms, track = np.zeros(len(scenes)), Track()
    for number, scene in enumerate([*before.tolist(), *order.tolist()]):
        for probe in _shown(scenes[scene], stay, generator):
            track, alarm = advance(track, probe, judged, no_classes)
            alarms[scene] += alarm is not None and number >= len(before)
    return alarms / visits


def still_episodes(
    clean: Scores,
    attacked: Scores,
    frames: int,
    limits: Limits,
    rule: EvidenceRule,
    stay: int,
    *,
    seed: int = 0,
) -> Alarmed:
    """Simulate an attack for each scene: the trigger comes into view there, and stays in view in all later scenes.

    `attacked` are the scenes of `clean` with the trigger, frame by frame. A camera stays `stay` probes at each, and
    has shown `QUIET` clean probes when the trigger appears.
    """
    generator = np.random.default_rng(seed)
    harmless, harmful = (scenes_of(each, frames, limits, rule) for each in (clean, attacked))
    judged, first = track_probe(limits.kind, _ANY, rule).rule, list[float]()
    for scene in range(len(harmful)):
        # The camera has looked at the scene for 0 to `stay` - 1 probes when the trigger appears.
        before = int(generator.integers(stay))
        earlier = -(-max(0, QUIET - before) // stay)
        shown = generator.integers(0, len(harmful), earlier + 1 + -(-MOST // stay))
        shown[earlier] = scene
        start, track, found = earlier * stay + before - QUIET, Track(), NEVER
        for place in range(QUIET + MOST):
            among = (harmless if place < QUIET else harmful)[shown[(start + place) // stay]]
            track, alarm = advance(track, among[generator.integers(frames)], judged, no_classes)
            if alarm is not None and place >= QUIET:
                found = place - QUIET + 1
                break
        first.append(found)
    return Alarmed(np.array(first))


def _shown(scene: Scene, stay: int, generator: np.random.Generator) -> Iterator[Probe]:
    return map(scene.__getitem__, generator.integers(0, len(scene), stay).tolist())


_ANY: Final = Probe(0, 1.0, 1.0, False, 0, 1.0, 1.0)
