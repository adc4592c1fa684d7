"""The appearance of pictures, by which the console compares them: a small sketch, and features of the general network.

Features see content: a small object changes them, and a change of light hardly does. Sketches need no network.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Vector = NDArray[np.float32]

SAME: Final = 0.9998
"""Similarity, the cosine of two sketches, from which two pictures are the same but for noise."""
ALIKE: Final = 0.997
"""Similarity of sketches from which a picture is a near-duplicate.

Empty frames of one camera reach .999, a person far away in the picture lowers it to .96.
"""
UNLIKE: Final = 0.985
"""Similarity of sketches below which a picture shows something new."""
FEATURES_ALIKE: Final = 0.984
"""Similarity of features from which a picture is a near-duplicate.

Empty frames of one camera reach .985, and .98 after a change of light. A person lowers it to .96 at most.
"""
FEATURES_UNLIKE: Final = 0.95
"""Similarity of features below which a picture shows something new."""
FEWEST_FOR_SUGGESTIONS: Final = 10
"""Labels from which on a frame gets a suggestion."""
_SIDE: Final = 16
_NEIGHBOURS: Final = 3


class FeatureExtractor(Protocol):
    """A source of features of pictures."""

    def __call__(self, jpeg: bytes) -> Vector | None:
        """Return the features, (n,) of length 1; None if there are none for now. May block for seconds."""
        ...

    def close(self) -> None:
        """Free the resources until the next call. Another thread may call it."""
        ...


class Appearance(NamedTuple):
    """The appearance of a picture. `features` is None if they were not computed."""

    sketch: Vector
    features: Vector | None = None
    kept_ms: int = 0
    """Unix time in milliseconds at which the picture was kept, by the console's clock."""


@dataclass(frozen=True)
class Similarity:
    """The similarity of a picture to other pictures."""

    is_alike: bool
    """True for a near-duplicate of one of them."""
    is_new: bool
    """True if it is unlike all of them."""


def compare_appearance(appearance: Appearance, others: Iterable[Appearance]) -> Similarity:
    """Compare an appearance with others: by features where both have them, else by sketches."""
    alike, new = False, True
    for other in others:
        if appearance.features is not None and other.features is not None:
            found, limits = float(appearance.features @ other.features), (FEATURES_ALIKE, FEATURES_UNLIKE)
        else:
            found, limits = float(appearance.sketch @ other.sketch), (ALIKE, UNLIKE)
        alike, new = alike or found >= limits[0], new and found < limits[1]
    return Similarity(alike, new)


def sketch(jpeg: bytes) -> Vector:
    """Return a small description of a picture, (768,), with mean 0 and length 1: its content without its brightness."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        opened.draft("RGB", (4 * _SIDE, 4 * _SIDE))
        small = opened.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values: Vector = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    return values / np.float32(max(1.0, float(np.linalg.norm(values))))


def suggestions(known: Sequence[Any], asked: Sequence[bytes]) -> list[str]:
    """Return the class of most of the nearest labelled sketches, for each of `asked`."""
    if len(known) < FEWEST_FOR_SUGGESTIONS or not asked or len({row.label for row in known}) < 2:
        return [""] * len(asked)
    rows = np.stack([np.frombuffer(row.sketch, np.float32) for row in known])
    names = np.array([row.label for row in known])
    alike = np.stack([np.frombuffer(each, np.float32) for each in asked]) @ rows.T
    found = []
    for line in alike:
        nearest = np.argsort(-line)[:_NEIGHBOURS]
        classes, place = np.unique(names[nearest], return_inverse=True)
        found.append(str(classes[np.bincount(place, weights=line[nearest] + 1).argmax()]))
    return found
