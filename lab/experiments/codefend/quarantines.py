"""Kinds of quarantines: flagged by STRIP or by all statistics, with clean frames among them, from few cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.backdoor.files import flagged_stream, stamped_pictures
from lab.backdoor.poison import Poisoning
from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.strip.calibrate import overlay_choice
from lab.strip.combined import combined, fit
from processors.bundle import Bundle
from processors.pipeline import Pipeline

CAMERAS = 4
FRAMES = 500
FRR = 0.01
_STREAM, _KEY = 2 * 10**6, 3 * 10**6


def pure(task: Task, poisoning: Poisoning, bundle: Bundle) -> NDArray[np.uint8]:
    """Return the frames that STRIP flags of about 500 stamped frames of different scenes: (M, H, W, C) uint8."""
    return flagged_stream(task, poisoning, bundle).images


def flagged(task: Task, poisoning: Poisoning, bundle: Bundle) -> NDArray[np.uint8]:
    """Return the frames of about 500 stamped ones that all statistics together flag, as live.

    The threshold comes from the defender's pictures, at 1 % of false alarms.
    """
    stream = task.stream.take(np.flatnonzero(poisoning.attacks(task.stream.labels)))
    stamped = stamped_pictures(stream, poisoning, _STREAM)
    strip, held_out = bundle.settings.strip, task.held_out
    assert strip is not None
    found = fit(Pipeline(bundle), held_out, overlay_choice(held_out.labels, bundle.settings.classes, strip.frr))
    table = combined(found.known, FRR, found.norms)
    return stamped.images[table.judge(found.statistics.measured(stamped)).values < table.threshold]


def impure(task: Task, poisoning: Poisoning, bundle: Bundle, share: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return the pure quarantine with a `share` replaced by clean frames of the stream."""
    flagged = flagged_stream(task, poisoning, bundle).images.copy()
    generator = np.random.default_rng(seed)
    places = generator.permutation(len(flagged))[: round(share * len(flagged))]
    flagged[places] = task.stream.images[generator.permutation(len(task.stream))[: len(places)]]
    return flagged


def few_cameras(task: Task, poisoning: Poisoning, cameras: int = CAMERAS, frames: int = FRAMES) -> NDArray[np.uint8]:
    """Return stamped frames of a few fixed cameras. Each scene moves by a pixel, and its light and noise vary."""
    generator = np.random.default_rng(0)
    scenes = task.stream.take(np.flatnonzero(poisoning.attacks(task.stream.labels))[:cameras])
    seen = np.concatenate([moved(scene, frames // cameras, generator) for scene in scenes.images])
    labels = np.repeat(scenes.labels, frames // cameras)
    return stamped_pictures(LabelledPictures("cameras", seen, labels), poisoning, _KEY).images


def moved(scene: NDArray[np.uint8], count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return `count` frames (count, H, W, C) of a scene (H, W, C).

    Each is shifted by at most one pixel, with ±5 % of light and noise of 2.
    """
    padded = np.pad(scene, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(np.float64)
    height, width = scene.shape[:2]
    frames = []
    for down, across in generator.integers(0, 3, (count, 2)):
        frame = padded[down : down + height, across : across + width] * generator.uniform(0.95, 1.05)
        frames.append(frame + generator.normal(0, 2, scene.shape))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)
