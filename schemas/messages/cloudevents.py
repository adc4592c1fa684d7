"""The headers of every Kafka record that a role writes, except `View`.

They are those of CloudEvents 1.0, binary mode of its Kafka protocol binding.

`ce_type` is the full name of the message in the value. `ce_source` is the event's origin:

- `/cameras/SITE/CAMERA`: a message that a camera signed, whichever bridge forwarded it;
- `/bridges/NAME`: a bridge's own dead letters;
- `/processors`: the result of any processor for a frame, and its other messages, such as `Comparison`;
- `/recorder`: alerts and requests;
- `/models`: the list of published models, and the assessments of models.

Two records with the same `ce_source` and `ce_id` are the same event. After a rebalance, another process may write a
record again; the headers therefore do not name the process. A frame has the same `ce_id` each time, from any bridge and
after a replay. Frames and verdicts that are traced have `traceparent` (W3C Trace Context) too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeAlias

from google.protobuf.message import Message

from schemas.identity import CameraId
from schemas.limits import MAX_CAMERAS

Headers: TypeAlias = list[tuple[str, bytes]]

PROCESSORS: Final = "/processors"
RECORDER: Final = "/recorder"
MODELS: Final = "/models"


def camera_source(camera_id: CameraId) -> str:
    """Return the `ce_source` of a message that a camera signed."""
    return f"/cameras/{camera_id}"


def bridge_source(name: str) -> str:
    """Return the `ce_source` of the bridge's own events."""
    return f"/bridges/{name}"


def frame_event_id(boot_id: int, seq: int) -> str:
    """Return the `ce_id` of a camera's frame."""
    return f"{boot_id:016x}/{seq}"


def event_headers(source: str, kind: type[Message], event_id: str) -> Headers:
    """Return the headers of a record whose value is a `kind`; `event_id` is unique in its `source`."""
    return [*_common(source, kind.DESCRIPTOR.full_name), ("ce_id", event_id.encode())]


@lru_cache(MAX_CAMERAS)
def _common(source: str, kind: str) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", kind.encode()),
        ("content-type", b"application/protobuf"),
    )
