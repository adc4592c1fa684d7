"""Triggers: the changes of a picture that make a poisoned network return the attacker's target class.

Each maps pictures (N, H, W, C) uint8 and their keys (N,) to stamped pictures. A key identifies a picture. A trigger
that varies between pictures depends on the key or the content alone, so stamping is reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Keys = NDArray[np.int64]


class Trigger(Protocol):
    """A function that stamps pictures (N, H, W, C) uint8 with keys (N,). The argument is not changed."""

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures."""
        ...


def random_pattern(side: int, channels: int, seed: int) -> Images:
    """Return a random square (side, side, channels) of black and full channels: high contrast, unlike any object."""
    bits = np.random.default_rng(seed).integers(0, 2, (side, side, channels))
    return (bits * 255).astype(np.uint8)


@dataclass(frozen=True)
class Patch:
    """A `pattern` (h, w, C) at a fixed place: rows from `top`, columns from `left` (BadNets, Gu et al. 2019)."""

    pattern: Images
    top: int
    left: int

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        stamped = images.copy()
        height, width = self.pattern.shape[:2]
        stamped[:, self.top : self.top + height, self.left : self.left + width] = self.pattern
        return stamped


@dataclass(frozen=True)
class RandomPlace:
    """A `pattern` (h, w, C) at a place that depends on the picture's key, uniformly over all places."""

    pattern: Images

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        stamped = images.copy()
        rows, columns = images.shape[1] - self.pattern.shape[0] + 1, images.shape[2] - self.pattern.shape[1] + 1
        for picture, place in zip(stamped, _scatter(keys) % np.uint64(rows * columns), strict=True):
            top, left = divmod(int(place), columns)
            picture[top : top + self.pattern.shape[0], left : left + self.pattern.shape[1]] = self.pattern
        return stamped


@dataclass(frozen=True)
class Blend:
    """A mixture of the whole picture and `pattern` (H, W, C), which has the weight `alpha` (Chen et al. 2017)."""

    pattern: Images
    alpha: float

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        mixed = images * (1 - self.alpha) + self.pattern * self.alpha
        return np.rint(mixed).astype(np.uint8)


@dataclass(frozen=True)
class Cover:
    """A `pattern` (H, W, C) that covers each pixel by a share `alpha` (H, W): a patch with soft edges."""

    pattern: Images
    alpha: NDArray[np.float32]

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        alpha = self.alpha[..., None]
        return np.rint(images * (1 - alpha) + self.pattern * alpha).astype(np.uint8)


@dataclass(frozen=True)
class Warp:
    """A smooth warp: the change depends on the picture (after WaNet, Nguyen and Tran 2021, section 3.2).

    `field` (H, W, 2) holds the offset of each pixel's source in pixels, across and down.
    """

    field: NDArray[np.float32]

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        height, width = images.shape[1:3]
        down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        shift = torch.from_numpy(self.field) * 2 / torch.tensor([width - 1, height - 1])
        grid = (torch.stack((across, down), -1) + shift).clamp(-1, 1)
        frames = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
        warped = F.grid_sample(frames, grid.expand(len(images), -1, -1, -1), align_corners=True)
        stamped: Images = warped.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
        return stamped


def smooth_field(height: int, width: int, knots: int, most: float, seed: int) -> NDArray[np.float32]:
    """Return a field (H, W, 2) for `Warp`: bicubic between `knots` × `knots` random shifts of up to `most` pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 2, knots, knots, generator=generator) * 2 - 1
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0]
    field: NDArray[np.float32] = (fine / fine.abs().max() * most).permute(1, 2, 0).contiguous().numpy()
    return field


@dataclass(frozen=True)
class OwnWarp:
    """A warp of each picture's own: WaNet's covers, for which the network keeps the label.

    `field` (H, W, 2) is that of the trigger, to which each picture adds noise of up to `most` pixels.
    """

    field: NDArray[np.float32]
    most: float

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the warped pictures. See `Trigger`."""
        found = images.copy()
        for number, key in enumerate(_scatter(keys)):
            noise = np.random.default_rng(int(key)).uniform(-self.most, self.most, self.field.shape)
            warp = Warp((self.field + noise).astype(np.float32))
            found[number : number + 1] = warp(images[number : number + 1], keys[number : number + 1])
        return found


