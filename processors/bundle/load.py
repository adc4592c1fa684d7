"""Loading of a bundle: the folder becomes a network that has run once, and faults appear before frames arrive."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundles import named_bundles
from processors.bundle.bundle import Bundle
from processors.bundle.clean_features import load_features, try_features
from processors.bundle.code import check_code
from processors.bundle.formats import Network, inside, load_onnx, load_safetensors, load_torchscript
from processors.bundle.limits import check_archive, check_npy, check_safetensors, check_size
from processors.bundle.model_toml import BundleSettings, read_settings
from processors.bundle.tflite import load_tflite
from processors.stages.discrepancy import LEAST_ROWS, MOST_ROWS, PICTURE_FEATURES, Features, answer_features
from processors.stages.preprocess import Stage
from processors.stages.preprocess.contract import Place
from processors.stages.scaled_norms import ScaledNorms, batch_norms
from schemas.errors import BundleError, first_line

_TRIED = 8
"""Number of noise pictures whose outputs show whether the network returns probabilities."""
_SHARE_ERROR = 1e-2
"""Largest deviation of a sum of probabilities from 1 in half precision."""
_CALIBRATION = range(16, 1025)
"""Allowed number of calibration pictures: fewer miss parts of the range, more add nothing."""
_DRIFT = range(LEAST_ROWS, MOST_ROWS + 1)
"""Allowed number of rows of the drift reference."""


def shipped_bundle(name: str) -> Path:
    """Return the folder of the shipped or made bundle `name`; BundleError if there is none."""
    have = named_bundles()
    if name not in have:
        raise BundleError(f"bundle: expected one of {', '.join(have)}, got {name!r}. Correct it, or give a folder.")
    return have[name]


def load_bundle(folder: Path, device: torch.device, *, vouched: bool = False) -> Bundle:
    """Load, check and try the bundle in `folder` on `device`; raises BundleError in one line.

    `vouched` lets the bundle's own code run without the permission that local bundles need; see
    `processors.bundle.code`.
    """
    settings = read_settings(folder)
    try:
        check_code(settings, folder, vouched)
        weights = inside(folder, settings.weights, "weights")
        check_size(weights)
        stages = _load_stages(settings, folder, device)
        digest = _digest(settings, weights, folder)
        network = _load_network(settings, weights, folder, device)
        overlays = None if settings.strip is None else _load_overlays(settings, folder).to(device)
        calibration = None if settings.calibration is None else _load_calibration(settings, folder).to(device)
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (settings.input.mean, settings.input.std)
        )
        model_id = f"{settings.name}@{settings.version}+{digest}"
        groups = _group_matrix(settings).to(device) if settings.groups else None
        drift = None if settings.drift is None else _load_drift(settings, folder)
        features = load_features(settings, network, folder, device)
        scaled = _scaled(settings, network)
        bundle = Bundle(
            model_id, settings, network, overlays, device, mean, std, stages, calibration, groups, drift, features,
            scaled,
        )  # fmt: skip
        _try(bundle)
        _check_scale(bundle)
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from error
    except OSError as error:
        raise BundleError(
            f"bundle {folder}: expected a readable {settings.weights}, got {error.strerror}. Correct the file's rights."
        ) from error
    return bundle


def _digest(settings: BundleSettings, weights: Path, folder: Path) -> str:
    """Return 12 hexadecimal digits over everything that decides verdicts: the weights, the limit of unsure verdicts,
    temperature, groups, the stages' parameters and files.

    With none of those, and in float32, it is the digest of the weights alone.
    """
    digest = hashlib.sha256(weights.read_bytes())
    if settings.unsure_below:
        digest.update(f"unsure_below {settings.unsure_below}".encode())
    if settings.temperature != 1:
        digest.update(f"temperature {settings.temperature}".encode())
    if settings.groups:
        digest.update(json.dumps(settings.groups).encode())
    if settings.calibration is not None:
        calibration = inside(folder, settings.calibration, "calibration").read_bytes()
        digest.update(settings.precision.encode() + hashlib.sha256(calibration).digest())
    for stage in settings.preprocess:
        digest.update(json.dumps(stage.model_dump(mode="json"), sort_keys=True).encode())
        for name in stage.files:
            digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()[:12]


def _group_matrix(settings: BundleSettings) -> Tensor:
    """Return (classes, groups) float32, 1 where the class belongs to the group."""
    places = {name: index for index, name in enumerate(settings.classes)}
    matrix = torch.zeros(len(settings.classes), len(settings.groups))
    for number, names in enumerate(settings.groups.values()):
        matrix[[places[name] for name in names], number] = 1
    return matrix


def _load_stages(settings: BundleSettings, folder: Path, device: torch.device) -> tuple[Stage, ...]:
    wanted = settings.input
    stages = []
    for number, stage in enumerate(settings.preprocess):
        field = f"preprocess.{number}"
        place = Place(wanted.channels, wanted.height, wanted.width, device, partial(inside, folder, field=field))
        try:
            stages.append(stage.load(place))
        except BundleError as error:
            message = str(error)
            raise BundleError(message if message.startswith(field) else f"{field}: {message}") from error
    return tuple(stages)


def _load_network(settings: BundleSettings, weights: Path, folder: Path, device: torch.device) -> Network:
    if settings.format == "torchscript":
        check_archive(weights)
        return load_torchscript(weights, device)
    if settings.format == "onnx":
        return load_onnx(weights, device)
    if settings.format == "tflite":
        return load_tflite(weights)
    assert settings.factory is not None
    check_safetensors(weights)
    network = load_safetensors(weights, settings.factory, settings.factory_arguments, folder, device)
    # Channels innermost: a sixth faster on a CPU, and the only native layout of a GPU's tensor units.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs
    return network


def _scaled(settings: BundleSettings, network: Network) -> ScaledNorms | None:
    """Return the amplified forms of the network; None without `strip.combined.norms`."""
    combined = None if settings.strip is None else settings.strip.combined
    if combined is None or combined.norms is None:
        return None
    assert isinstance(network, nn.Module)
    if (have := len(batch_norms(network))) < combined.norms:
        raise BundleError(
            f"strip.combined.norms: expected at most {have}, the network's batch norms, got {combined.norms}. "
            "Run `pointillist lab calibrate --combined`."
        )
    return ScaledNorms.of(network, combined.norms)


def _load_overlays(settings: BundleSettings, folder: Path) -> Tensor:
    assert settings.strip is not None
    return _load_pictures(settings, inside(folder, settings.strip.overlays, "strip.overlays"))


def _load_calibration(settings: BundleSettings, folder: Path) -> Tensor:
    assert settings.calibration is not None
    pictures = _load_pictures(settings, inside(folder, settings.calibration, "calibration"))
    if len(pictures) not in _CALIBRATION:
        bounds = f"{_CALIBRATION.start} to {_CALIBRATION.stop - 1}"
        raise BundleError(f"{settings.calibration}: expected {bounds} pictures, got {len(pictures)}. Correct the file.")
    return pictures


def _load_drift(settings: BundleSettings, folder: Path) -> Features:
    """Load the reference of the drift statistics."""
    assert settings.drift is not None
    path = inside(folder, settings.drift.reference, "drift.reference")
    rows = _load_array(path)
    columns = PICTURE_FEATURES + answer_features(len(settings.classes))
    fits = rows.dtype == np.float32 and rows.ndim == 2 and rows.shape[1] == columns and len(rows) in _DRIFT
    if not fits or not np.isfinite(rows).all():
        bounds = f"{_DRIFT.start} to {_DRIFT.stop - 1}"
        raise BundleError(
            f"{path.name}: expected finite float32 ({bounds}, {columns}), got {rows.dtype} {rows.shape}. Run "
            "`pointillist bundle calibrate`."
        )
    return Features(*torch.from_numpy(np.ascontiguousarray(rows)).tensor_split([PICTURE_FEATURES], 1))


def _load_pictures(settings: BundleSettings, path: Path) -> Tensor:
    """Load pictures (N, channels, height, width) in [0, 1] from an .npy file: at least one, of the network's size."""
    array = _load_array(path)
    wanted = settings.input.height, settings.input.width, settings.input.channels
    if array.dtype != np.uint8 or array.shape[1:] != wanted or not len(array):
        raise BundleError(
            f"{path.name}: expected uint8 (N, {', '.join(map(str, wanted))}), got {array.dtype} {array.shape}. "
            "Correct the file."
        )
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).float() / 255


