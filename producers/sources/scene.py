"""Simulated scenes as a source: endless, with ground truth."""

from __future__ import annotations

from producers.scene import SceneSimulator
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame
from schemas.errors import SourceError
from schemas.messages.frame import Truth

SIZE = (32, 32)


class SceneSource:
    """One camera of the scene simulator."""

    kind = "scene"
    live = False
    blocking = False
    on_demand = False

    def __init__(self, settings: SourceSettings, camera: int) -> None:
        width, height = settings.size or SIZE
        try:
            self._simulator = SceneSimulator(settings.seed, camera, (height, width), settings.channels or 3)
        except ValueError as error:
            raise SourceError(f"scene: {error}") from None
        self._rendered = [self._simulator.render(index) for index in range(settings.prerendered)]
        self._position = 0

    def seek(self, position: int) -> None:
        """Continue at this frame."""
        self._position = position

    def read(self) -> CapturedFrame:
        """Return the next frame. The source is endless."""
        position = self._position
        if self._rendered:
            picture, label = self._rendered[position % len(self._rendered)]
        else:
            picture, label = self._simulator.render(position)
        self._position = position + 1
        return CapturedFrame(picture, position, Truth(label))

    def close(self) -> None:
        """Release the rendered frames."""
        self._rendered = []
