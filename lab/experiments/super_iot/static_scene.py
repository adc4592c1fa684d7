"""A fixed camera in front of a scene that an attacker has painted once, and the information in many of its frames.

Under the profile `temporal` an unchanged block keeps its mask, so the classifier always sees the same pixels. It is
compared with frames that have separate masks and are each judged alone. The third variant fuses the kept pixels of all
frames into one picture, which must not be done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import to_frames
from lab.experiments.super_iot.judges import Adversarial, Judge
from lab.experiments.super_iot.plan import AttackRow
from lab.experiments.super_iot.rows import StaticRow
from lab.statistics import mean_interval, share_interval
from processors.pipeline import Pipeline
from schemas.identity import CameraId
from schemas.keys import CameraKey, derive_camera_key
from schemas.limits import dropped_per_block
from schemas.pixels.masks import kept_mask
from schemas.pixels.temporal_encoder import seen_frames

FRAMES: Final = (1, 2, 16)
"""Number of frames before the latest one is judged."""
NOISES: Final = (0.0, 1.0)
"""Standard deviation of the sensor's noise in grey levels, drawn for every frame."""
RATIO: Final = 0.25
_SECRET: Final = b"a fleet of fixed cameras, one a picture"

Looked = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Pixels (H, W, C) and the mask of the known ones (H, W)."""


def static_rows(judge: Judge, row: AttackRow, pictures: Adversarial, count: int, seed: int) -> list[StaticRow]:
    """Return the accuracy after each number of frames and at each noise, on the first `count` pictures of an attack."""
    pipeline = Pipeline(judge.bundle)
    found = []
    for noise in NOISES:
        by_view: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}
        for number in range(min(count, len(pictures.images))):
            shots = _shots(pictures.images[number], noise, np.random.default_rng((seed, number)))
            views = _views(shots, derive_camera_key(_SECRET, CameraId(f"static/{number}")))
            looked = dict(views)
            frames = to_frames(np.stack([pixels for pixels, _ in looked.values()]), judge.bundle.device)
            kept = torch.from_numpy(np.stack([known for _, known in looked.values()]))[:, None].to(judge.bundle.device)
            with torch.inference_mode():
                right = (pipeline(frames, kept).class_id == int(judge.pictures.labels[number])).cpu().numpy()
            for name, correct in zip(looked, right, strict=True):
                by_view.setdefault(name, []).append(correct)
        first = np.array(by_view["temporal", 1])
        for (view, frames_seen), outcomes in by_view.items():
            correct = np.array(outcomes)
            interval = share_interval(correct[None])
            change = mean_interval(correct.astype(np.float64) - first)
            found.append(
                StaticRow(
                    judge.name, row.key, row.label, row.targeted, noise, view, frames_seen, len(correct),
                    interval.value, interval.low, interval.high, change.value, change.low, change.high,
                )
            )  # fmt: skip
    return found


def _shots(picture: NDArray[np.uint8], noise: float, generator: np.random.Generator) -> list[NDArray[np.uint8]]:
    if not noise:
        return [picture] * max(FRAMES)
    return [
        np.clip(np.rint(picture + generator.normal(0, noise, picture.shape)), 0, 255).astype(np.uint8)
        for _ in range(max(FRAMES))
    ]


def _views(shots: list[NDArray[np.uint8]], key: CameraKey) -> Iterator[tuple[tuple[str, int], Looked]]:
    """Yield the server's pixels of the latest frame, by the view and the number of frames."""
    dropped = dropped_per_block(RATIO)
    for number, seen in enumerate(seen_frames(key, shots, dropped), 1):
        if number in FRAMES:
            yield ("temporal", number), (seen.pixels, seen.kept)
    height, width = shots[0].shape[:2]
    masks = [kept_mask(key, 2, number, height, width, dropped) for number in range(len(shots))]
    fused, known = np.zeros_like(shots[0]), np.zeros((height, width), np.bool_)
    for number, (shot, mask) in enumerate(zip(shots, masks, strict=True), 1):
        fused[mask], known = shot[mask], known | mask
        if number in FRAMES and number > 1:
            yield ("each frame alone", number), (shot, mask)
            yield ("fused, never done", number), (fused.copy(), known)
