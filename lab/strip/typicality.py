"""The features of clean frames, from which the typicality of a probe is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from lab.data import LabelledPictures
from lab.strip.calibrate import whole_input
from processors.bundle import Bundle, Typicality
from processors.pipeline import Pipeline
from processors.stages.typicality import CleanFeatures, distances, tail, watched
from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing

LAYERS: Final = 2
"""The last layers of the network whose channel means are the features."""
LEAST: Final = 8
"""Fewest clean frames of a label for which its features are known."""
MOST: Final = 512
"""Most features. More are mixed into this many by random directions, which hardly changes distances."""
FOLDS: Final = 10
FEATURES_FILE: Final = "features"
_NORMS: Final = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
_WEIGHTED: Final = (nn.modules.conv._ConvNd, nn.Linear)
_FLAT: Final = 1e-3
"""Least deviation of a feature, as a share of the median one: a channel that never changes is no measure."""


class Fitted(NamedTuple):
    """Clean features, and the typicality (n,) of the pictures that they come from, each judged by the others; 1 for a
    label with too few pictures."""

    features: CleanFeatures
    typicality: NDArray[np.float64]


def feature_layers(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of the layers whose channel means are the features: the last `LAYERS` that normalise.

    Without any, it is the last convolutions and linear layers before the one that returns the logits. A network without
    those, or in another format than `safetensors`, has no such layers.
    """
    network, called = bundle.network, list[str]()
    if not isinstance(network, nn.Module) or bundle.settings.format != "safetensors":
        return ()
    kinds = {name: module for name, module in network.named_modules() if isinstance(module, (*_NORMS, *_WEIGHTED))}
    hooks = [module.register_forward_hook(lambda *_, name=name: called.append(name)) for name, module in kinds.items()]
    wanted = bundle.settings.input
    with torch.inference_mode():
        network(torch.zeros(1, wanted.channels, wanted.height, wanted.width, device=bundle.device))
    for hook in hooks:
        hook.remove()
    # A layer that runs twice counts at its last place.
    order = list(dict.fromkeys(reversed(called)))[::-1]
    norms = [name for name in order if isinstance(kinds[name], _NORMS)]
    found = norms or [name for name in order if isinstance(kinds[name], _WEIGHTED)][:-1]
    return tuple(found[-LAYERS:])


@torch.inference_mode()
def fitted(
    pipeline: Pipeline, pictures: LabelledPictures, advance: Callable[[int], object] = lambda count: None
) -> Fitted | None:
    """Return the features of clean `pictures`, seen as whole frames, by the labels that the network gives them.

    None if the network has no `feature_layers`. Raises ConfigError if too few pictures have the same label.
    """
    bundle = pipeline.bundle
    if not (layers := feature_layers(bundle)):
        return None
    assert isinstance(bundle.network, nn.Module)
    rows, labels, draws = [], [], torch.Generator().manual_seed(0)
    with watched(bundle.network, layers) as found:
        for frames, _ in pictures.batches(bundle.device):
            inputs, seeds = whole_input(pipeline, frames), bundle.seeds(len(frames), draws)
            labels.append(bundle.network(bundle.normalised(bundle.preprocess(inputs, seeds))).argmax(1).cpu())
            rows.append(torch.cat([found[name] for name in layers], 1).cpu())
            advance(len(frames))
    features, given, classes = torch.cat(rows).double(), torch.cat(labels), len(bundle.settings.classes)
    known = torch.bincount(given, minlength=classes) >= LEAST
    if not known.any():
        raise ConfigError(
            f"clean pictures: expected at least {LEAST} with the same label, got "
            f"{int(torch.bincount(given).max())}. Give more."
        )
    judged = known[given]
    features, given = features[judged], given[judged]
    lengths, folds = torch.zeros(len(given), dtype=torch.float64), torch.arange(len(given)) % FOLDS
    for fold in range(FOLDS):
        own = folds == fold
        means, whitening = _fit(features[~own], given[~own], classes)
        lengths[own] = distances(features[own], given[own], means, whitening)
    means, whitening = _fit(features, given, classes)
    logarithms = lengths.clamp_min(torch.finfo(torch.float32).tiny).log()
    log_mean, log_spread = float(logarithms.mean()), max(float(logarithms.std()), 1e-3)
    own, mapped, seen = (each.to(bundle.device) for each in (means.float(), whitening.float(), known))
    clean = CleanFeatures(bundle.network, layers, own, seen, mapped, log_mean, log_spread)
    typicality = torch.ones(len(judged), dtype=torch.float64)
    typicality[judged] = tail(lengths, log_mean, log_spread).double()
    return Fitted(clean, typicality.numpy())


