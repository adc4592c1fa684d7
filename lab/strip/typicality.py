"""The features of clean frames: the typicality of a probe and the disagreement of earlier layers come from them."""

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
from processors.bundle.strip_table import LAYER_DISAGREEMENT, TYPICALITY
from processors.pipeline import Pipeline
from processors.stages.layer_disagreement import Discriminant, layer_doubt
from processors.stages.typicality import CleanFeatures, FeatureValues, distances, tail, watched
from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing

LAYERS: Final = 2
"""The last layers of the network whose channel means are the features."""
EARLIER: Final = 3
"""The layers before those, whose discriminants may disagree with the label."""
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
    """Clean features, and the `values` (n,) of their statistics, by name, on the pictures that they come from.

    Each picture is judged by the others. One with a label of too few pictures is not rare.
    """

    features: CleanFeatures
    values: dict[str, NDArray[np.float64]]


class FeatureLayers(NamedTuple):
    """The names of the `last` layers, whose channel means are the features, and of those before them."""

    last: tuple[str, ...]
    earlier: tuple[str, ...]


def feature_layers(bundle: Bundle) -> FeatureLayers:
    """Return the last `LAYERS` layers that normalise, and at most `EARLIER` of those before.

    Without any, they are convolutions and linear layers before the one that returns the logits. A network without
    those, or in another format than `safetensors`, has no such layers.
    """
    network, called = bundle.network, list[str]()
    if not isinstance(network, nn.Module) or bundle.settings.format != "safetensors":
        return FeatureLayers((), ())
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
    return FeatureLayers(tuple(found[-LAYERS:]), tuple(found[:-LAYERS][-EARLIER:]))


@torch.inference_mode()
def fitted(
    pipeline: Pipeline, pictures: LabelledPictures, advance: Callable[[int], object] = lambda count: None
) -> Fitted | None:
    """Return the features of clean `pictures`, seen as whole frames, by the labels that the network gives them.

    None if the network has no `feature_layers`. Raises ConfigError if too few pictures have the same label.
    """
    bundle = pipeline.bundle
    last, earlier = feature_layers(bundle)
    if not last:
        return None
    assert isinstance(bundle.network, nn.Module)
    rows, labels, draws = list[dict[str, Tensor]](), [], torch.Generator().manual_seed(0)
    for frames, _ in pictures.batches(bundle.device):
        inputs, seeds = whole_input(pipeline, frames), bundle.seeds(len(frames), draws)
        with watched(bundle.network, (*last, *earlier)) as found:
            labels.append(bundle.network(bundle.normalised(bundle.preprocess(inputs, seeds))).argmax(1).cpu())
        rows.append({name: each.double().cpu() for name, each in found.items()})
        advance(len(frames))
    given, classes = torch.cat(labels), len(bundle.settings.classes)
    known = torch.bincount(given, minlength=classes) >= LEAST
    if not known.any():
        raise ConfigError(
            f"clean pictures: expected at least {LEAST} with the same label, got "
            f"{int(torch.bincount(given).max())}. Give more."
        )
    judged = known[given]
    own = given[judged]
    by_layer = {name: torch.cat([each[name] for each in rows])[judged] for name in (*last, *earlier)}
    features = torch.cat([by_layer[name] for name in last], 1)

    def fits(some: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Discriminant, ...]]:
        """Return the means and the whitening by these pictures (n,) bool, and the discriminants."""
        return _fit(features[some], own[some], classes), tuple(
            Discriminant(name, *_fit(by_layer[name][some], own[some], classes)) for name in earlier
        )

    lengths, doubts = (torch.zeros(len(own), dtype=torch.float64) for _ in range(2))
    folds = torch.arange(len(own)) % FOLDS
    for fold in range(FOLDS):
        out = folds == fold
        usual, discriminants = fits(~out)
        lengths[out] = distances(features[out], own[out], *usual)
        if earlier:
            doubts[out] = layer_doubt([by_layer[name][out] for name in earlier], own[out], known, discriminants)
    usual, discriminants = fits(torch.ones_like(folds, dtype=torch.bool))
    logarithms = lengths.clamp_min(torch.finfo(torch.float32).tiny).log()
    log_mean, log_spread = float(logarithms.mean()), max(float(logarithms.std()), 1e-3)
    values = FeatureValues(tail(lengths, log_mean, log_spread), doubts if earlier else None)
    at = bundle.device
    means, whitening = (each.float().to(at) for each in usual)
    moved = (
        Discriminant(each.layer, each.means.float().to(at), each.whitening.float().to(at)) for each in discriminants
    )
    clean = CleanFeatures(
        bundle.network, last, means, known.to(at), whitening, log_mean, log_spread, tuple(moved)
    )  # fmt: skip
    return Fitted(clean, {name: _of_all(each, judged) for name, each in by_name(values).items()})


def by_name(values: FeatureValues) -> dict[str, Tensor]:
    """Return the statistics that the features allow."""
    found = {TYPICALITY: values.typicality, LAYER_DISAGREEMENT: values.layer_doubt}
    return {name: each for name, each in found.items() if each is not None}


def _of_all(values: Tensor, judged: Tensor) -> NDArray[np.float64]:
    """Return the values of all pictures (n,), those that are not `judged` (n,) with the largest one."""
    found = torch.full((len(judged),), float(values.max()), dtype=torch.float64)
    found[judged] = values.double()
    return found.numpy()


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
def feature_values(
    pipeline: Pipeline,
    features: CleanFeatures,
    pictures: LabelledPictures,
    advance: Callable[[int], object] = lambda count: None,
    *,
    seed: int = 5,
) -> dict[str, NDArray[np.float64]]:
    """Return the values (n,) of the statistics by features, by name, for whole pictures, with draws from `seed`."""
    bundle, draws, found = pipeline.bundle, torch.Generator().manual_seed(seed), list[dict[str, Tensor]]()
    for frames, _ in pictures.batches(bundle.device):
        inputs, seeds = whole_input(pipeline, frames), bundle.seeds(len(frames), draws)
        found.append(by_name(features.values(bundle.normalised(bundle.preprocess(inputs, seeds)))))
        advance(len(frames))
    return {name: torch.cat([each[name] for each in found]).double().cpu().numpy() for name in found[0]}


def write_features(folder: Path, clean: CleanFeatures) -> Typicality:
    """Write clean features into the bundle in `folder` under a new name, and return their table."""
    tensors = {"means": clean.means, "known": clean.known, "whitening": clean.whitening}
    for place, each in enumerate(clean.discriminants):
        tensors |= {f"means_{place}": each.means, f"whitening_{place}": each.whitening}
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    path = folder / f"{FEATURES_FILE}-{hashlib.sha256(data).hexdigest()[:8]}.safetensors"
    with replacing(path) as fresh:
        fresh.write_bytes(data)
    return Typicality(
        features=path.name, layers=list(clean.layers), log_mean=clean.log_mean, log_spread=clean.log_spread,
        earlier=[each.layer for each in clean.discriminants],
    )  # fmt: skip