def _load_array(path: Path) -> NDArray[Any]:
    check_npy(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BundleError(
            f"{path.name}: expected an .npy array, got {first_line(error)}. Save the array again."
        ) from error
    if not isinstance(array, np.ndarray):
        raise BundleError(f"{path.name}: expected an .npy array, got an archive. Save the array again.")
    return array


@torch.inference_mode()
def _try(bundle: Bundle) -> None:
    """Run zeros through the network: a fault here would fail every frame."""
    wanted = bundle.settings.input
    shape = (2, wanted.channels, wanted.height, wanted.width)
    try:
        output: object = bundle.logits(torch.zeros(shape, device=bundle.device))
    except Exception as error:  # a network's own code may raise anything
        raise BundleError(
            f"the network: expected it to accept the stated input {shape}, got {type(error).__name__}: "
            f"{first_line(error)}. Correct input in model.toml."
        ) from error
    expected = (2, len(bundle.settings.classes))
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BundleError(
            f"the network: expected an output of shape {expected} for {expected[1]} classes, got {got}. "
            "Correct classes in model.toml."
        )
    if not bool(output.isfinite().all()):
        raise BundleError(
            "the network: expected finite logits for a black picture, got NaN or infinity. Correct its weights."
        )
    black = bundle.normalised(torch.zeros(shape, device=bundle.device))
    if bundle.features is not None:
        try_features(bundle.features, black)
    if bundle.scaled is not None:
        for form in bundle.scaled.forms:
            form(black)


@torch.inference_mode()
def _check_scale(bundle: Bundle) -> None:
    """Reject probabilities passed off as logits: a second softmax makes every verdict unsure, and STRIP useless."""
    wanted = bundle.settings.input
    if bundle.settings.output != "logits":
        return
    shape = (_TRIED, wanted.channels, wanted.height, wanted.width)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(bundle.device)
    output = bundle.network((noise - bundle.mean) / bundle.std).float()
    if bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() < _SHARE_ERROR).all()):
        raise BundleError(
            "the network: expected logits, got outputs of a softmax, which sum to 1. Set output = "
            '"probabilities" in model.toml.'
        )
