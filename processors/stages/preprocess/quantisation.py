"""QuSecNets (Khalid et al. 2018), equation 1: a pixel's intensity becomes the mean of n − 1 sigmoids.

    y = 1 / (n − 1) · Σ_k 1 / (1 + e^(−z (x − t_k)))

n is the number of levels, t_k the thresholds, z the steepness. With constant quantisation (CQ) the thresholds divide
[0, 1] into n equal parts, t_k = k / n: "linearly distributed", which the paper does not spell out further. Trained ones
(TQ) come from a file, one for all pixels or one for each, as the paper has them, each with a steepness of its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from processors.stages.preprocess.contract import Place, Stage, StageSettings
from schemas.errors import BundleError, StageError, first_line

STEEPNESS: float = 50.0
"""The upper end of the paper's range, 5 to 50."""


class Quantisation(StageSettings):
    """The settings of the stage: CQ by `levels` and `steepness`, or TQ by `parameters`, a safetensors file with both.

    In the file, `thresholds` and `steepness` are float32 (n − 1, 1 or channels, 1 or height, 1 or width).
    """

    stage: Literal["quantisation"]
    levels: Annotated[int, Field(ge=2, le=256)] | None = None
    """Levels of each channel; either this or `parameters`."""
    steepness: Annotated[float, Field(gt=0, le=10000, allow_inf_nan=False)] | None = None
    """Steepness of the sigmoids; 50 with `levels`."""
    parameters: str | None = None
    """A safetensors file of the bundle with trained thresholds and steepness."""

    @model_validator(mode="after")
    def _constant_or_trained(self) -> Self:
        if (self.levels is None) == (self.parameters is None):
            raise ValueError("expected either levels or parameters, the file of trained ones")
        if self.parameters is not None and self.steepness is not None:
            raise ValueError("steepness: expected none with parameters, whose file contains it")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """See `StageSettings`."""
        return () if self.parameters is None else (self.parameters,)

    def load(self, place: Place) -> Stage:
        """See `StageSettings`."""
        if self.parameters is not None:
            thresholds, steepness = read_parameters(place.file(self.parameters), place)
        else:
            assert self.levels is not None
            thresholds = constant_thresholds(self.levels)
            steepness = torch.full_like(thresholds, STEEPNESS if self.steepness is None else self.steepness)
        run = partial(_run, thresholds.to(place.device), steepness.to(place.device))
        return Stage(self.stage, run, differentiable=True)


def _run(thresholds: Tensor, steepness: Tensor, pictures: Tensor, seeds: Tensor | None) -> Tensor:
    return quantise(pictures, thresholds, steepness)


def quantise(pictures: Tensor, thresholds: Tensor, steepness: Tensor) -> Tensor:
    """Quantise pictures (B, C, H, W) in [0, 1]; differentiable by all three arguments.

    `thresholds` is (n − 1, 1 or C, 1 or H, 1 or W), and `steepness` has a shape that broadcasts with it. Raises
    StageError without thresholds, or if the shapes do not fit.
    """
    if thresholds.ndim != 4 or not len(thresholds) or not _fits(thresholds.shape[1:], pictures.shape[1:]):
        raise StageError(
            f"thresholds: expected (levels − 1, C, H, W), each of C, H, W 1 or that of pictures "
            f"{tuple(pictures.shape)}, got {tuple(thresholds.shape)}"
        )
    steepness = steepness.expand_as(thresholds)
    result = torch.zeros_like(pictures)
    for threshold, slope in zip(thresholds, steepness, strict=True):
        result = result + torch.sigmoid(slope * (pictures - threshold))
    return result / len(thresholds)


def _fits(shape: torch.Size, wanted: torch.Size | tuple[int, ...]) -> bool:
    return all(own in (1, other) for own, other in zip(shape, wanted, strict=True))


def constant_thresholds(levels: int) -> Tensor:
    """Return the thresholds of CQ: k / levels for k from 1 to levels − 1, as (levels − 1, 1, 1, 1)."""
    return (torch.arange(1, levels) / levels).view(-1, 1, 1, 1)


def save_parameters(file: Path, thresholds: Tensor, steepness: Tensor) -> None:
    """Write the file for `parameters`: thresholds (n − 1, …) of one to four axes and their steepness."""
    from safetensors.torch import save_file

    state = {"thresholds": _four_axes(thresholds), "steepness": _four_axes(steepness.expand_as(thresholds))}
    save_file({name: value.detach().cpu().float().contiguous().clone() for name, value in state.items()}, file)
    # safetensors makes the file readable for its owner only; a container may run as another user.
    file.chmod(0o644)


def _four_axes(value: Tensor) -> Tensor:
    return value.reshape(*value.shape, *[1] * (4 - value.ndim))


def read_parameters(file: Path, place: Place) -> tuple[Tensor, Tensor]:
    """Return the thresholds and steepness of a file, for pictures of `place`; raises BundleError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{file.name}: expected a safetensors file, got {first_line(error)}. Save the parameters again."
        ) from None
    if set(state) != {"thresholds", "steepness"}:
        raise BundleError(
            f"{file.name}: expected thresholds and steepness, got {', '.join(sorted(state)) or 'nothing'}. "
            "Train the parameters again."
        )
    thresholds, steepness = state["thresholds"].float(), state["steepness"].float()
    size = place.channels, place.height, place.width
    if thresholds.ndim != 4 or not len(thresholds) or not _fits(thresholds.shape[1:], size):
        raise BundleError(
            f"{file.name}: expected thresholds (levels − 1, {', '.join(f'1 or {side}' for side in size)}), "
            f"got {tuple(thresholds.shape)}. Train the parameters again."
        )
    if steepness.shape != thresholds.shape:
        raise BundleError(
            f"{file.name}: expected a steepness for each of the thresholds {tuple(thresholds.shape)}, got "
            f"{tuple(steepness.shape)}. Train the parameters again."
        )
    if not bool(thresholds.isfinite().all()) or not bool((steepness > 0).all() & steepness.isfinite().all()):
        raise BundleError(
            f"{file.name}: expected finite thresholds and a finite steepness above 0, got others. Train the "
            "parameters again."
        )
    return thresholds, steepness
