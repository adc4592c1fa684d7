"""Options of `pointillist bundle create` that describe the network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from infra.bundling.bundle_request import BundleRequest, Origin


@dataclass(frozen=True)
class NetworkOptions:
    """A network in one of several formats, and what its file does not state."""

    onnx: Annotated[Path | None, typer.Option(help="File of an ONNX classifier.")] = None
    tflite: Annotated[Path | None, typer.Option(help="File of a TensorFlow Lite classifier.")] = None
    torchscript: Annotated[
        Path | None, typer.Option(help="File of a TorchScript classifier. Requires --allow-code.")
    ] = None
    torchvision: Annotated[str | None, typer.Option(help="Name of a classifier of torchvision, such as resnet18.")] = (
        None
    )
    timm: Annotated[str | None, typer.Option(help="Name of a classifier of timm, such as resnet18.")] = None
    imagenet: Annotated[
        bool,
        typer.Option(
            "--imagenet", help="Use the general network of 1,000 ImageNet classes, whose weights are installed."
        ),
    ] = False
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with the class names in the order of the outputs: one name a line, or a JSON list or object."
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            help="Normalisation of the input: imagenet, half, unit, bytes or cifar10. Default: as the weights state it."
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(help="Mean of each channel on the scale 0 to 1, such as .485,.456,.406, in place of --preset."),
    ] = None
    std: Annotated[
        str | None, typer.Option(help="Standard deviation of each channel on the scale 0 to 1. Required with --mean.")
    ] = None
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clean pictures, best in a sub-folder for each class. They calibrate STRIP and check "
            "the description."
        ),
    ] = None
    weights: Annotated[
        str,
        typer.Option(
            help="With --torchvision or --timm: default (the library's weights), random, or a file with a state dict."
        ),
    ] = "default"
    size: Annotated[
        str | None, typer.Option(help="Input size WIDTHxHEIGHT. Required if the network's file does not state it.")
    ] = None
    channels: Annotated[
        int | None, typer.Option(help="With --torchscript: number of input channels, 1 or 3. Default: 3.")
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            help="Treatment of frames of another size: resize, crop, tile or motion. Default: motion with "
            "--imagenet, else resize."
        ),
    ] = None
    name: Annotated[
        str | None, typer.Option(help="Name of the model, shown in verdicts. Default: the folder's name.")
    ] = None
    version: Annotated[str, typer.Option(help="Version of the model, shown in verdicts.")] = "1"
    strip_seconds: Annotated[
        float, typer.Option(help="Approximate seconds for the calibration of STRIP; 0 leaves STRIP out.", min=0)
    ] = 6.0
    unsure: Annotated[
        bool | None,
        typer.Option(
            "--unsure/--no-unsure",
            help="Set the confidence below which a verdict reads `unsure` from the pictures of --calibrate. "
            "Default: only with --imagenet.",
        ),
    ] = None

    def to_request(self) -> BundleRequest:
        """Check the options, and return the request that they make. Raises ConfigError."""
        from infra.bundling.bundle_request import BundleRequest
        from infra.bundling.names import check_name
        from infra.bundling.presets import normalisation
        from infra.cli.lab.shared import chosen
        from processors.bundle.model_toml import Policy

        origin, network = _one_of(
            onnx=self.onnx, tflite=self.tflite, torchscript=self.torchscript, torchvision=self.torchvision,
            timm=self.timm, imagenet="EfficientNet-Lite0" if self.imagenet else None,
        )  # fmt: skip
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"--channels: expected 1 or 3, got {self.channels}. Correct it.")
        _check_for(origin, "--channels", self.channels is not None, "torchscript")
        _check_for(origin, "--weights", self.weights != "default", "torchvision", "timm")
        _check_for(origin, "--size", self.size is not None, "onnx", "tflite", "torchscript", "torchvision", "timm")
        if self.unsure and self.calibrate is None:
            raise ConfigError("--calibrate is missing: --unsure is set from its pictures. Give --calibrate FOLDER.")
        for option, given in (("--name", self.name), ("--version", self.version)):
            if given is not None:
                check_name(option, given)
        sides = _sides(self.size)
        return BundleRequest(
            origin, network, self.classes, self.calibrate, partial(normalisation, self.preset, self.mean, self.std),
            self.weights, None if sides is None else (sides[1], sides[0]), self.channels or 3,
            None if self.policy is None else chosen(self.policy, *get_args(Policy), option="--policy"), self.name,
            self.version, self.strip_seconds, self.unsure,
        )  # fmt: skip


def _check_for(origin: Origin, option: str, given: bool, *origins: Origin) -> None:
    """Check that an option goes with the source of the network. Raises ConfigError."""
    if given and origin not in origins:
        allowed = " or ".join(f"--{each}" for each in origins)
        raise ConfigError(f"{option}: expected only with {allowed}, got it with --{origin}. Remove {option}.")


def _sides(size: str | None) -> list[int] | None:
    """Read width and height; ConfigError names the form."""
    from infra.bundling.bundle_request import MOST_SIDE
    from producers.sources.settings import whole_numbers

    if size is None:
        return None
    try:
        sides = whole_numbers(size, "x", 2, "WIDTHxHEIGHT")
    except ValueError as error:
        raise ConfigError(f"--size: {error}. Correct it.") from None
    if min(sides) < 1 or max(sides) > MOST_SIDE:
        raise ConfigError(f"--size: expected sides from 1 to {MOST_SIDE}, got {size}. Correct it.")
    return sides


def _one_of(**given: Path | str | None) -> tuple[Origin, str]:
    found = [(name, str(value)) for name, value in given.items() if value is not None]
    if len(found) != 1:
        got = " and ".join(f"--{name}" for name, _ in found) or "none"
        raise ConfigError(
            "network: expected one of --onnx, --tflite, --torchscript, --torchvision, --timm and --imagenet, got "
            f"{got}. Give exactly one."
        )
    return found[0]  # type: ignore[return-value]  # the caller's names are the origins
