"""A camera that drives past signs: every frame is a pure function of (seed, camera, index, size, channels).

The camera follows one smooth path over the frame index (position, distance, roll, pan, zoom: two sines each). Each
`SCENE_FRAMES` frames the place changes: another sign, surroundings, light, view angle, focus and sensor noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.scene.background import background_tile, sample_tile, tile_cells
from producers.scene.signs import CLASSES, EDGE_WIDTH, RIM_WIDTH, SIGNS, Floats, Sign

SCENE_FRAMES: Final = 12
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)

# Middle and amplitude of each quantity that varies along the path. Lengths are shares of the frame's short side,
# angles radians; pan counts tiles of the background, zoom tiles along the short side.
_PATH: Final = {
    "x": (0.0, 0.09),
    "y": (0.0, 0.09),
    "radius": (0.36, 0.07),
    "roll": (0.0, 0.22),
    "pan_x": (0.0, 0.6),
    "pan_y": (0.0, 0.3),
    "zoom": (0.6, 0.25),
}
_MIDDLE = np.array([middle for middle, _ in _PATH.values()])
_AMPLITUDE = np.array([amplitude for _, amplitude in _PATH.values()])
_PERIODS: Final = (48.0, 140.0)  # frames

_PURPOSE_PATH, _PURPOSE_SCENE, _PURPOSE_NOISE = range(3)
_BYTE_PAIR_SPREAD: Final = float(np.sqrt(2 * (256**2 - 1) / 12))


@dataclass(frozen=True, slots=True)
class Conditions:
    """Factors, all at least 0, on the random conditions of each place. 1 leaves every frame unchanged."""

    light: float = 1.0
    noise: float = 1.0
    """Factor on the standard deviation of each pixel, for every frame size."""
    blur: float = 1.0
    distance: float = 1.0
    """The sign's radius is divided by it; above 0."""


@dataclass(frozen=True)
class _Scene:
    """The constants of one place in front of the camera."""

    label: int
    sign: Sign
    tile: Floats  # (C, T, T)
    colours: Floats  # (4, C): edge, rim, face, ink
    gain: Floats  # (C, 1, 1), on the scale of 255
    shade_y: float
    shade_x: float
    squeeze: float
    shear: float
    blur: float  # share of the short side
    noise: float  # standard deviation on the scale of 255
    pan: tuple[float, float]


