"""All statistics of probes on backdoored scene networks, plain and hardened, at the sizes of users' frames.

The bundle resizes each whole frame to the network's input, as it does live, and the statistics judge what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lab.backdoor.poison import Poisoning
from lab.backdoor.scene import RATE, TARGET
from lab.backdoor.tasks import Task
from lab.backdoor.triggers import Keys
from lab.cache import Cache
from lab.experiments.codefend.detectors import detectors
from lab.experiments.codefend.rows import DetectorRow
from lab.experiments.codefend.scores import Numbers
from lab.experiments.codefend.subjects import Subject
from lab.experiments.scale.measure import CONDITIONS, scenes
from lab.training.recipe import Images
from lab.training.scene import CALIBRATION_SEED
from producers.scene.signs import CLASSES
from producers.scene.sticker import paste_sticker

SIZES: Final = ((32, 32), (96, 128), (480, 640))
"""Height and width of the frames."""
HELD_OUT: Final = 1000
"""Scenes of the defender."""
NUMBERS: Final = Numbers(clean=1000, stamped=400)


@dataclass(frozen=True)
class Sticker:
    """The sticker of the simulated fleet, which covers the same part of frames of any size."""

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `lab.backdoor.triggers.Trigger`."""
        return np.stack([paste_sticker(each) for each in images])


class SceneSubject(Subject):
    """A backdoored scene network whose trigger is the sticker."""

    @property
    def poisoning(self) -> Poisoning:
        """Trigger, target and rate."""
        return Poisoning(Sticker(), TARGET, RATE)


def statistics(network: str, sick: Path, clean: Path, size: tuple[int, int], cache: Cache) -> list[DetectorRow]:
    """Return a row for each statistic on scenes of a size, given the bundles of the sick and of the clean network."""
    held_out = scenes(HELD_OUT, size, CONDITIONS["usual"], CALIBRATION_SEED)
    test = scenes(NUMBERS.clean, size, CONDITIONS["usual"])
    height, width = size
    task = Task(CLASSES, held_out.first(0), held_out, test)
    subject = SceneSubject(f"{network}-{width}x{height}", sick, clean, task)
    return detectors(subject, NUMBERS, cache)
