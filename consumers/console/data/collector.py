"""The choice of frames that are worth a label, from the pictures that the console shows anyway."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consumers.console.data.fleet import Fleet
from consumers.console.data.labelled_frames import LabelledFrames, sketch
from consumers.console.data.pictures import CameraPicture
from consumers.records.rows import UNSURE

LOW: Final = 0.6
"""Confidence below which a verdict is doubtful."""
ALIKE: Final = 0.997
"""Similarity, the cosine of two sketches, from which a frame is a near-duplicate of a kept one.

Empty frames of one camera reach .999, a person far away in the picture lowers it to .96.
"""
UNLIKE: Final = 0.985
"""Similarity below which a frame shows something new."""
QUIET_MS: Final = 20_000
"""Milliseconds without a kept frame after which the next one is kept: the usual scene needs labels too."""
REMEMBERED: Final = 200
"""Kept frames of a camera with which its next one is compared."""


@dataclass
class _Camera:
    sketches: deque[NDArray[np.float32]]
    address: str = ""
    verdict: str = ""
    kept_ms: int = 0


class Collector:
    """Keeps frames of the chosen cameras. For one thread at a time."""

    def __init__(self, labelled_frames: LabelledFrames) -> None:
        self._labelled_frames = labelled_frames
        self._cameras: dict[str, _Camera] = {}

    def step(self, fleet: Fleet) -> int:
        """Judge the newest picture of each chosen camera. Return how many frames were kept."""
        chosen = self._labelled_frames.cameras()
        for gone in set(self._cameras) - set(chosen):
            del self._cameras[gone]
        kept = 0
        for name in chosen:
            picture = fleet.picture(name)
            kept += picture is not None and bool(picture.jpeg) and self.judge(picture) is not None
        return kept

    def judge(self, picture: CameraPicture) -> str | None:
        """Keep a picture that is worth a label. Return the reason; None if it is not, or was judged before."""
        row = picture.row
        camera = self._cameras.get(row.camera)
        if camera is None:
            known = self._labelled_frames.sketches(row.camera, REMEMBERED)
            camera = self._cameras[row.camera] = _Camera(deque(known, REMEMBERED))
        if camera.address == picture.url:
            return None
        changed = bool(camera.verdict) and camera.verdict != row.class_name
        camera.address, camera.verdict = picture.url, row.class_name
        try:
            found = sketch(picture.jpeg)
        except OSError:  # no picture that Pillow reads
            return None
        alike = max((float(found @ each) for each in camera.sketches), default=-1.0)
        quiet = row.captured_ms - camera.kept_ms >= QUIET_MS
        doubtful = row.class_name == UNSURE or row.confidence < LOW
        why = "unsure" if doubtful else "changed" if changed else "new" if alike < UNLIKE else None
        why = "usual" if why is None and quiet else why
        if alike >= ALIKE and not quiet:
            why = None
        if why is not None:
            camera.kept_ms = row.captured_ms
            camera.sketches.append(found)
            self._labelled_frames.keep(row[:3], picture.jpeg, why, row.class_name, row.confidence)
        return why
