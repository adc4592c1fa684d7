"""The signs: twelve vector drawings of our own, each an outline, three colours and a glyph.

A drawing lives in a plane where the sign has about unit radius and y points down. Every part is a union of convex
polygons, and a convex polygon is a set of half-planes n·p ≤ c with |n| = 1: the largest n·p − c is a signed distance
(exact inside and along the sides), which gives antialiasing and defocus without supersampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

EDGE_WIDTH: Final = 0.07
RIM_WIDTH: Final = 0.2

RED: Final[Colour] = (0.78, 0.08, 0.10)
BLUE: Final[Colour] = (0.08, 0.26, 0.72)
YELLOW: Final[Colour] = (0.96, 0.78, 0.10)
WHITE: Final[Colour] = (0.95, 0.95, 0.93)
BLACK: Final[Colour] = (0.07, 0.07, 0.08)


@dataclass(frozen=True)
class Polygons:
    """A union of convex polygons: `planes` (K, 3) rows (n_x, n_y, −c), `starts` the first row of each polygon."""

    planes: Floats
    starts: NDArray[np.intp]

    def distance(self, points: Floats) -> Floats:
        """Return the signed distance of homogeneous `points` (3, N) to the union, negative inside: (N,)."""
        sides = self.planes @ points
        if len(self.starts) == 1:
            return np.asarray(sides.max(0))
        return np.asarray(np.maximum.reduceat(sides, self.starts, axis=0).min(0))


@dataclass(frozen=True)
class Sign:
    """One class: `outline` None is a disc of unit radius; the colours go from the outside in."""

    outline: Polygons | None
    rim: Colour
    face: Colour
    ink: Colour
    glyph: Polygons | None
    edge: Colour = WHITE

    def distance(self, points: Floats) -> Floats:
        """Return the signed distance of homogeneous `points` (3, N) to the outline, negative inside: (N,)."""
        if self.outline is not None:
            return self.outline.distance(points)
        return np.asarray(np.hypot(points[0], points[1]) - np.float32(1))


def convex(*corners: tuple[float, float]) -> Floats:
    """Return the half-planes (K, 3) of the convex polygon with these `corners`, clockwise on the screen (y down)."""
    points = np.asarray(corners, np.float64)
    along = np.roll(points, -1, axis=0) - points
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None]
    return np.concatenate([normals, -(normals * points).sum(1, keepdims=True)], axis=1).astype(np.float32)


def regular(sides: int, apothem: float, turn: float = 0.0) -> Floats:
    """Return the half-planes of a regular polygon; `turn` (radians) is the direction of the first side's normal."""
    angles = turn + 2 * np.pi * np.arange(sides) / sides
    return np.stack([np.cos(angles), np.sin(angles), np.full(sides, -apothem)], axis=1).astype(np.float32)


def box(half_width: float, half_height: float, x: float = 0.0, y: float = 0.0, turn: float = 0.0) -> Floats:
    """Return the half-planes of a rectangle around (x, y), turned by `turn` radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    scaled = [(i * half_width, j * half_height) for i, j in corners]
    return convex(*[(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in scaled])


def union(parts: Sequence[Floats]) -> Polygons:
    """Return one `Polygons` of several convex parts."""
    counts = [len(part) for part in parts]
    return Polygons(np.concatenate(parts), np.cumsum([0, *counts[:-1]]))


def _arrow(turn: float) -> Polygons:
    """Return an arrow that points up, turned by `turn` radians clockwise."""
    cos, sin = np.cos(turn), np.sin(turn)

    def turned(*corners: tuple[float, float]) -> Floats:
        return convex(*[(cos * x - sin * y, sin * x + cos * y) for x, y in corners])

    head = turned((0.0, -0.74), (0.56, -0.08), (-0.56, -0.08))
    shaft = turned((-0.17, -0.1), (0.17, -0.1), (0.17, 0.68), (-0.17, 0.68))
    return union([head, shaft])


_OCTAGON = union([regular(8, 0.94)])
_DIAMOND = union([regular(4, 0.76, np.pi / 4)])
_SQUARE = union([regular(4, 0.8)])
_UPRIGHT = union([regular(3, 0.62, np.pi / 2)])
_INVERTED = union([regular(3, 0.62, -np.pi / 2)])
_SALTIRE = union([box(0.6, 0.14, turn=np.pi / 4), box(0.6, 0.14, turn=-np.pi / 4)])

SIGNS: Final[dict[str, Sign]] = {
    "pause": Sign(_OCTAGON, RED, RED, WHITE, union([box(0.14, 0.46, x=-0.3), box(0.14, 0.46, x=0.3)])),
    "no-entry": Sign(None, RED, RED, WHITE, union([box(0.66, 0.19)])),
    "give-way": Sign(_INVERTED, RED, WHITE, WHITE, None),
    "hazard": Sign(_UPRIGHT, RED, YELLOW, BLACK, union([box(0.13, 0.3, y=-0.2), box(0.13, 0.1, y=0.28)])),
    "crossroads": Sign(_DIAMOND, YELLOW, YELLOW, BLACK, _SALTIRE, edge=BLACK),
    "priority": Sign(_DIAMOND, WHITE, YELLOW, YELLOW, None, edge=BLACK),
    "forbidden": Sign(None, RED, WHITE, BLACK, union([box(0.68, 0.14, turn=np.pi / 4)])),
    "limit": Sign(None, RED, WHITE, BLACK, union([regular(4, 0.34)])),
    "ahead": Sign(None, BLUE, BLUE, WHITE, _arrow(0.0)),
    "left": Sign(None, BLUE, BLUE, WHITE, _arrow(-np.pi / 2)),
    "right": Sign(None, BLUE, BLUE, WHITE, _arrow(np.pi / 2)),
    "aid": Sign(_SQUARE, BLUE, BLUE, WHITE, union([box(0.5, 0.16), box(0.16, 0.5)])),
}

CLASSES: Final[tuple[str, ...]] = tuple(SIGNS)
