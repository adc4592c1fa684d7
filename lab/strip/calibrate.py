"""STRIP's calibration of a bundle from clean pictures: overlays, thresholds, limits of the sequential mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import LabelledPictures, to_frames, to_images
from lab.masks import random_masks
from lab.strip.limits import Limits, accepted_by, limits_of
from processors.bundle import StripThreshold
from processors.pipeline import Pipeline
from processors.stages.preprocess.contract import seeds_of_sums
from processors.stages.strip import Statistic, contributions, log_odds_bits, overlaid_logits, spread_bits
from schemas.errors import ConfigError
from schemas.limits import BLOCK_PIXELS

OVERLAYS: Final = 100
"""N of the paper."""
FRR: Final = 0.01
CLAMPED_BELOW: Final = 0.125
"""The sum of two pictures is clamped if clamping changes at most this share of the values."""
TAIL: Final = 0.1
"""Share of the clean frames, those with the lowest entropy, to which the threshold is fitted."""
LEAST: Final = 20
"""Fewest frames to which the threshold is fitted."""
KEPT: Final = 500
"""Most frames whose contributions per overlay are kept, for estimating the limits."""
AT_ONCE: Final = 64
"""Frames that are checked together."""
UNUSUAL: Final = 0.03
"""Share of the clean frames whose odds of a class exceed the usual ones."""
_SEED: Final = 0


@dataclass(frozen=True)
class CleanVerdicts:
    """Results of clean frames under the overlays.

    `values` (n,) are in bits over all overlays. `given` (m, N, S) are the contributions of each overlay to the
    acceptance statistic, see `processors.stages.strip.contributions`. They cover some frames that are not overlays
    themselves.
    """

    statistic: Statistic
    usual: Tensor | None
    """Odds that clean frames rarely exceed, for the statistic `odds`: (classes,) on the CPU."""
    values: NDArray[np.float64]
    given: Tensor


def overlay_choice(labels: NDArray[np.integer], classes: tuple[str, ...] | list[str], frr: float) -> NDArray[np.intp]:
    """Return the positions of the overlays in a clean file: class after class in turn, for nearly equal numbers.

    There are `OVERLAYS` of them, or one of each class if there are more classes. Raises ConfigError if a class is
    missing, or if fewer than 1 / `frr` pictures would be left besides them.
    """
    per_class = [np.flatnonzero(labels == label) for label in range(len(classes))]
    if missing := [f"{label} ({classes[label]})" for label, found in enumerate(per_class) if not len(found)]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigError(
            f"clean pictures: expected at least one of each of the {len(classes)} classes, as overlays, "
            f"got none of class {', '.join(missing[:5])}{more}"
        )
    count = max(OVERLAYS, len(classes))
    wanted = count + math.ceil(1 / frr)
    if len(labels) < wanted:
        raise ConfigError(
            f"clean pictures: expected at least {wanted}, {count} as overlays and {wanted - count} more for a "
            f"false rejection rate of {frr:g}, got {len(labels)}"
        )
    rounds = max(map(len, per_class))
    turns = [found[i] for i in range(rounds) for found in per_class if i < len(found)]
    return np.array(turns[:count], np.intp)


class StripInputs(NamedTuple):
    """A batch: inputs (B, C, H, W), verdicts (B,), labels (B,), and seeds (B,) if a stage of the bundle draws."""

    inputs: Tensor
    verdicts: Tensor
    labels: Tensor
    seeds: Tensor | None


def strip_inputs(
    pipeline: Pipeline, pictures: LabelledPictures, dropped_per_block: int, seed: int = _SEED
) -> Iterator[StripInputs]:
    """Yield batches of STRIP's and the classifier's inputs for pictures.

    With `dropped_per_block` above 0, this many pixels of every block are first dropped by random masks, and the
    verdicts are those of the whole chain. Otherwise they are those of the network with its stages, as on a frame
    without a drop.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(seed + 1)
    ratio = dropped_per_block / BLOCK_PIXELS
    for frames, labels in pictures.batches(pipeline.bundle.device):
        seeds = pipeline.bundle.seeds(len(frames), draws)
        if not dropped_per_block:
            inputs = whole_input(pipeline, frames)
            yield StripInputs(inputs, pipeline.bundle.logits(inputs, seeds).argmax(1), labels, seeds)
            continue
        kept = random_masks(len(frames), frames.shape[2], frames.shape[3], ratio, generator).to(frames.device)
        frames = frames * kept
        verdicts = pipeline(frames, kept, seeds=seeds).class_id
        yield StripInputs(pipeline.dropped_input(frames, kept, seeds), verdicts, labels, seeds)


