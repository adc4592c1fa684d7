"""Labelled scenes drawn from a seed: a fleet has ground truth on a machine with no data set at all."""

from __future__ import annotations

from producers.scene.signs import CLASSES
from producers.scene.simulator import SceneSimulator
from producers.scene.sticker import paste_sticker

__all__ = ["CLASSES", "SceneSimulator", "paste_sticker"]
