"""What one bridge is told."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from producers.bridge.quota import WINDOW_BYTES
from schemas.limits import MAX_MESSAGE_BYTES
from schemas.topics import PROCESSORS_GROUP
from schemas.transport.access import KafkaAddress, Login, Tls

KEPT_BYTES: Final = 32 * 2**20
"""Freed memory that a bridge's process keeps for the next batches; see `schemas.runtime.memory.keep_freed`."""


class BridgeSettings(BaseModel):
    """One bridge. Several run side by side when each has a `name` of its own and all are `shared`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = Field(default=1883, ge=1, le=65535)
    mqtt_tls: Tls | None = None
    """None is without TLS."""
    mqtt_login: Login | None = None
    kafka_bootstrap: KafkaAddress = "127.0.0.1:9092"
    name: str = Field(default="bridge", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Its MQTT client id: two bridges with one name throw each other out."""
    group: str = Field(default="pointillist-bridge", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The share that divides the frames among bridges."""
    mode: Literal["shared", "single"] = "shared"
    """`single`: the only bridge, with a session that the broker keeps while it is away, for publishers that know no
    confirmations."""
    session_expiry_s: int = Field(default=86_400, ge=1, le=2**32 - 1)
    """How long the broker keeps the session of a `single` bridge."""
    receive_maximum: int = Field(default=1000, ge=1, le=65535)
    """Most messages that the broker lets stand unacknowledged."""
    keepalive_s: int = Field(default=5, ge=1, le=600)
    linger_ms: float = Field(default=10.0, ge=0, le=10_000)
    """How long the first record of a batch waits for others, at most: not at all while batches are on their way for a
    small part of the time, and the longer the more of it they take."""
    linger_adapts: bool = True
    """False: every batch waits for so long."""
    batch_bytes: int = Field(default=2**20, ge=1024, le=MAX_MESSAGE_BYTES)
    """A batch of more than one record is at most this large."""
    confirm_interval_ms: float = Field(default=100.0, gt=0, le=60_000)
    max_buffered_bytes: int = Field(default=32 * 2**20, ge=1024, le=40 * 2**20)
    """Above it the bridge stops reading MQTT. One request to Kafka can hold all that is buffered, hence the limit:
    with one largest message more it still fits what brokers accept in a request (64 MiB or more)."""
    max_backlog_bytes: int = Field(default=256 * 2**20, ge=1)
    """While any partition of the frames topic holds more that the processors have not done, no frames are taken; the
    cameras keep them. At most a half of what the topic's retention keeps of a partition, for the size of what waits is
    estimated, about once a second."""
    camera_backlog_bytes: int = Field(default=64 * 2**20, ge=1)
    """Of one camera, the bytes that this bridge has given to Kafka and the processors have not done. Beyond it no frame
    of that camera is taken, so that one camera alone never reaches `max_backlog_bytes`, which holds all cameras back.
    More than `credit_bytes` and a camera's window: an honest one stays below."""
    backlog_interval_s: float = Field(default=0.25, gt=0)
    credit_frames: int = Field(default=256, ge=1)
    credit_bytes: int = Field(default=16 * 2**20, ge=1)
    """A frame is confirmed when the processors are at most so many frames, and about so many bytes, behind it."""
    camera_messages_per_s: float = Field(default=2000.0, ge=0)
    camera_bytes_per_s: float = Field(default=128 * 2**20, ge=0)
    """What each camera may send by this bridge; 0 is without a bound. Beyond it the camera is confirmed later, and what
    it sends all the same is not taken. A `single` bridge has no such bound."""
    camera_window_bytes: int = Field(default=WINDOW_BYTES, ge=1)
    """What may come at once beyond a second of that: at least twice what a camera has unconfirmed."""
    camera_rates: Path | None = None
    """A JSON file with MiB a second of the cameras that have a bound of their own; it may change."""
    processors_group: str = PROCESSORS_GROUP
    """The consumer group whose committed offsets say what is done; none committed yet means nothing is."""
    delivery_deadline_s: float = Field(default=30.0, gt=0)
    """A batch that Kafka has not acknowledged by then is sent again by a new producer."""
    shutdown_s: float = Field(default=10.0, gt=0)
    """For all of the shutdown: flush, acknowledge, confirm, disconnect."""
