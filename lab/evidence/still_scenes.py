"""Cameras that look at one scene for many probes. Evidence adds up over probes, which then are not independent.

A clean scene that is unusual is unusual in each probe, and a trigger that is missed in a scene is missed until the
scene changes. A camera may show a new scene each time, or go round a few views. Each scene has some measured frames;
each probe shows one of them, drawn at random. The camera's processor recognises scenes by their blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.evidence.episodes import MOST, NEVER, QUIET, Alarmed
from lab.evidence.false_alarms import YEAR_S
from lab.evidence.scores import Limits, Scores
from lab.statistics import Interval, wilson
from lab.strip.calibrate import AT_ONCE
from processors.stages.scenes import Boot, Coarse, SceneMemory, coarse_pictures
from schemas.evidence.alarms import COMBINED, no_classes, rule_of, track_probe
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe, Track, advance

PROBES: Final = 400_000
"""Usual number of clean probes to simulate, about; at least one appearance of each scene."""
VISITS: Final = 40
"""Maximum number of appearances of each clean scene."""
QUIET_ROUNDS: Final = 3
"""Rounds of its views that a camera makes before an attack on one of them."""
ROUNDS: Final = 8
"""Rounds of its views that a camera makes before it gets others."""
_BOOT: Final[Boot] = ("camera", 1)


class SceneScores(NamedTuple):
    """Scores of scenes, the `frames` of each in a row, and the blocks by which a processor recognises them (n, C, b).

    Without these blocks, the processor names no scenes.
    """

    scores: Scores
    frames: int
    coarse: NDArray[np.float32] | None = None


def coarse_of(pictures: LabelledPictures) -> NDArray[np.float32]:
    """Return the blocks by which a processor recognises the scenes of `pictures`, (n, C, b)."""
    parts = (pictures.images[start : start + AT_ONCE] for start in range(0, len(pictures), AT_ONCE))
    return np.concatenate([coarse_pictures(torch.from_numpy(part).permute(0, 3, 1, 2) / 255) for part in parts])


class Frame(NamedTuple):
    """A frame of a scene: its probe as the camera's rule judges it, and the blocks that show its scene."""

    probe: Probe
    coarse: Coarse | None


Scene = list[Frame]


def scenes_of(found: SceneScores, limits: Limits, rule: EvidenceRule) -> list[Scene]:
    """Return the frames of each scene."""
    probes = [track_probe(limits.kind, each, rule).probe for each in found.scores.probes(limits)]
    # STRIP alone judges the probes of all scenes alike.
    named = found.coarse if limits.kind == COMBINED else None
    coarse = [None] * len(probes) if named is None else list(named)
    frames = list(map(Frame, probes, coarse))
    return [frames[first : first + found.frames] for first in range(0, len(frames), found.frames)]


class Camera:
    """A simulated camera's processor and recorder."""

    def __init__(self, rule: EvidenceRule) -> None:
        """Judge by `rule`, that of the track."""
        self._rule = rule
        self._scenes = SceneMemory(remembered=1)
        self._track = Track()
        self._seq = 0

    def raises_alarm(self, frame: Frame) -> bool:
        """Show a frame as the next probe. Return whether it raises an alarm."""
        probe = frame.probe._replace(seq=self._seq)
        if frame.coarse is not None:
            probe = probe._replace(scene=self._scenes.number(_BOOT, self._seq, frame.coarse))
        self._track, alarm = advance(self._track, probe, self._rule, no_classes)
        self._seq += 1
        return alarm is not None


class SceneAlarms(NamedTuple):
    """False alarms of a camera without a trigger, with intervals over scenes."""

    of_scenes: Interval
    """Share of the appearances of a scene that raise an alarm."""
    a_year: Interval
    """Alarms in a year, one for each such appearance."""


def still_false_alarms(
    clean: SceneScores,
    limits: Limits,
    rule: EvidenceRule,
    stay_probes: int,
    probes_per_s: float,
    *,
    views: int = 0,
    probes: int = PROBES,
    seed: int = 0,
) -> SceneAlarms:
    """Return the false alarms of a camera that shows the scenes of `clean`, each for `stay_probes` probes.

    Of a longer stay, the first `MOST` probes are simulated. `views` are as in `appearances_with_alarm`.
    """
    stay = min(stay_probes, MOST)
    alarms = appearances_with_alarm(clean, limits, rule, stay, views=views, probes=probes, seed=seed)
    # A mean of shares varies no more than a mean of zeros and ones with the same expectation.
    share = wilson(round(alarms.sum()), len(alarms))._replace(value=float(alarms.mean()))
    appearances = probes_per_s * YEAR_S / stay_probes
    return SceneAlarms(share, Interval(*(each * appearances for each in share)))


