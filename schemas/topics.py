"""Topic names on MQTT and Kafka."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from schemas.errors import MalformedError
from schemas.identity import CameraId, camera_id_on_wire

ROOT: Final = "pointillist/v1"


class Channel(StrEnum):
    """The last part of a camera's MQTT topic."""

    FRAME = "frame"
    """A `Frame` from the camera."""
    CONFIRM = "confirm"
    """A `Confirm` to the camera."""
    META = "meta"
    """A `Meta` from the camera; retained."""
    STATUS = "status"
    """A `Status` from the camera, and its last will; retained."""
    EVENT = "event"
    """A `Ledger` from the camera."""
    SETTINGS = "cmd/settings"
    """A `Command` to the camera; retained."""
    PROBES = "cmd/probes"
    """A `ProbeRequest` to the camera; retained."""
    KEY_REQUEST = "cmd/key"
    """A `KeyRequest` to the camera."""
    REFUSAL = "cmd/refused"
    """A `Refusal` to the camera."""


def mqtt_topic(camera_id: CameraId, channel: Channel) -> str:
    """Return `pointillist/v1/{site}/{camera}/{channel}`."""
    return f"{ROOT}/{camera_id}/{channel.value}"


def shared_filter(group: str, channel: Channel) -> str:
    """Return the filter with which several bridges share one channel of all cameras."""
    return f"$share/{group}/{ROOT}/+/+/{channel.value}"


def every_camera_filter(channel: Channel) -> str:
    """Return the filter of one subscriber for one channel of all cameras."""
    return f"{ROOT}/+/+/{channel.value}"


def parse_mqtt_topic(topic: str) -> tuple[CameraId, Channel]:
    """Return the camera and the channel of a topic; `MalformedError` if it is not a topic of this protocol."""
    parts = topic.split("/", 4)
    if len(parts) != 5 or f"{parts[0]}/{parts[1]}" != ROOT:
        raise MalformedError(f"expected {ROOT}/site/camera/channel, got {topic[:200]!r}")
    try:
        channel = Channel(parts[4])
    except ValueError:
        raise MalformedError(
            f"expected one of {[c.value for c in Channel]} as channel, got {parts[4][:80]!r}"
        ) from None
    return camera_id_on_wire(f"{parts[2]}/{parts[3]}"), channel


HOME_ROOT: Final = "pointillist/home/v1"
"""Topics for Home Assistant, as JSON: `…/status-{id}` of each announcer, and `…/{site}/{camera}` of each camera."""
DISCOVERY_ROOT: Final = "homeassistant"
"""Home Assistant's default topic for device discovery."""

BROKER_STATE_ROOT: Final = "$SYS/broker"
BROKER_STATE: Final = (
    "clients/connected",
    "messages/received",
    "messages/sent",
    "publish/messages/dropped",
    "bytes/received",
    "bytes/sent",
    "store/messages/bytes",
)
"""The topics under that root that the monitor reads; mosquitto publishes them about itself."""

PROCESSORS_GROUP: Final = "pointillist-processors"
"""The consumer group of the frames topic; its committed offsets mark the frames that are done."""
RECORDED_GROUP: Final = "pointillist-recorder-progress"
"""The group in which all recorders commit their offsets, with the mean size of a record as note; it has no members.
Bridges measure by it how many records the database does not have yet."""


class KafkaTopic(StrEnum):
    """The Kafka topics; the record key is the camera id, for models see `schemas.messages.models`."""

    FRAMES = "pointillist.frames.v1"
    """`Frame` as the camera signed it: from bridges, and replays of the console, to processors."""
    EVENTS = "pointillist.events.v1"
    """`Ledger`, `Meta`, `Status` of cameras; `KeyRequest`, `ProbeRequest`, `Refusal` to them. `ce_type` is the kind."""
    VERDICTS = "pointillist.verdicts.v1"
    """`Verdict`: from processors to recorder and console."""
    COMPARISONS = "pointillist.comparisons.v1"
    """`Comparison`: the answers of the live model and of a candidate, from processors to the monitor."""
    ALERTS = "pointillist.alerts.v1"
    """`Alert`: from the recorder."""
    DEAD_LETTERS = "pointillist.dead-letters.v1"
    """`DeadLetter`: payloads that bridges and processors rejected."""
    MODELS = "pointillist.models.v1"
    """`SignedModels` under the key `live`, `SignedAssessment` under `assessment`, `ServedModel` under `processor/NAME`;
    compacted."""
    VIEWS = "pointillist.views.v1"
    """`View`: from consoles to all processors, while a camera's page is open."""

    # The bridge hashes topics for each frame, and Enum's own hash is a slow function in Python.
    __hash__ = str.__hash__
