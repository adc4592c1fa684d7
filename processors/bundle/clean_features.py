"""Loading of the features of clean frames that belong to a bundle with a `strip.typicality` table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from processors.bundle.formats import Network, inside
from processors.bundle.limits import check_safetensors
from processors.bundle.model_toml import BundleSettings
from processors.stages.layer_disagreement import Discriminant
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
    known = found.get("known", torch.empty(0))
    pairs = [_pair(found, each) for each in ("", *(f"_{place}" for place in range(len(table.earlier))))]
    if known.shape != (classes,) or not all(_fits(*pair, classes) for pair in pairs):
        raise BundleError(
            f"{path.name}: expected known ({classes},), and finite means ({classes}, D) and whitening (D, K) for the "
            f"features and for each of {len(table.earlier)} earlier layers, got "
            f"{', '.join(f'{name} {tuple(each.shape)}' for name, each in sorted(found.items())) or 'nothing'}. {_AGAIN}"
        )
    (means, whitening), *earlier = (tuple(each.float().to(device) for each in pair) for pair in pairs)
    return CleanFeatures(
        network, tuple(table.layers), means, known.bool().to(device), whitening, table.log_mean, table.log_spread,
        tuple(Discriminant(layer, *pair) for layer, pair in zip(table.earlier, earlier, strict=True)),
    )  # fmt: skip


def _pair(found: Mapping[str, Tensor], suffix: str) -> tuple[Tensor, Tensor]:
    """Return the means and the whitening of this suffix; empty if they are missing."""
    nothing = torch.empty(0)
    return found.get(f"means{suffix}", nothing), found.get(f"whitening{suffix}", nothing)


def _fits(means: Tensor, whitening: Tensor, classes: int) -> bool:
    columns = means.shape[-1]
    return (
        columns > 0
        and means.shape == (classes, columns)
        and (whitening.ndim, len(whitening)) == (2, columns)
        and bool(means.isfinite().all() and whitening.isfinite().all())
    )


def try_features(features: CleanFeatures, pictures: Tensor) -> None:
    """Compute the statistics of normalised pictures once: a fault here would fail every probe. Raises BundleError."""
    layers = (*features.layers, *(each.layer for each in features.discriminants))
    try:
        features.values(pictures)
    except (StageError, RuntimeError) as error:
        raise BundleError(
            f"strip.typicality: expected features of the layers {', '.join(layers)}, got {first_line(error)}. {_AGAIN}"
        ) from error
