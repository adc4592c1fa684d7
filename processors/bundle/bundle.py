"""A network ready to run: frames to its size, pictures to logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from processors.bundle.formats import Network
from processors.bundle.model_toml import BundleSettings
from processors.preprocess import Stage, fresh_seeds, preprocess, straight_through
from processors.preprocess.contract import seeds_of_tiles
from processors.stages.resample import centre_crop, resize, tiles
from processors.stages.shapes import check_frames
from schemas.errors import StageError

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue in luma."""


@dataclass(frozen=True)
class Bundle:
    """A network ready to run on `device`.

    `model_id` is name@version+digest, the digest being 12 hexadecimal digits of the weights' SHA-256, and where there
    are stages of theirs too. `network` maps normalised pictures (B, channels, height, width) to its raw output
    (B, classes). `overlays` is (N, channels, height, width) in [0, 1], or None without a `strip` table. `stages` are
    what every picture goes through before it is normalised, one that STRIP has laid an overlay over as well.
    `calibration`, like overlays, are pictures for 8-bit integers; None where the bundle does not allow those.
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

    @property
    def random(self) -> bool:
        """Whether a stage draws, so that the same picture may be seen in many ways."""
        return any(stage.random for stage in self.stages)

    @property
    def bare(self) -> Bundle:
        """The network as who knows of no defence takes it.

        Of the stages, only those that gradients pass and that never draw: a quantisation that the network was trained
        with belongs to the network.
        """
        return replace(self, stages=tuple(stage for stage in self.stages if stage.differentiable and not stage.random))

    @property
    def passable(self) -> Bundle:
        """The same chain, through which gradients pass: the others of its stages hand them on as they come."""
        return replace(self, stages=tuple(map(straight_through, self.stages)))

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

    def seeds(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Seeds (count,) for `logits` from `generator`, or torch's global one; None where no stage draws."""
        return fresh_seeds(count, self.device, generator) if self.random else None

    def preprocess(self, prepared: Tensor, seeds: Tensor | None = None) -> Tensor:
        """What `prepare` gave, through the stages; see `processors.preprocess.preprocess` for `seeds` (B,)."""
        if prepared.ndim == 5 and self.stages:
            own = None if seeds is None else seeds_of_tiles(seeds, prepared.shape[1])
            return self.preprocess(prepared.flatten(0, 1), own).view(prepared.shape)
        return preprocess(prepared, self.stages, seeds)

    def logits(self, prepared: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Logits (B, classes) of what `prepare` gave, through the stages: of several tiles, the most confident one's.

        `seeds` (B,) int64 decide what random stages draw; None is fresh ones from torch's global generator.
        """
        return self.network_logits(self.preprocess(prepared, seeds))

    def normalised(self, preprocessed: Tensor) -> Tensor:
        """What `network` takes, of what `preprocess` gave: (B, channels, height, width)."""
        return (preprocessed - self.mean) / self.std

    def network_logits(self, preprocessed: Tensor) -> Tensor:
        """The same of what `preprocess` gave."""
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
