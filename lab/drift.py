"""The drift reference of a bundle: features of clean pictures and of the verdicts on them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.masks import random_masks
from lab.strip.table import replace_file, write_table
from processors.bundle import Bundle, DriftSettings
from processors.pipeline import Pipeline, deciding_pictures
from processors.stages.discrepancy import LEAST_ROWS, MOST_ROWS, features_of
from schemas.errors import ConfigError

DRIFT_FILE: Final = "drift.npy"
_DROP_RATIO: Final = 0.25


def write_drift(folder: Path, bundle: Bundle, pictures: LabelledPictures) -> int:
    """Write the reference and its table into the bundle in `folder`; return the number of pictures in it.

    `bundle` is the loaded bundle. At most `MOST_ROWS` pictures are used, evenly spread. Raises ConfigError for fewer
    than `LEAST_ROWS`.
    """
    rows = drift_rows(bundle, pictures)
    content = io.BytesIO()
    np.save(content, rows)
    replace_file(folder / DRIFT_FILE, content.getvalue())
    write_table(folder, "drift", DriftSettings(reference=DRIFT_FILE), f'[drift]\nreference = "{DRIFT_FILE}"\n')
    return len(rows)


@torch.inference_mode()
def drift_rows(bundle: Bundle, pictures: LabelledPictures) -> NDArray[np.float32]:
    """Return (N, features) of pictures behind a drop of a quarter, through the chain that runs live."""
    if len(pictures) < LEAST_ROWS:
        raise ConfigError(
            f"pictures: expected at least {LEAST_ROWS} for a drift reference, got {len(pictures)}. Add pictures."
        )
    places = np.linspace(0, len(pictures) - 1, min(len(pictures), MOST_ROWS)).astype(np.intp)
    pipeline, generator, rows = Pipeline(bundle), torch.Generator().manual_seed(0), []
    for frames, _ in pictures.take(places).batches(bundle.device):
        kept = random_masks(len(frames), frames.shape[2], frames.shape[3], _DROP_RATIO, generator).to(frames.device)
        seen, rebuilt = pipeline.network_input(frames * kept, kept)
        seeds = bundle.seeds(len(frames), generator)
        logits = bundle.logits(seen, seeds).float() / bundle.settings.temperature
        shown = deciding_pictures(pipeline, seen, rebuilt, seeds)
        rows.append(torch.cat(features_of(shown, logits), 1).cpu().numpy())
    return np.concatenate(rows)