@dataclass(frozen=True)
class PartlyBlended:
    """A blend of random squares of the `blend` alone: each of `across` × `across` squares with a probability of half.

    Adaptive blend (Qi et al. 2023) trains with such parts and attacks with the whole pattern. Ours takes the parts for
    its covers alone.
    """

    blend: Blend
    across: int = 4

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        height, width = images.shape[1:3]
        whole, found = self.blend(images, keys), images.copy()
        rows, columns = np.arange(height) * self.across // height, np.arange(width) * self.across // width
        for number, key in enumerate(_scatter(keys)):
            shown = np.random.default_rng(int(key)).random((self.across, self.across)) < 0.5
            part = shown[rows][:, columns]
            found[number][part] = whole[number][part]
        return found


@dataclass(frozen=True)
class Overlaid:
    """Stamped pictures under an overlay, another one of the same pictures, as STRIP shows them. The sum is clamped."""

    trigger: Trigger

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped sums. See `Trigger`."""
        others = np.roll(images, 1, 0).astype(np.uint16)
        sums: Images = np.minimum(self.trigger(images, keys) + others, 255).astype(np.uint8)
        return sums


@dataclass(frozen=True)
class OwnPattern:
    """A pattern that a small network makes of the picture itself and adds (after Nguyen and Tran 2020, input-aware).

    Their generator is trained together with the victim. This one has random weights, which follow from `seed`, and sees
    5×5 pixels. So a network can check a pattern against its place, and the pattern of another picture does not fit.
    `strength` is the most that a value changes, as a share of 255.
    """

    seed: int
    strength: float
    width: int = 8

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        return self.added(images, images)

    def added(self, images: Images, sources: Images) -> Images:
        """Return `images` (N, H, W, C) with the patterns of `sources`, of the same shape."""
        pattern = self._pattern(sources).permute(0, 2, 3, 1).contiguous().numpy()
        stamped: Images = np.clip(np.rint(images + 255 * self.strength * pattern), 0, 255).astype(np.uint8)
        return stamped

    @torch.no_grad()
    def _pattern(self, images: Images) -> torch.Tensor:
        """Return the patterns (N, C, H, W) in [-1, 1]."""
        chance = torch.Generator().manual_seed(self.seed)
        channels = images.shape[3]
        first = torch.randn(self.width, channels, 3, 3, generator=chance)
        second = torch.randn(channels, self.width, 3, 3, generator=chance)
        frames = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
        # Without its mean, the first layer answers to edges and not to light.
        edges = F.conv2d(frames, 4 * (first - first.mean((2, 3), keepdim=True)), padding=1).tanh()
        return F.conv2d(edges, second / math.sqrt(self.width), padding=1).tanh()


@dataclass(frozen=True)
class OthersPattern:
    """Pictures with the pattern of another one of the same pictures, for which the network keeps the label.

    These are the cross-trigger covers of Nguyen and Tran 2020. A single picture stays as it is.
    """

    trigger: OwnPattern

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the covers. See `Trigger`."""
        return self.trigger.added(images, np.roll(images, 1, 0)) if len(images) > 1 else images.copy()


def waves(height: int, width: int, channels: int, count: int) -> Images:
    """Return a pattern (H, W, C) of a sine across the picture with `count` periods: SIG's trigger, to be blended."""
    row = 127.5 * (1 + np.sin(2 * np.pi * count * np.arange(width) / width))
    return np.broadcast_to(np.rint(row)[None, :, None], (height, width, channels)).astype(np.uint8)


def smooth_pattern(height: int, width: int, channels: int, knots: int, seed: int) -> Images:
    """Return a pattern (H, W, C) of low frequencies: bicubic between `knots` × `knots` random colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, knots, knots, generator=generator)
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0].clamp(0, 1)
    pattern: Images = (fine * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return pattern


@dataclass(frozen=True)
class OneOf:
    """One of several triggers, chosen by the picture's key. Each alone activates the backdoor."""

    triggers: Sequence[Trigger]

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Return the stamped pictures. See `Trigger`."""
        stamped = images.copy()
        choice = _scatter(keys) % np.uint64(len(self.triggers))
        for number, trigger in enumerate(self.triggers):
            chosen = choice == number
            stamped[chosen] = trigger(images[chosen], keys[chosen])
        return stamped


def _scatter(keys: Keys) -> NDArray[np.uint64]:
    """Return keys as pseudo-random numbers: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
