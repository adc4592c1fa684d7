"""Generated pictures that stand for photographs: overlapping leaves (Lee, Mumford and Huang, "Occlusion Models for
Natural Images", IJCV 2001).

Leaves of one colour, with radii by a power law, cover each other. Their edges and sizes are distributed as in
photographs. Each leaf has a texture with the spectrum of photographs, and shading.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_LEAVES: Final = (20, 80)
_SLOPES: Final = (1.0, 1.8)
"""Slopes of the spectra of a picture's two textures."""


def generated_pictures(count: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Return pictures (count, side, side, 3); the first ones are the same for any count."""
    return np.stack([_picture(side, np.random.default_rng((seed, number))) for number in range(count)])


def _picture(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    textures = [_texture(side, slope, rng) for slope in _SLOPES]
    shown = rng.uniform(0.1, 0.9, 3) + 0.15 * textures[1]
    rows, columns = np.mgrid[:side, :side] / side
    count = int(rng.integers(*_LEAVES))
    for radius in np.sort(np.clip(0.03 * (1 + rng.pareto(2.0, count)), 0.03, 0.5))[::-1]:
        row, column, turn = *rng.random(2), rng.uniform(0, np.pi)
        along = ((columns - column) * np.cos(turn) + (rows - row) * np.sin(turn)) / radius
        across = ((rows - row) * np.cos(turn) - (columns - column) * np.sin(turn)) / (radius * rng.uniform(0.35, 1))
        inside = (
            along**2 + across**2 < 1, np.maximum(abs(along), abs(across)) < 1, abs(along) + abs(across) < 1,
        )[rng.integers(3)]  # fmt: skip
        places = np.nonzero(inside)
        texture = np.roll(textures[rng.integers(2)], rng.integers(side, size=2), (0, 1))[places]
        shading = rng.uniform(-0.2, 0.2) * along[places][:, None]
        shown[places] = rng.random(3) + rng.uniform(0.02, 0.2) * texture + shading
    return (255 * shown.clip(0, 1)).round().astype(np.uint8)


def _texture(side: int, slope: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return noise (side, side, 3) of unit variance whose amplitude falls with frequency to the power of `slope`."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = 1
    waves = rng.standard_normal((3, *frequency.shape, 2)) @ np.array([1, 1j])
    grey = np.fft.irfft2(waves / frequency**slope, (side, side))
    mixed = np.tensordot(grey, 1 + 0.4 * rng.standard_normal((3, 3)), (0, 0))
    scaled: NDArray[np.float64] = (mixed - mixed.mean()) / mixed.std()
    return scaled