def whole_input(pipeline: Pipeline, frames: Tensor) -> Tensor:
    """Return `Pipeline.probe_input` of whole pictures: always the same tile, for any draws of the bundle's stages."""
    return pipeline.probe_input(frames, torch.zeros(len(frames), dtype=torch.int64, device=frames.device))


@torch.inference_mode()
def clean_verdicts(
    pipeline: Pipeline,
    overlays: Tensor,
    pictures: LabelledPictures,
    clamped: bool,
    dropped_per_block: int,
    advance: Callable[[int], object] = lambda count: None,
) -> CleanVerdicts:
    """Lay `overlays` (N, C, H, W) over clean pictures, and return the results.

    A picture that is an overlay is not laid over itself.
    """
    statistic = usual_statistic(clamped, dropped_per_block)
    originals = torch.cat([whole_input(pipeline, frames) for frames, _ in pictures.batches(pipeline.bundle.device)])
    own = _same_picture(originals, overlays)
    batches = list(strip_inputs(pipeline, pictures, dropped_per_block))
    inputs = torch.cat([batch.inputs for batch in batches])
    seeds = torch.cat([batch.seeds for batch in batches if batch.seeds is not None]) if pipeline.bundle.random else None
    kept = _kept(own)
    means, given_kept = [], []
    for start in range(0, len(inputs), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        sums = None if seeds is None else seeds_of_sums(seeds[some], len(overlays))
        verdicts = overlaid_logits(inputs[some], overlays, pipeline.bundle.logits, clamped=clamped, seeds=sums)
        given = contributions(verdicts, accepted_by(statistic))
        means.append(_mean(given, own[some]))
        given_kept.append(given[kept[(kept >= start) & (kept < start + AT_ONCE)] - start].cpu())
        advance(len(given))
    mean = torch.cat(means)
    usual = log_odds_bits(mean).quantile(1 - UNUSUAL, dim=0) if statistic == "odds" else None
    bits = spread_bits(mean, statistic, usual)
    return CleanVerdicts(
        statistic,
        None if usual is None else usual.cpu(),
        bits.double().cpu().numpy(),
        torch.cat(given_kept),
    )


def threshold_of(values: NDArray[np.float64], frr: float) -> float:
    """Return the threshold in bits below which at most a share `frr` of clean frames is expected, given (n,) others.

    It is the lower of two estimates, both inaccurate alone if few frames are that low. The first is the value of rank
    ⌊frr · (n + 1)⌋, below which a further frame falls with at most that probability (split conformal prediction, Vovk
    et al. 2005). The second is a power law fitted to the lowest tenth (Hill 1975), F(h) = TAIL · (h / h_m)^a.
    """
    ordered = np.sort(values)
    ranked = float(ordered[max(0, math.floor(frr * (len(ordered) + 1)) - 1)])
    count = min(len(ordered), max(LEAST, round(TAIL * len(ordered))))
    lowest = np.maximum(ordered[:count], 1e-6)
    slope = float(np.log(lowest[-1] / lowest).mean())
    fitted = float(lowest[-1]) * (frr * len(ordered) / count) ** slope
    return float(max(0.0, min(ranked, fitted)))


def calibrated(verdicts: CleanVerdicts, frr: float) -> tuple[StripThreshold, Limits]:
    """Return the threshold and the limits for STRIP's results on clean frames, and the cost of stopping early."""
    # Rounded down: a frame at the threshold is still not flagged.
    threshold_bits = math.floor(threshold_of(verdicts.values, frr) * 1e6) / 1e6
    limits = limits_of(verdicts.given, verdicts.statistic, verdicts.usual, threshold_bits)
    threshold = StripThreshold(
        threshold_bits=threshold_bits,
        frr=frr,
        statistic=verdicts.statistic,
        usual_odds_bits=[] if verdicts.usual is None else [round(bits, 4) for bits in verdicts.usual.tolist()],
        accept_after=limits.stops,
        accept_bits=limits.bits,
        accept_statistic=limits.statistic,
    )
    return threshold, limits


@torch.inference_mode()
def given_at(
    pipeline: Pipeline,
    overlays: Tensor,
    pictures: LabelledPictures,
    clamped: bool,
    table: StripThreshold,
    dropped_per_block: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """Return `given` of `clean_verdicts` alone, for the statistic of `table`: (m, N, S), m at most `KEPT`.

    Pictures that are overlays themselves are left out.
    """
    originals = torch.cat([whole_input(pipeline, frames) for frames, _ in pictures.batches(pipeline.bundle.device)])
    kept = pictures.take(_kept(_same_picture(originals, overlays)).numpy())
    parts = []
    for batch in strip_inputs(pipeline, kept, dropped_per_block):
        seeds = None if batch.seeds is None else seeds_of_sums(batch.seeds, len(overlays))
        for start in range(0, len(batch.inputs), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            sums, frames = None if seeds is None else seeds[some], batch.inputs[some]
            verdicts = overlaid_logits(frames, overlays, pipeline.bundle.logits, clamped=clamped, seeds=sums)
            parts.append(contributions(verdicts, accepted_by(table.statistic)).cpu())
            advance(len(frames))
    return torch.cat(parts)


@torch.inference_mode()
def overlay_images(pipeline: Pipeline, pictures: LabelledPictures) -> NDArray[np.uint8]:
    """Return pictures at the network's size and channels, (N, height, width, channels) uint8."""
    return np.concatenate([to_images(whole_input(pipeline, f)) for f, _ in pictures.batches(pipeline.bundle.device)])


def overlay_frames(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return the images as (N, channels, height, width) in [0, 1]."""
    return to_frames(images, device)


def usual_statistic(clamped: bool, dropped_per_block: int = 0) -> Statistic:
    """Return the statistic that separates better: the paper's for strokes, the mixture's entropy for natural pictures.

    On natural pictures the mixture separates whole frames as well as the mean entropy, and frames with dropped pixels
    far better. A clean frame also shows its spread after fewer overlays. On strokes, clean sums often keep the class of
    the bolder one. On frames with dropped pixels, unusual odds of a class are more informative than any entropy.
    """
    if dropped_per_block:
        return "odds"
    return "mean" if clamped else "mixture"


def clamps(overlays: Tensor) -> bool:
    """Return whether sums of pictures like `overlays` (N, C, H, W) in [0, 1] are clamped, by how many exceed 1."""
    exceeding = [(overlays + overlays.roll(shift, 0) > 1).float().mean() for shift in range(1, min(9, len(overlays)))]
    return bool(torch.stack(exceeding).mean() <= CLAMPED_BELOW)


def _same_picture(frames: Tensor, overlays: Tensor) -> Tensor:
    """Return where a frame (B, C, H, W) equals an overlay (N, C, H, W), to half a grey level: (B, N) bool."""
    near = torch.cdist(frames.flatten(1), overlays.flatten(1), p=math.inf)
    return near < 0.75 / 255


def _kept(own: Tensor) -> Tensor:
    """Return the positions of at most `KEPT` random frames that are not overlays, given `own` (B, N)."""
    others = torch.nonzero(~own.any(1))[:, 0].cpu()
    return others[torch.randperm(len(others), generator=torch.Generator().manual_seed(_SEED))[:KEPT]].sort().values


def _mean(given: Tensor, own: Tensor) -> Tensor:
    """Return the mean (B, S) of contributions (B, N, S), without those of a frame to itself, `own` (B, N)."""
    weight = (~own).to(given.dtype)[..., None]
    return (given * weight).sum(1) / weight.sum(1)
