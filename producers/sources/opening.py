"""The source for given settings. Each kind's libraries are imported on demand: a scene needs no video library."""

from __future__ import annotations

from producers.sources.settings import SourceSettings
from producers.sources.source import Source


def open_source(settings: SourceSettings, camera_index: int = 0, *, planar: bool = False) -> Source:
    """Open the source of camera number `camera_index`; may block (`open_s` for a URL), raises `SourceError`.

    The index distinguishes simulated cameras and spreads the images of a data set over them. With `planar`, pictures of
    files and streams are planes where they are sent whole.
    """
    match settings.kind:
        case "scene":
            from producers.sources.scene import SceneSource

            return SceneSource(settings, camera_index)
        case "dataset":
            from producers.sources.dataset import DatasetSource

            return DatasetSource(settings, camera_index)
        case "video":
            from producers.sources.video import VideoSource

            return VideoSource(settings, planar=planar)
        case "url":
            from producers.sources.resolving import resolve_settings
            from producers.sources.url import UrlSource

            return UrlSource(resolve_settings(settings), planar=planar)