def _fit(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the means (classes, D) of features (n, D) by their labels (n,), and the whitening (D, K).

    The covariance is that of the differences from the means, shrunk towards its diagonal.
    """
    member = torch.nn.functional.one_hot(labels, classes).double()
    means = (member.T @ features) / member.sum(0).clamp_min(1)[:, None]
    scaled, spreads = _standardised(features - means[labels])
    chance = torch.Generator().manual_seed(0)
    mixing = torch.eye(scaled.shape[1], dtype=torch.float64)
    if scaled.shape[1] > MOST:
        mixing = torch.linalg.qr(torch.randn(scaled.shape[1], MOST, dtype=torch.float64, generator=chance)).Q
    covariance = shrunk(scaled @ mixing)
    return means, (mixing / spreads[:, None]) @ torch.linalg.cholesky(torch.linalg.inv(covariance))


def _standardised(rows: Tensor) -> tuple[Tensor, Tensor]:
    spreads = rows.std(0)
    positive = spreads[spreads > 0]
    least = _FLAT * float(positive.median()) if len(positive) else 1.0
    spreads = spreads.clamp_min(least)
    return rows / spreads, spreads


def shrunk(rows: Tensor) -> Tensor:
    """Return the covariance (K, K) of centred rows (n, K), shrunk towards a multiple of the identity.

    The weight is that of Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", lemma 3.1 and section 3.2.
    """
    count, columns = rows.shape
    sample = rows.T @ rows / count
    level = sample.diagonal().mean()
    target = level * torch.eye(columns, dtype=rows.dtype)
    apart = (sample - target).square().sum()
    squares = rows.square()
    error = ((squares.T @ squares / count) - sample.square()).sum() / count
    weight = float((error / apart.clamp_min(1e-30)).clamp(1e-3, 1))
    return (1 - weight) * sample + weight * target


@torch.inference_mode()
def typicalities(
    pipeline: Pipeline,
    features: CleanFeatures,
    pictures: LabelledPictures,
    advance: Callable[[int], object] = lambda count: None,
    *,
    seed: int = 5,
) -> NDArray[np.float64]:
    """Return the typicality (n,) of whole pictures, with draws from `seed`."""
    bundle, draws, found = pipeline.bundle, torch.Generator().manual_seed(seed), []
    for frames, _ in pictures.batches(bundle.device):
        inputs, seeds = whole_input(pipeline, frames), bundle.seeds(len(frames), draws)
        found.append(features.typicality(bundle.normalised(bundle.preprocess(inputs, seeds))))
        advance(len(frames))
    return torch.cat(found).double().cpu().numpy()


def write_features(folder: Path, clean: CleanFeatures) -> Typicality:
    """Write clean features into the bundle in `folder` under a new name, and return their table."""
    data = save(
        {
            name: tensor.cpu().contiguous()
            for name, tensor in (("means", clean.means), ("known", clean.known), ("whitening", clean.whitening))
        }
    )
    path = folder / f"{FEATURES_FILE}-{hashlib.sha256(data).hexdigest()[:8]}.safetensors"
    with replacing(path) as fresh:
        fresh.write_bytes(data)
    return Typicality(
        features=path.name, layers=list(clean.layers), log_mean=clean.log_mean, log_spread=clean.log_spread
    )
