"""Scores of scenes that a camera looks at for long, on the backdoored models, by all statistics together.

A scene is a test picture; its frames differ by a sensor's noise. Nothing moves in it, and its light stays.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures
from lab.evidence.scores import Scores
from lab.evidence.still_scenes import SceneScores, coarse_of
from lab.experiments.codefend.scores import FRR
from lab.experiments.codefend.subjects import Subject
from lab.provenance import made_by
from lab.strip.calibrate import overlay_choice
from lab.strip.combined import combined, fit
from lab.strip.measure import check
from processors.bundle.strip_table import ENTROPY
from processors.pipeline import Pipeline


class Scenes(NamedTuple):
    """The largest numbers of clean scenes and of attacked ones, frames of each, and their noise in levels of 255."""

    clean: int = 2000
    attacked: int = 400
    frames: int = 3
    noise: float = 2.0


SCENES: Final = Scenes()


class StillScores(NamedTuple):
    """The scores of clean scenes and of attacked ones, before and with the trigger."""

    clean: SceneScores
    before: SceneScores
    attacked: SceneScores
    reached: NDArray[np.bool_]
    """Attacked scenes whose frames mostly go to the target, (n,)."""
    threshold: float
    """Threshold of a frame's p-value."""


def still_scores(subject: Subject, scenes: Scenes, cache: Cache) -> StillScores:
    """Return the scores of `scenes` of the test pictures, from the cache or measured."""
    state = digest(subject.state, made_by(f"{__name__}:_measured"), scenes)
    found = cache.get(f"still/{subject.name}", state, partial(_measured, subject, scenes))
    parts = _pictures(subject, scenes)
    clean, before, attacked = (
        SceneScores(
            Scores(
                found[f"{part}_bits"].astype(np.float64),
                found[f"{part}_p_value"].astype(np.float64),
                found[f"{part}_verdict"].astype(np.int64),
            ),
            scenes.frames,
            coarse_of(noisy(pictures, scenes, seed=number)),
        )
        for number, (part, pictures) in enumerate(parts.items())
    )
    aims = np.repeat(subject.poisoning.aims(parts["attacked"].labels), scenes.frames)
    reached = (attacked.scores.verdict == aims).reshape(-1, scenes.frames).mean(1) > 0.5
    return StillScores(clean, before, attacked, reached, float(found["threshold"]))


def _pictures(subject: Subject, scenes: Scenes) -> dict[str, LabelledPictures]:
    """Return the pictures of the clean scenes and of the attacked ones, the latter before and with the trigger."""
    test, chance = subject.task.test, np.random.default_rng(4)
    attackable = np.flatnonzero(subject.poisoning.attacks(test.labels))
    chosen = np.sort(chance.permutation(len(test))[: scenes.clean])
    targets = np.sort(chance.permutation(len(attackable))[: scenes.attacked])
    return {
        "clean": test.take(chosen),
        "before": test.take(attackable[targets]),
        "attacked": subject.stamped.take(targets),
    }


def _measured(subject: Subject, scenes: Scenes) -> Arrays:
    strip, held_out, pipeline = subject.bundle.settings.strip, subject.task.held_out, Pipeline(subject.bundle)
    assert strip is not None
    learnt = fit(pipeline, held_out, overlay_choice(held_out.labels, subject.bundle.settings.classes, strip.frr))
    table = combined(learnt.known, FRR, learnt.norms)
    arrays: Arrays = {"threshold": np.array(table.threshold)}
    for number, (part, pictures) in enumerate(_pictures(subject, scenes).items()):
        frames = noisy(pictures, scenes, seed=number)
        checked = check(pipeline, frames, sequential=True)
        values = learnt.statistics.measured(frames, known={ENTROPY: checked.bits})
        arrays |= {
            f"{part}_bits": checked.bits,
            f"{part}_p_value": table.judge(values).values,
            f"{part}_verdict": checked.verdict,
        }
    return arrays


def noisy(pictures: LabelledPictures, scenes: Scenes, seed: int) -> LabelledPictures:
    """Return the frames of each picture in a row, with Gaussian noise of their own, rounded to levels."""
    generator, images = np.random.default_rng(seed), np.repeat(pictures.images, scenes.frames, 0)
    noise = generator.normal(0, scenes.noise, images.shape)
    frames = np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    return LabelledPictures(f"{pictures.name}, still", frames, np.repeat(pictures.labels, scenes.frames))
