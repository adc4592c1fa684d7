"""Topic names on MQTT and Kafka."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from schemas.errors import Malformed
from schemas.identity import CameraId, camera_id_on_wire

ROOT: Final = "pointillist/v1"


class Channel(StrEnum):
    """The last part of a camera's MQTT topic."""

    FRAME = "frame"
    CONFIRM = "confirm"
    META = "meta"
    STATUS = "status"
    EVENT = "event"
    SETTINGS = "cmd/settings"
    PROBES = "cmd/probes"
    KEY_REQUEST = "cmd/key"


def mqtt_topic(camera_id: CameraId, channel: Channel) -> str:
    """`pointillist/v1/{site}/{camera}/{channel}`."""
    return f"{ROOT}/{camera_id}/{channel.value}"


def shared_filter(group: str, channel: Channel) -> str:
    """The filter by which several bridges share one channel of all cameras."""
    return f"$share/{group}/{ROOT}/+/+/{channel.value}"


def every_camera_filter(channel: Channel) -> str:
    """The filter of one subscriber for one channel of all cameras."""
    return f"{ROOT}/+/+/{channel.value}"


def parse_mqtt_topic(topic: str) -> tuple[CameraId, Channel]:
    """The camera and the channel of a topic; `Malformed` when it is not one of ours."""
    parts = topic.split("/", 4)
    if len(parts) != 5 or f"{parts[0]}/{parts[1]}" != ROOT:
        raise Malformed(f"expected {ROOT}/site/camera/channel, got {topic[:200]!r}")
    try:
        channel = Channel(parts[4])
    except ValueError:
        raise Malformed(f"expected one of {[c.value for c in Channel]} as channel, got {parts[4][:80]!r}") from None
    return camera_id_on_wire(f"{parts[2]}/{parts[3]}"), channel


HOME_ROOT: Final = "pointillist/home/v1"
"""What Home Assistant is told: `…/status` of whoever tells it, and `…/{site}/{camera}` of each camera, as JSON."""
DISCOVERY_ROOT: Final = "homeassistant"
"""Where Home Assistant looks for devices, unless it was told otherwise."""

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
"""What mosquitto says of itself under that root, as far as we look."""

PROCESSORS_GROUP: Final = "pointillist-processors"
"""The consumer group of the frames topic, whose committed offsets say what is done."""


class KafkaTopic(StrEnum):
    """The Kafka topics; the record key is the camera id, for models see `schemas.models`."""

    FRAMES = "pointillist.frames.v1"
    EVENTS = "pointillist.events.v1"
    VERDICTS = "pointillist.verdicts.v1"
    ALERTS = "pointillist.alerts.v1"
    DEAD_LETTERS = "pointillist.dead-letters.v1"
    MODELS = "pointillist.models.v1"
