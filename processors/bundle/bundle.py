"""Model bundles: a folder with `model.toml` and weights, so that users bring their own network unmodified.

    name = "scene"
    version = "1"
    format = "safetensors"               # or "torchscript", "onnx"
    weights = "weights.safetensors"
    factory = "network.py:small"         # safetensors only: a file of the bundle, or a package's, see `--factories`
    output = "logits"                    # or "probabilities", when the network ends in a softmax
    classes = ["pause", "no-entry"]

    [factory_arguments]
    classes = 2

    [input]
    height = 32
    width = 32
    channels = 3
    mean = [0.5, 0.5, 0.5]               # on the scale [0, 1], one per channel
    std = [0.25, 0.25, 0.25]
    policy = "resize"                    # or "crop", "tile": what happens to frames of another size

    [strip]                              # optional: without it no frame is checked for triggers
    overlays = "overlays.npy"            # (N, height, width, channels) uint8
    threshold_bits = 0.4                 # of whole frames
    frr = 0.01
    statistic = "mixture"                # optional: which entropy; else "mean", the paper's
    clamped = false                      # optional: whether frame + overlay is clamped to [0, 1]
    accept_after = [2, 4, 8]             # optional: a frame is accepted after so many overlays
    accept_bits = [2.1, 1.8, 1.3]        # if it reaches this

    [[strip.dropped]]                    # optional: the same for frames that lost so many of each 64 pixels
    dropped_per_block = 16
    threshold_bits = 1.2
    frr = 0.01

`pointillist lab calibrate` writes the strip tables.

Every wrong thing raises BundleError in one line, when the bundle is loaded and not when frames arrive.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from processors.bundle.formats import (
    Network,
    first_line,
    inside,
    load_onnx,
    load_safetensors,
    load_torchscript,
)
from processors.bundle.strip_table import StripSettings
from processors.stages.resample import centre_crop, resize, tiles
from processors.stages.shapes import check_frames
from schemas.errors import BundleError, StageError

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue in luma."""

_TRIED = 8
"""Pictures of noise whose outputs tell whether those are shares."""
_SHARE_ERROR = 1e-2
"""What half precision may leave of 1."""