class SceneSimulator:
    """One simulated camera.

    `seed` 0 … 2⁶⁴−1, `camera` 0 … 2²⁰−1, `size` (height, width) with sides of 16 … 4096 pixels, `channels` 1 or 3.
    Raises `ValueError` for anything else. By default, all factors of `conditions` are 1.
    """

    def __init__(
        self,
        seed: int,
        camera: int,
        size: tuple[int, int] = (32, 32),
        channels: int = 3,
        conditions: Conditions = Conditions(),
    ) -> None:
        height, width = size
        if not (16 <= height <= 4096 and 16 <= width <= 4096):
            raise ValueError(f"expected sides of 16 to 4096 pixels, got {height}x{width}")
        if channels not in (1, 3):
            raise ValueError(f"expected 1 or 3 channels, got {channels}")
        if not (0 <= seed < 1 << 64 and 0 <= camera < 1 << 20):
            raise ValueError(f"expected a seed below 2**64 and a camera below 2**20, got {seed} and {camera}")
        self.seed, self.camera, self.size, self.channels = seed, camera, (height, width), channels
        self._conditions = conditions
        self._short = min(height, width)
        self._cells = tile_cells(self._short)
        self._rows = (np.arange(height) + 0.5 - height / 2) / self._short
        self._columns = (np.arange(width) + 0.5 - width / 2) / self._short
        self._shade_rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        self._shade_columns = np.linspace(-1, 1, width, dtype=np.float32)
        rng = np.random.Generator(self._bits(_PURPOSE_PATH, 0))
        self._rates = 2 * np.pi / rng.uniform(*_PERIODS, (2, len(_PATH)))
        self._phases = rng.uniform(0, 2 * np.pi, (2, len(_PATH)))
        self._cached: tuple[int, _Scene] | None = None

    def render(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """Return frame number `index` (0 … 2⁴⁰−1): pixels (H, W, C) and the position of its class in `CLASSES`."""
        scene = self._scene(index // SCENE_FRAMES)
        sines = np.sin(self._rates * index + self._phases)
        path = _MIDDLE + _AMPLITUDE * (0.6 * sines[0] + 0.4 * sines[1])
        x, y, radius, roll, pan_x, pan_y, zoom = path.tolist()

        rows = (self._rows * zoom + pan_y + scene.pan[0]) * self._cells
        columns = (self._columns * zoom + pan_x + scene.pan[1]) * self._cells
        planes = sample_tile(scene.tile, rows, columns)
        self._draw_sign(planes, scene, x, y, radius / self._conditions.distance, roll)

        planes *= (1 + scene.shade_y * self._shade_rows) + scene.shade_x * self._shade_columns
        planes *= scene.gain
        planes += self._noise(index, scene.noise)
        np.clip(planes, 0, 255, out=planes)
        return np.ascontiguousarray(planes.astype(np.uint8).transpose(1, 2, 0)), scene.label

    def _draw_sign(self, planes: Floats, scene: _Scene, x: float, y: float, radius: float, roll: float) -> None:
        """Paint the sign over `planes` (C, H, W), within its bounding box only."""
        reach = 1.5 * radius
        top, bottom = np.searchsorted(self._rows, (y - reach, y + reach))
        left, right = np.searchsorted(self._columns, (x - reach, x + reach))
        height, width = int(bottom - top), int(right - left)
        across = self._columns[left:right].astype(np.float32) - np.float32(x)
        down = (self._rows[top:bottom].astype(np.float32) - np.float32(y))[:, None]
        cos, sin = np.cos(roll) / radius, np.sin(roll) / radius
        points = np.ones((3, height, width), np.float32)
        points[0] = (cos * across + sin * down) / scene.squeeze
        points[1] = cos * down - sin * across + scene.shear * points[0]
        flat = points.reshape(3, -1)

        # A ramp one pixel wide antialiases; a wider one is the edge seen through a lens out of focus.
        ramp = max(1.0 / self._short, scene.blur) / radius
        outline = scene.sign.distance(flat)
        edges = [outline, outline + EDGE_WIDTH, outline + (EDGE_WIDTH + RIM_WIDTH)]
        if scene.sign.glyph is not None:
            edges.append(scene.sign.glyph.distance(flat))
        cover = np.stack(edges)
        cover *= np.float32(-1 / ramp)
        cover += np.float32(0.5)
        np.clip(cover, 0, 1, out=cover)
        # From the ink outwards: a layer is visible where it covers and no layer above it does.
        visible = np.ones_like(outline)
        for layer in reversed(cover):
            layer *= visible
            visible -= layer
        part = planes[:, top:bottom, left:right]
        part *= visible.reshape(height, width)
        part += (scene.colours[: len(cover)].T @ cover).reshape(-1, height, width)

    def _noise(self, index: int, spread: float) -> Floats:
        """Return sensor noise (C, H, W): the sum of two uniform bytes is close enough to Gaussian and cheap at any
        size."""
        count = self.channels * self.size[0] * self.size[1]
        words = self._bits(_PURPOSE_NOISE, index).random_raw(-(-count // 4))
        pairs = words.astype("<u8", copy=False).view(np.uint8)[: 2 * count].reshape(2, self.channels, *self.size)
        noise: Floats = pairs[0].astype(np.float32)
        noise += pairs[1]
        noise -= np.float32(255)
        noise *= np.float32(spread / _BYTE_PAIR_SPREAD)
        return noise

    def _scene(self, number: int) -> _Scene:
        if self._cached is None or self._cached[0] != number:
            self._cached = number, self._make_scene(np.random.Generator(self._bits(_PURPOSE_SCENE, number)))
        return self._cached[1]

    def _make_scene(self, rng: np.random.Generator) -> _Scene:
        label = int(rng.integers(len(CLASSES)))
        sign = SIGNS[CLASSES[label]]
        fading = rng.uniform(0.88, 1.06, (4, 3))
        temperature = rng.uniform(-0.12, 0.12)
        numbers = rng.uniform(
            (0.55, -0.25, -0.25, 0.82, -0.15, 0.02, 0.01, 0.0, 0.0),
            (1.15, 0.25, 0.25, 1.08, 0.15, 0.05, 0.045, 1.0, 1.0),
        ).tolist()
        gain, shade_y, shade_x, squeeze, shear, blur, noise, pan_y, pan_x = numbers
        colours = (np.array([sign.edge, sign.rim, sign.face, sign.ink]) * fading).astype(np.float32)
        gains = (255 * gain * np.array([1 + temperature, 1.0, 1 - temperature])).astype(np.float32)
        tile = background_tile(rng, self._cells)
        if self.channels == 1:
            colours, gains = colours @ LUMA[:, None], gains[1:2]
            tile = np.tensordot(LUMA, tile, 1)[None]
        return _Scene(
            label,
            sign,
            tile,
            colours,
            gains[:, None, None] * np.float32(self._conditions.light),
            shade_y,
            shade_x,
            squeeze,
            shear,
            blur * self._conditions.blur,
            255 * noise * self._conditions.noise,
            (pan_y, pan_x),
        )

    def _bits(self, purpose: int, number: int) -> np.random.Philox:
        """Return the random stream of one purpose and number. The Philox key holds both, so streams never overlap."""
        if not 0 <= number < 1 << 40:
            raise ValueError(f"expected an index of 0 to 2**40 - 1, got {number}")
        return np.random.Philox(key=np.array([self.seed, self.camera << 44 | purpose << 42 | number], np.uint64))
