"""PSNR of the reconstructions on clean pictures, with the cameras' spread masks and with uniform ones."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures
from lab.experiments.super_iot.rows import QualityRow
from lab.masks import random_masks
from lab.provenance import made_by
from lab.restoration.psnr import psnr_db
from lab.statistics import mean_interval
from processors.stages.drop import drop
from processors.stages.modes import Mode
from processors.stages.reconstruct import reconstruct

MODES: Final[tuple[Mode, ...]] = ("default", "paper", "plate")
MASKS: Final = ("spread", "uniform")


def quality_row(
    pictures: LabelledPictures,
    mode: Mode,
    masks: str,
    ratio: float,
    seed: int,
    device: torch.device,
    cache: Cache,
) -> QualityRow:
    """Return the mean PSNR over the pictures, with one mask each, and its interval."""
    made_from = digest(made_by(__name__), mode, masks, ratio, seed, pictures.images.shape, pictures.images.tobytes())
    name = f"quality/{mode}-{masks}-r{ratio:g}-{len(pictures)}"
    found = cache.get(name, made_from, lambda: _measure(pictures, mode, masks == "spread", ratio, seed, device))
    interval = mean_interval(found["psnr"].astype(np.float64))
    return QualityRow(mode, masks, ratio, len(pictures), *interval)


@torch.inference_mode()
def _measure(
    pictures: LabelledPictures, mode: Mode, spread: bool, ratio: float, seed: int, device: torch.device
) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for clean, _ in pictures.batches(device):
        height, width = clean.shape[2:]
        kept = random_masks(len(clean), height, width, ratio, generator, spread).to(device)
        found.append(psnr_db(reconstruct(drop(clean, kept), kept, mode), clean).cpu().numpy())
    return {"psnr": np.concatenate(found)}
