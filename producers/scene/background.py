"""Textured surroundings: several octaves of value noise between two colours, a horizon and hard-edged boxes.

A background is one periodic tile of colours, made once for a scene; a frame samples it bilinearly under the camera's
pan and zoom. Bilinear sampling along both axes is two matrix products with two-entry rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

OCTAVE_FADE: Final = 1.5
BOXES: Final = 3
SATURATION: Final = np.float32(0.6)


def tile_cells(short_side: int) -> int:
    """Return the cells along a side of the tile: large frames get finer octaves, so that no cell grows past about 16
    pixels."""
    cells = 32
    while cells < 128 and cells * 4 < short_side:
        cells *= 2
    return cells


@cache
def _upsampling(coarse: int, fine: int) -> Floats:
    """Return the periodic linear interpolation from `coarse` to `fine` samples: (fine, coarse)."""
    return sampling(np.arange(fine) * (coarse / fine), coarse)


def sampling(positions: NDArray[np.floating[Any]], cells: int) -> Floats:
    """Return the matrix (len(positions), cells) that samples a periodic signal of `cells` values linearly at
    `positions`."""
    floor = np.floor(positions)
    share = (positions - floor).astype(np.float32)
    first = floor.astype(np.intp) % cells
    rows = np.arange(len(positions))
    matrix = np.zeros((len(positions), cells), np.float32)
    matrix[rows, first] = 1 - share
    matrix[rows, (first + 1) % cells] = share
    return matrix


def background_tile(rng: np.random.Generator, cells: int) -> Floats:
    """Return a tile (3, cells, cells) of colours in about [0, 1].

    The first draws do not depend on `cells`: a larger tile shows the same place with finer octaves added.
    """
    colours = rng.uniform(0.05, 0.95, (3, 3)).astype(np.float32)
    colours = SATURATION * colours + (1 - SATURATION) * colours.mean(1, keepdims=True)
    contrast = rng.uniform(0.05, 0.45)
    horizon = rng.uniform(-0.3, 1.3)
    places = rng.random((BOXES, 4))
    paints = rng.uniform(0.0, 1.0, (BOXES, 4)).astype(np.float32)

    blend, detail = np.zeros((2, cells, cells), np.float32)
    octave, weight = 4, 1.0
    while octave <= cells:
        grids = (rng.random((2, octave, octave), np.float32) - 0.5) * np.float32(weight)
        up = _upsampling(octave, cells)
        coarse = up @ grids @ up.T
        blend += coarse[0]
        detail += coarse[1]
        octave, weight = octave * 2, weight / OCTAVE_FADE

    blend = np.clip(0.5 + blend, 0, 1)
    tile: Floats = colours[0][:, None, None] + (colours[1] - colours[0])[:, None, None] * blend
    below = int(np.clip(horizon, 0, 1) * cells)
    tile[:, below:] += 0.7 * (colours[2][:, None, None] - tile[:, below:])
    for (x, y, width, height), paint in zip(places, paints, strict=True):
        left, top = int(x * cells), int(y * cells)
        part = tile[:, top : top + 1 + int(height * cells / 2), left : left + 1 + int(width * cells / 2)]
        part += paint[3] * (paint[:3, None, None] - part)
    tile += np.float32(contrast) * detail
    return tile


def sample_tile(tile: Floats, rows: NDArray[np.floating[Any]], columns: NDArray[np.floating[Any]]) -> Floats:
    """Return planes (C, len(rows), len(columns)) of `tile` (C, T, T) at the given cell coordinates, wrapping around."""
    cells = tile.shape[-1]
    return np.asarray(sampling(rows, cells) @ tile @ sampling(columns, cells).T)
