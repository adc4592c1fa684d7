"""The choice of frames that are worth a label, from the pictures that the console shows anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consumers.console.data.appearance import SAME, Appearance, FeatureExtractor, compare_appearance, sketch
from consumers.console.data.fleet import Fleet
from consumers.console.data.labelled_frames import LabelledFrames
from consumers.console.data.pictures import CameraPicture
from consumers.records.rows import UNSURE

LOW: Final = 0.6
"""Confidence below which a verdict is doubtful."""
QUIET_MS: Final = 20_000
"""Milliseconds after which another frame of the same appearance is kept: the usual scene needs labels too."""
REMEMBERED: Final = 200
"""Kept frames of a camera with which its next one is compared."""
MOST_DESCRIBED: Final = 4
"""Pictures of all cameras together whose features one step computes: less than half a second of one core."""


@dataclass
class _Camera:
    kept: deque[Appearance]
    address: str = ""
    verdict: str = ""


class Collector:
    """Keeps frames of the chosen cameras. For one thread at a time."""

    def __init__(self, labelled_frames: LabelledFrames, feature_extractor: FeatureExtractor | None = None) -> None:
        """`feature_extractor` computes the features of pictures. None compares pictures by their sketches alone."""
        self._labelled_frames = labelled_frames
        self._feature_extractor = feature_extractor
        self._cameras: dict[str, _Camera] = {}
        self._described = 0
        self._last = ""

    def step(self, fleet: Fleet) -> int:
        """Judge the newest picture of each chosen camera. Return how many frames were kept.

        After `MOST_DESCRIBED` features, the other cameras wait for the next step, which begins with them.
        """
        chosen = self._labelled_frames.cameras()
        for gone in set(self._cameras) - set(chosen):
            del self._cameras[gone]
        if not chosen and self._feature_extractor is not None:
            self._feature_extractor.close()
        kept, self._described = 0, 0
        for name in self._in_turn(chosen):
            if self._described >= MOST_DESCRIBED:
                break
            picture, self._last = fleet.picture(name), name
            kept += picture is not None and bool(picture.jpeg) and self.judge(picture) is not None
        return kept

    def _in_turn(self, chosen: Sequence[str]) -> list[str]:
        return sorted(chosen, key=lambda name: (name <= self._last, name))

    def judge(self, picture: CameraPicture) -> str | None:
        """Keep a picture that is worth a label. Return the reason; None if it is not, or was judged before."""
        row = picture.row
        camera = self._cameras.get(row.camera)
        if camera is None:
            known = self._labelled_frames.appearances(row.camera, REMEMBERED)
            camera = self._cameras[row.camera] = _Camera(deque(known, REMEMBERED))
        if camera.address == picture.url:
            return None
        changed = bool(camera.verdict) and camera.verdict != row.class_name
        camera.address, camera.verdict = picture.url, row.class_name
        recent = [each for each in camera.kept if 0 <= row.recorded_ms - each.kept_ms < QUIET_MS]
        try:
            appearance = Appearance(sketch(picture.jpeg), kept_ms=row.recorded_ms)
        except OSError:  # no picture that Pillow reads
            return None
        if any(float(appearance.sketch @ each.sketch) >= SAME for each in recent):
            return None
        appearance = self._with_features(appearance, picture.jpeg)
        if compare_appearance(appearance, recent).is_alike:
            return None
        if row.class_name == UNSURE or row.confidence < LOW:
            why = "unsure"
        elif changed:
            why = "changed"
        elif compare_appearance(appearance, camera.kept).is_new:
            why = "new"
        elif compare_appearance(appearance, recent).is_new:
            why = "usual"
        else:
            return None
        self._labelled_frames.keep(
            row[:3], picture.jpeg, why, row.class_name, row.confidence, features=appearance.features
        )
        camera.kept.append(appearance)  # last: a frame that the store has rejected counts as no other one
        return why

    def _with_features(self, appearance: Appearance, jpeg: bytes) -> Appearance:
        if self._feature_extractor is None:
            return appearance
        self._described += 1
        return appearance._replace(features=self._feature_extractor(jpeg))
