"""STRIP's calibration for a new bundle, from its user's pictures, in a bounded time of the network.

`pointillist lab calibrate` needs hundreds of pictures of every class and has no time limit. It is better, but too slow
for a first look.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Final

import torch

from infra.bundling.gallery import UNKNOWN, round_robin
from infra.bundling.label_checks import verdicts
from lab.data import LabelledPictures
from lab.strip.calibrate import FRR, calibrated, clamps, clean_verdicts, overlay_frames, overlay_images
from lab.strip.table import write_overlays, write_strip_table
from processors.bundle import Bundle, StripSettings
from processors.pipeline import Pipeline
from schemas.errors import ConfigError

LEAST_OVERLAYS: Final = 16
LEAST_PICTURES: Final = 2 * LEAST_OVERLAYS
MOST_OVERLAYS: Final = 60
MOST_PICTURES: Final = 150
"""Pictures for the limits of the sequential mode, which come from synthetic triggers: these take seconds. The hundred
overlays and hundreds of pictures of `pointillist lab calibrate` take minutes."""
_TIMED: Final = 16


def calibrate_strip(
    folder: Path, bundle: Bundle, pictures: LabelledPictures, budget_s: float
) -> tuple[StripSettings, int]:
    """Write overlays and whole-frame threshold into the bundle in `folder`; return the settings and the sample size.

    Overlays come from every class in turn, by the labels or else by the verdicts. The network takes at most about
    `budget_s` seconds; the limits of early stops take more, by classes and overlays. A network that is too slow for
    `MOST_PICTURES` and `MOST_OVERLAYS` gets fewer of both. The stated share of false rejections is the finest that so
    few can measure. Raises ConfigError for fewer than `LEAST_PICTURES`.
    """
    if len(pictures) < LEAST_PICTURES:
        raise ConfigError(
            f"pictures: expected at least {LEAST_PICTURES} to calibrate STRIP, got {len(pictures)}. Add pictures."
        )
    pipeline = Pipeline(bundle)
    count, used = shares(len(pictures), budget_s / _seconds_per_pass(bundle, pictures))
    groups = pictures.labels if (pictures.labels != UNKNOWN).all() else verdicts(bundle, pictures)
    order = round_robin(groups, used)
    some = pictures.take(order)
    images = overlay_images(pipeline, some.take(round_robin(groups[order], count)))
    overlays = overlay_frames(images, bundle.device)
    clamped = clamps(overlays)
    # The rate is at least one in the number of frames that are no overlays themselves.
    frr = max(FRR, math.ceil(1000 / (used - count)) / 1000)
    threshold, _ = calibrated(clean_verdicts(pipeline, overlays, some, clamped, 0), frr)
    strip = StripSettings(**threshold.model_dump(), overlays=write_overlays(folder, images), clamped=clamped)
    write_strip_table(folder, strip)
    return strip, used


def shares(pictures: int, passes: float) -> tuple[int, int]:
    """Return the numbers of overlays, and of pictures under each, for about this many `passes` of the network.

    Twice as many pictures as overlays if both are few; never fewer than `LEAST_OVERLAYS` and `LEAST_PICTURES`.
    `pictures` is at least the latter.
    """
    overlays = min(MOST_OVERLAYS, pictures // 2, max(LEAST_OVERLAYS, int(math.sqrt(max(0.0, passes) / 2))))
    return overlays, min(pictures, MOST_PICTURES, max(2 * overlays, int(passes / overlays)))


@torch.inference_mode()
def _seconds_per_pass(bundle: Bundle, pictures: LabelledPictures) -> float:
    frames = overlay_frames(pictures.images[:_TIMED], bundle.device)
    bundle.logits(frames)
    begun = time.perf_counter()
    bundle.logits(frames)
    return max(1e-6, (time.perf_counter() - begun) / len(frames))
