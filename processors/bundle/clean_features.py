"""Loading of the features of clean frames that belong to a bundle with a `strip.typicality` table."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from processors.bundle.formats import Network, inside
from processors.bundle.limits import check_safetensors
from processors.bundle.model_toml import BundleSettings
from processors.stages.typicality import CleanFeatures
from schemas.errors import BundleError, StageError, first_line

_AGAIN: Final = "Run `pointillist lab calibrate --combined`."


def load_features(
    settings: BundleSettings, network: Network, folder: Path, device: torch.device
) -> CleanFeatures | None:
    """Return the features of clean frames of a bundle's `network`; None without the table. Raises BundleError."""
    table = None if settings.strip is None else settings.strip.typicality
    if table is None:
        return None
    assert isinstance(network, nn.Module)
    path, classes = inside(folder, table.features, "strip.typicality.features"), len(settings.classes)
    check_safetensors(path)
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name}: expected a safetensors file, got {first_line(error)}. {_AGAIN}") from error
    means, known, whitening = (found.get(name, torch.empty(0)) for name in ("means", "known", "whitening"))
    columns = means.shape[-1]
    if (
        not columns
        or (means.shape, known.shape) != ((classes, columns), (classes,))
        or (whitening.ndim, len(whitening)) != (2, columns)
        or not all(bool(each.isfinite().all()) for each in (means, known, whitening))
    ):
        raise BundleError(
            f"{path.name}: expected finite means ({classes}, D), known ({classes},) and whitening (D, K), got "
            f"{', '.join(f'{name} {tuple(each.shape)}' for name, each in sorted(found.items())) or 'nothing'}. {_AGAIN}"
        )
    tensors = means.float().to(device), known.bool().to(device), whitening.float().to(device)
    return CleanFeatures(network, tuple(table.layers), *tensors, table.log_mean, table.log_spread)


def try_features(features: CleanFeatures, pictures: Tensor) -> None:
    """Compute the typicality of normalised pictures once: a fault here would fail every probe. Raises BundleError."""
    try:
        features.typicality(pictures)
    except (StageError, RuntimeError) as error:
        raise BundleError(
            f"strip.typicality: expected features of the layers {', '.join(features.layers)}, got "
            f"{first_line(error)}. {_AGAIN}"
        ) from error
