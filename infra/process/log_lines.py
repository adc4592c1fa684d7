"""Log events as lines for a person at a terminal; programs get the same events as JSON."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

_LOUD: Final = ("warning", "error", "critical")


def readable_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Format `10:31:02 yard/car online 768×432 2/s`: time, camera, event and its other values."""
    time, level = str(event.pop("timestamp", ""))[11:19], event.pop("level", "info")
    name, camera = str(event.pop("event", "")), event.pop("camera", None)
    trace = event.pop("exception", None)
    words = [time, *([str(camera)] if camera else [])]
    if name == "camera_phase_changed":
        words += _phase(event)
    else:
        words += [
            name.replace("_", " "),
            *(f"{key}={value}" for key, value in event.items() if value not in (None, "")),
        ]
        if level in _LOUD:
            words.insert(1, f"{level}:")
    return " ".join(words) + (f"\n{trace}" if trace else "")


def _phase(event: MutableMapping[str, Any]) -> list[str]:
    parts = [str(event.get("phase", ""))]
    if event.get("width"):
        parts.append(f"{event['width']}×{event['height']}")
        parts.append(f"{event['frames_per_second']:g}/s" if event.get("frames_per_second") else "every frame")
    if event.get("reason"):
        parts[-1] += f": {event['reason']}"
    return parts