Policy = Literal["resize", "crop", "tile"]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputSettings(_Table):
    """What the network takes: pictures (channels, height, width), normalised as (x − mean) / std."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    mean: list[_Finite]
    std: list[Annotated[_Finite, Field(gt=0)]]
    policy: Policy

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"expected {self.channels} values in {name}, one per channel, got {len(values)}")
        return self


class BundleSettings(_Table):
    """The contents of `model.toml`."""

    name: _Name
    version: _Name
    format: Literal["safetensors", "torchscript", "onnx"]
    weights: str
    factory: str | None = None
    factory_arguments: dict[str, Any] = Field(default_factory=dict)
    output: Literal["logits", "probabilities"] = "logits"
    classes: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    input: InputSettings
    strip: StripSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.format == "safetensors") != (self.factory is not None):
            got = "none" if self.factory is None else repr(self.factory)
            wanted = "a factory" if self.format == "safetensors" else "no factory"
            raise ValueError(f"format {self.format}: expected {wanted}, got {got}")
        if self.factory is None and self.factory_arguments:
            raise ValueError("factory_arguments: expected none without a factory")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: expected distinct names, got a repeated one")
        return self


@dataclass(frozen=True)
class Bundle:
    """A network ready to run on `device`.

    `model_id` is name@version+digest, the digest being 12 hexadecimal digits of the weights' SHA-256. `network` maps
    normalised pictures (B, channels, height, width) to its raw output (B, classes). `overlays` is
    (N, channels, height, width) in [0, 1], or None without a `strip` table.
    """

    model_id: str
    settings: BundleSettings
    network: Network
    overlays: Tensor | None
    device: torch.device
    mean: Tensor
    std: Tensor

    def prepare(self, frames: Tensor) -> Tensor:
        """Bring frames (B, C, H, W) in [0, 1] to the network's size and channels, without normalising.

        Gives (B, channels, height, width); under the policy `tile`, frames of another size give
        (B, tiles, channels, height, width). A grey frame is repeated for a colour network; a colour frame becomes
        luma for a grey one. Raises StageError when frames are not (B, 1 or 3, H, W).
        """
        wanted = self.settings.input
        frames = _with_channels(frames, wanted.channels)
        if frames.shape[2:] == (wanted.height, wanted.width):
            return frames
        if wanted.policy == "resize":
            return resize(frames, wanted.height, wanted.width)
        if wanted.policy == "crop":
            return centre_crop(frames, wanted.height, wanted.width)
        cut, count = tiles(frames, wanted.height, wanted.width)
        return cut.reshape(len(frames), count, *cut.shape[1:])

    def logits(self, prepared: Tensor) -> Tensor:
        """Logits (B, classes) of what `prepare` gave: of several tiles, those of the most confident one."""
        if prepared.ndim == 5:
            every = self.logits(prepared.flatten(0, 1)).view(*prepared.shape[:2], -1)
            best = every.softmax(2).amax(2).argmax(1)
            return every[torch.arange(len(every), device=every.device), best]
        output = self.network((prepared - self.mean) / self.std)
        if self.settings.output == "probabilities":
            return output.clamp_min(torch.finfo(output.dtype).tiny).log()
        return output


def _with_channels(frames: Tensor, channels: int) -> Tensor:
    check_frames(frames)
    if frames.shape[1] not in (1, 3):
        raise StageError(f"frames: expected 1 or 3 channels, got {frames.shape[1]}")
    if frames.shape[1] == channels:
        return frames
    if channels == 3:
        return frames.expand(-1, 3, -1, -1)
    return torch.einsum("bchw,c->bhw", frames, frames.new_tensor(LUMA))[:, None]


def shipped_bundle(name: str) -> Path:
    """The folder of the bundle `name` that ships with the project; raises BundleError when there is none."""
    root = Path(str(files("bundles")))
    folder = root / name
    if not (folder / "model.toml").is_file():
        have = ", ".join(sorted(path.parent.name for path in root.glob("*/model.toml"))) or "none"
        raise BundleError(f"no shipped bundle {name!r}; expected one of: {have}")
    return folder


def read_settings(folder: Path) -> BundleSettings:
    """The checked `model.toml` of `folder`; raises BundleError in one line that names the wrong keys."""
    path = folder / "model.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"expected a bundle folder with model.toml, cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: expected TOML: {first_line(error)}") from error
    try:
        return BundleSettings.model_validate(table)
    except ValidationError as error:
        raise BundleError(f"{path}: " + "; ".join(_complaint(dict(e)) for e in error.errors())) from error


def _complaint(error: dict[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key"
    got = error["input"]
    shown = f", got {got!r}" if isinstance(got, str | int | float) else ""
    return f"{place}: {message}{shown}" if place else message


def load_bundle(folder: Path, device: torch.device) -> Bundle:
    """Load, check and try the bundle in `folder` on `device`; raises BundleError in one line."""
    settings = read_settings(folder)
    try:
        weights = inside(folder, settings.weights, "weights")
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        network = _load_network(settings, weights, folder, device)
        overlays = None if settings.strip is None else _load_overlays(settings, folder).to(device)
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (settings.input.mean, settings.input.std)
        )
        model_id = f"{settings.name}@{settings.version}+{digest}"
        bundle = Bundle(model_id, settings, network, overlays, device, mean, std)
        _try(bundle)
        _check_scale(bundle)
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from error
    except OSError as error:
        raise BundleError(f"bundle {folder}: cannot read {settings.weights}: {error.strerror}") from error
    return bundle


def _load_network(settings: BundleSettings, weights: Path, folder: Path, device: torch.device) -> Network:
    if settings.format == "torchscript":
        return load_torchscript(weights, device)
    if settings.format == "onnx":
        return load_onnx(weights, device)
    assert settings.factory is not None
    network = load_safetensors(weights, settings.factory, settings.factory_arguments, folder, device)
    # Channels innermost: a sixth faster on a CPU, and the only layout that a GPU's tensor units take as it is.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs
    return network


def _load_overlays(settings: BundleSettings, folder: Path) -> Tensor:
    assert settings.strip is not None
    path = inside(folder, settings.strip.overlays, "strip.overlays")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BundleError(f"{path.name}: expected an .npy array: {first_line(error)}") from error
    wanted = settings.input.height, settings.input.width, settings.input.channels
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape[1:] != wanted or not len(array):
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise BundleError(f"{path.name}: expected uint8 (N, {', '.join(map(str, wanted))}), got {got}")
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).float() / 255


@torch.inference_mode()
def _try(bundle: Bundle) -> None:
    """Run zeros through the network: what does not work now would fail on every frame."""
    wanted = bundle.settings.input
    shape = (2, wanted.channels, wanted.height, wanted.width)
    try:
        output: object = bundle.logits(torch.zeros(shape, device=bundle.device))
    except Exception as error:  # whatever the network's own code raises
        raise BundleError(
            f"the network does not accept the stated input {shape}: {type(error).__name__}: {first_line(error)}"
        ) from error
    expected = (2, len(bundle.settings.classes))
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BundleError(f"expected an output of shape {expected} for {expected[1]} classes, got {got}")
    if not bool(output.isfinite().all()):
        raise BundleError("expected finite logits for a black picture, got NaN or infinity")


@torch.inference_mode()
def _check_scale(bundle: Bundle) -> None:
    """Refuse shares given as logits: a second softmax makes every verdict look unsure, and STRIP blind."""
    wanted = bundle.settings.input
    if bundle.settings.output != "logits":
        return
    shape = (_TRIED, wanted.channels, wanted.height, wanted.width)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(bundle.device)
    output = bundle.network((noise - bundle.mean) / bundle.std).float()
    if bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() < _SHARE_ERROR).all()):
        raise BundleError(
            'the network ends in a softmax: its outputs are shares that sum to 1; expected output = "probabilities" in '
            "model.toml"
        )
