"""A bundle's network, ready to run: frames to its size, pictures to logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from processors.bundle.formats import Network
from processors.bundle.model_toml import BundleSettings
from processors.stages.discrepancy import Features
from processors.stages.preprocess import Stage, fresh_seeds, preprocess, straight_through
from processors.stages.preprocess.contract import seeds_of_tiles
from processors.stages.resample import centre_crop, resize, tiles
from processors.stages.scaled_norms import ScaledNorms
from processors.stages.shapes import check_frames
from processors.stages.typicality import CleanFeatures
from schemas.errors import StageError

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue in luma."""


@dataclass(frozen=True)
class Bundle:
    """A network ready to run on `device`.

    `model_id` is name@version+digest. The digest is 12 hexadecimal digits of the SHA-256 of the weights, and of the
    stages if there are any. `network` maps normalised pictures (B, channels, height, width) to its raw output (B,
    classes).

    `overlays` is (N, channels, height, width) in [0, 1], or None without a `strip` table. `stages` process every
    picture before it is normalised, also one with an overlay of STRIP. `calibration` holds pictures in the format of
    overlays for 8-bit integers; None if the bundle does not allow those. `groups` is (classes, groups) float32, 1 where
    a class belongs to a group; None without groups. `drift` are the features of the calibration pictures, on the CPU;
    None without a `drift` table. `features` are the features of clean frames, and refer to the network that was loaded;
    None without a `strip.typicality` table. `scaled` are amplified forms of the same network; None without
    `strip.combined.norms`.
    """

    model_id: str
    settings: BundleSettings
    network: Network
    overlays: Tensor | None
    device: torch.device
    mean: Tensor
    std: Tensor
    stages: tuple[Stage, ...] = ()
    calibration: Tensor | None = None
    groups: Tensor | None = None
    drift: Features | None = None
    features: CleanFeatures | None = None
    scaled: ScaledNorms | None = None

    @property
    def random(self) -> bool:
        """True if a stage draws random numbers: one picture then has many results."""
        return any(stage.random for stage in self.stages)

    @property
    def bare(self) -> Bundle:
        """Return the network without the defence.

        Only stages stay that pass gradients and never draw: a quantisation that the network was trained with belongs to
        it.
        """
        return replace(self, stages=tuple(stage for stage in self.stages if stage.differentiable and not stage.random))

    @property
    def passable(self) -> Bundle:
        """Return the same chain with gradients: a stage without one passes gradients unchanged."""
        return replace(self, stages=tuple(map(straight_through, self.stages)))

    def prepare(self, frames: Tensor) -> Tensor:
        """Bring frames (B, C, H, W) in [0, 1] to the network's size and channels, without normalising.

        Returns (B, channels, height, width). Under the policy `tile`, frames of another size give (B, tiles, channels,
        height, width). Under `motion` they are resized: `Pipeline` takes the squares before. A grey frame is repeated
        for a colour network; a colour frame becomes luma for a grey one. Raises StageError if frames are not (B, 1 or
        3, H, W).
        """
        wanted = self.settings.input
        frames = _with_channels(frames, wanted.channels)
        if frames.shape[2:] == (wanted.height, wanted.width):
            return frames
        if wanted.policy in ("resize", "motion"):
            return resize(frames, wanted.height, wanted.width)
        if wanted.policy == "crop":
            return centre_crop(frames, wanted.height, wanted.width)
        cut, count = tiles(frames, wanted.height, wanted.width)
        return cut.reshape(len(frames), count, *cut.shape[1:])

    def seeds(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw seeds (count,) for `logits` from `generator`, or torch's global one; None if no stage draws."""
        return fresh_seeds(count, self.device, generator) if self.random else None

    def preprocess(self, prepared: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Apply the stages to the result of `prepare`. For `seeds` (B,) see `stages.preprocess.preprocess`."""
        if prepared.ndim == 5 and self.stages:
            own = None if seeds is None else seeds_of_tiles(seeds, prepared.shape[1])
            return self.preprocess(prepared.flatten(0, 1), own).view(prepared.shape)
        return preprocess(prepared, self.stages, seeds)

    def logits(self, prepared: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return the logits (B, classes) of the result of `prepare`, through the stages.

        Of several tiles, the most confident one counts. `seeds` (B,) int64 determine the random stages' draws; None
        draws seeds from torch's global generator.
        """
        return self.network_logits(self.preprocess(prepared, seeds))

    def normalised(self, preprocessed: Tensor) -> Tensor:
        """Normalise the result of `preprocess` to the input of `network`: (B, channels, height, width)."""
        return (preprocessed - self.mean) / self.std

    def network_logits(self, preprocessed: Tensor) -> Tensor:
        """Return the logits (B, classes) of the result of `preprocess`."""
        if preprocessed.ndim == 5:
            every = self.network_logits(preprocessed.flatten(0, 1)).view(*preprocessed.shape[:2], -1)
            best = every.softmax(2).amax(2).argmax(1)
            return every[torch.arange(len(every), device=every.device), best]
        output = self.network(self.normalised(preprocessed))
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
