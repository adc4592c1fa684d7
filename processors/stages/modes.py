"""Modes of reconstruction and settings of the denoiser. Loads no torch: the command line reads them."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["default", "paper", "plate", "none"]
Method = Literal["bayes", "visu"]

# The largest σ that costs a CIFAR-10 network no accuracy on clean frames after drop and reconstruction. An estimated σ
# mistakes the texture of small pictures for noise.
SIGMA: Final = 0.01


class DenoiseSettings(BaseModel):
    """Settings of the denoiser; see `processors.stages.denoise`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "bayes"
    """Threshold rule: BayesShrink or VisuShrink."""
    sigma: float = Field(ge=0, allow_inf_nan=False)
    """Standard deviation of the noise on the scale [0, 1]; 0 leaves the frames unchanged."""


def usual_denoise(mode: Mode) -> DenoiseSettings:
    """Return the settings that suit a reconstruction.

    The learned one has removed the noise already. The mode `none` serves a network that expects unprocessed frames.
    """
    return DenoiseSettings(sigma=0.0 if mode in ("default", "none") else SIGMA)