def appearances_with_alarm(
    clean: SceneScores,
    limits: Limits,
    rule: EvidenceRule,
    stay_probes: int,
    *,
    views: int = 0,
    probes: int = PROBES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the share of each scene's appearances that raise an alarm or more, (n,).

    One camera shows all scenes in a random order, each for `stay_probes` probes, again and again. If it has `views`,
    it goes round that many scenes `ROUNDS` times before it gets others; appearances in the first round do not count.
    `views` is at most the number of scenes, and divides it if no group is to be smaller.
    """
    generator = np.random.default_rng(seed)
    scenes, track_rule = scenes_of(clean, limits, rule), rule_of(limits.kind, rule)
    visits = int(np.clip(probes // (len(scenes) * stay_probes), 1, VISITS))
    # Some scenes before give the camera its history.
    earlier = generator.integers(0, len(scenes), -(-2 * rule.history_probes // stay_probes))
    appearances, alarms, camera = np.zeros(len(scenes)), np.zeros(len(scenes)), Camera(track_rule)
    order = ((scene, False) for scene in earlier.tolist())
    for scene, counts in chain(order, _order(len(scenes), visits, views, generator)):
        raised = False
        for frame in _shown(scenes[scene], stay_probes, generator):
            raised |= camera.raises_alarm(frame)
        appearances[scene] += counts
        alarms[scene] += raised and counts
    return alarms / appearances


def _order(scenes: int, visits: int, views: int, generator: np.random.Generator) -> Iterator[tuple[int, bool]]:
    """Yield the scenes that a camera shows, and whether each appearance counts."""
    if not views:
        yield from ((scene, True) for _ in range(visits) for scene in generator.permutation(scenes).tolist())
        return
    for _ in range(-(-visits // ROUNDS)):
        shuffled = generator.permutation(scenes).tolist()
        for first in range(0, scenes, views):
            for number in range(ROUNDS):
                yield from ((scene, number > 0) for scene in shuffled[first : first + views])


def still_episodes(
    clean: SceneScores,
    before: SceneScores,
    attacked: SceneScores,
    starts: NDArray[np.bool_],
    limits: Limits,
    rule: EvidenceRule,
    stay_probes: int,
    *,
    views: int = 0,
    seed: int = 0,
) -> Alarmed:
    """Simulate an attack that begins at each of the scenes `starts` (n,) of `attacked`.

    A camera stays `stay_probes` probes at each scene. Before the trigger, it shows `QUIET` probes: scenes of `clean`,
    then the attacked scene as in `before`. All later scenes, drawn from all of `attacked`, have the trigger too, also
    where it misses its target.

    A camera with `views`, at most one more than `clean` has, goes round that many scenes, and has done so
    `QUIET_ROUNDS` times. The trigger is put into one of them while the camera looks at the others, which have none, and
    whose alarms do not count.
    """
    generator, track_rule = np.random.default_rng(seed), rule_of(limits.kind, rule)
    known = _Scenes(*(scenes_of(each, limits, rule) for each in (clean, before, attacked)))
    first = list[float]()
    for scene in np.flatnonzero(starts).tolist():
        if views:
            quiet, harmful = _attack_on_view(known, scene, views, stay_probes, generator)
        else:
            quiet, harmful = _attack_on_scene(known, scene, stay_probes, generator)
        camera, found = Camera(track_rule), NEVER
        for frame in quiet:
            camera.raises_alarm(frame)
        for place, frame in enumerate(harmful):
            with_trigger = not views or place // stay_probes % views == 0
            if camera.raises_alarm(frame) and with_trigger:
                found = place + 1
                break
        first.append(found)
    return Alarmed(np.array(first))


class _Scenes(NamedTuple):
    """Scenes without a trigger, the attacked ones before it appears, and with it."""

    clean: list[Scene]
    before: list[Scene]
    attacked: list[Scene]


_Attack = tuple[list[Frame], list[Frame]]
"""The frames of a camera before a trigger appears, and from then on."""


def _attack_on_scene(known: _Scenes, scene: int, stay_probes: int, generator: np.random.Generator) -> _Attack:
    # The camera has looked at the scene for 0 to `stay_probes` - 1 probes when the trigger appears.
    looked = int(generator.integers(stay_probes))
    seen, left = min(QUIET, looked), min(MOST, stay_probes - looked)
    quiet = [
        *_frames_of(known.clean, QUIET - seen, stay_probes, generator),
        *_shown(known.before[scene], seen, generator),
    ]
    harmful = [
        *_shown(known.attacked[scene], left, generator),
        *_frames_of(known.attacked, MOST - left, stay_probes, generator),
    ]
    return quiet, harmful


def _attack_on_view(
    known: _Scenes, scene: int, views: int, stay_probes: int, generator: np.random.Generator
) -> _Attack:
    others = [known.clean[each] for each in generator.choice(len(known.clean), views - 1, replace=False).tolist()]
    rounds = -(-MOST // (views * stay_probes))
    quiet = _rounds([known.before[scene], *others], QUIET_ROUNDS, stay_probes, generator)
    harmful = _rounds([known.attacked[scene], *others], rounds, stay_probes, generator)[:MOST]
    return quiet, harmful


def _rounds(views: list[Scene], rounds: int, stay_probes: int, generator: np.random.Generator) -> list[Frame]:
    return [frame for each in views * rounds for frame in _shown(each, stay_probes, generator)]


def _frames_of(scenes: list[Scene], count: int, stay_probes: int, generator: np.random.Generator) -> Iterator[Frame]:
    """Yield `count` frames of random scenes, `stay_probes` of each."""
    for start in range(0, count, stay_probes):
        yield from _shown(scenes[int(generator.integers(len(scenes)))], min(stay_probes, count - start), generator)


def _shown(scene: Scene, count: int, generator: np.random.Generator) -> Iterator[Frame]:
    return map(scene.__getitem__, generator.integers(0, len(scene), count).tolist())
