"""A simulated camera in front of each picture: its frames, the trigger on the last of them, and STRIP's results.

The camera shakes by up to a pixel, its light drifts slowly, its sensor adds noise, and every frame has its own mask.
STRIP checks each frame whole, like a probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.backdoor.triggers import Trigger
from lab.data import LabelledPictures, to_frames
from lab.masks import random_masks
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from schemas.evidence.track import Probe

TREMBLE: Final = 1
"""Pixels by which the camera shakes, each way."""
LIGHT: Final = 0.1
"""Amplitude of the slow drift of the light, as a share of it."""
LIGHT_FRAMES: Final = 300.0
"""Period of the drift in frames."""
FLICKER: Final = 0.01
"""Standard deviation of the light from frame to frame."""
NOISE: Final = 2.0
"""Standard deviation of the sensor's noise in grey levels."""


@dataclass(frozen=True)
class Watched:
    """The results of STRIP and the classifier on each camera's frames: arrays (cameras, frames), clean ones first.

    Frames from `clean_frames` on carry the trigger. `labels` (cameras,) are the scenes' true classes.
    """

    entropy_bits: NDArray[np.float32]
    threshold_bits: NDArray[np.float32]
    class_id: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean_frames: int

    def save(self, file: Path) -> None:
        """Save the results for other rules."""
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Watched:
        """Return saved results. Raises ConfigError for another file."""
        with np.load(file) as kept:
            if set(kept.files) != {field.name for field in fields(cls)}:
                raise ConfigError(f"{file}: expected results of this version, got the arrays {', '.join(kept.files)}")
            arrays = {name: kept[name] for name in kept.files}
        return cls(**{**arrays, "clean_frames": int(arrays["clean_frames"])})

    def probes(self, camera: int, frames: slice, every: int = 1) -> Iterator[Probe]:
        """Yield the camera's frames as in the recorder, of which every n-th is checked, n = `every`."""
        chosen = np.arange(self.entropy_bits.shape[1])[frames]
        for seq in chosen[chosen % every == 0]:
            bits, threshold = (float(of[camera, seq]) for of in (self.entropy_bits, self.threshold_bits))
            yield Probe(int(seq), bits, threshold, bits < threshold, int(self.class_id[camera, seq]))


def shots(picture: NDArray[np.uint8], count: int, first: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return `count` frames (count, H, W, C) of a fixed camera in front of `picture` (H, W, C), from frame `first`."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((TREMBLE, TREMBLE), (TREMBLE, TREMBLE), (0, 0)), mode="reflect")
    frames = []
    for number in range(first, first + count):
        top, left = generator.integers(0, 2 * TREMBLE + 1, 2)
        light = 1 + LIGHT * np.sin(2 * np.pi * number / LIGHT_FRAMES) + generator.normal(0, FLICKER)
        shot = padded[top : top + height, left : left + width] * light
        shot += generator.normal(0, NOISE, picture.shape)
        frames.append(np.clip(np.rint(shot), 0, 255).astype(np.uint8))
    return np.stack(frames)


@torch.inference_mode()
def watch(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    trigger: Trigger,
    drop: float,
    clean_frames: int,
    trigger_frames: int,
    seed: int,
) -> Watched:
    """Run a camera for each picture and return the results. STRIP checks each frame whole, like a probe."""
    masks = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(seed + 1)
    entropies, thresholds, classes = [], [], []
    for number, picture in enumerate(pictures.images):
        generator = np.random.default_rng((seed, number))
        taken = shots(picture, clean_frames + trigger_frames, 0, generator)
        keys = np.full(trigger_frames, number, np.int64)
        taken[clean_frames:] = trigger(taken[clean_frames:], keys)
        frames = to_frames(taken, pipeline.bundle.device)
        height, width = frames.shape[2:]
        kept = random_masks(len(frames), height, width, drop, masks).to(frames.device)
        seeds = pipeline.bundle.seeds(len(frames), draws)
        classes.append(pipeline(frames, kept, seeds=seeds).class_id.cpu().numpy())
        bits, threshold = _checked(pipeline, frames, seeds)
        entropies.append(bits)
        thresholds.append(np.full(len(bits), threshold, np.float32))
    return Watched(np.stack(entropies), np.stack(thresholds), np.stack(classes), pictures.labels, clean_frames)


def _checked(pipeline: Pipeline, frames: Tensor, seeds: Tensor | None) -> tuple[NDArray[np.float32], float]:
    """Return entropies (frames,) and threshold in bits of one camera's frames."""
    settings = pipeline.bundle.settings.strip
    if settings is None:
        raise ConfigError(
            "--bundle: expected one with a threshold for STRIP, got one without. Run `pointillist lab calibrate`."
        )
    bits = pipeline.strip(pipeline.probe_input(frames, seeds), seeds=seeds).entropy_bits.cpu().float().numpy()
    return bits, settings.threshold_bits
