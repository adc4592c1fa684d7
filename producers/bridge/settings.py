"""Settings of a bridge."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from producers.bridge.quota import WINDOW_BYTES
from schemas.limits import MAX_MESSAGE_BYTES
from schemas.settings import KafkaSettings, MqttSettings, RoleSettings, TracingSettings
from schemas.topics import PROCESSORS_GROUP


class BridgeSettings(RoleSettings, MqttSettings, KafkaSettings, TracingSettings):
    """Settings of a bridge. Several bridges share the load when each has its own `name`."""

    name: str = Field(default="bridge", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """MQTT client id, unique among the bridges: if two bridges use one id, the broker disconnects the older one."""
    group: str = Field(default="pointillist-bridge", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Name of the shared subscription that divides the frames among the bridges. The default is replaced by the name
    in the file of POINTILLIST_SHARE_FILE or in the state folder."""
    receive_maximum: int = Field(default=1000, ge=1, le=65535)
    """Maximum number of messages that the broker sends without an acknowledgement."""
    keepalive_s: int = Field(default=5, ge=1, le=600)
    """MQTT keep-alive, in seconds."""
    linger_ms: float = Field(default=40.0, ge=0, le=10_000)
    """Maximum linger of a batch, in milliseconds: its first record waits this long for others. The linger adapts to the
    load: it is zero while few records arrive and Kafka is mostly idle. Messages that arrive meanwhile are read at its
    end."""
    linger_adapts: bool = True
    """Adapt the linger to the load; false always waits for linger_ms."""
    batch_bytes: int = Field(default=2**20, ge=1024, le=MAX_MESSAGE_BYTES)
    """Maximum bytes of a batch of more than one record."""
    confirm_interval_ms: float = Field(default=100.0, gt=0, le=60_000)
    """Milliseconds between two confirmations to a camera."""
    max_buffered_bytes: int = Field(default=32 * 2**20, ge=1024, le=40 * 2**20)
    """Bytes in the bridge's buffers above which it stops reading from MQTT. One request to Kafka can hold all of them:
    with one message of maximum size they must fit into the 64 MiB that brokers accept."""
    max_backlog_bytes: int = Field(default=256 * 2**20, ge=1)
    """Maximum consumer lag of the processors per partition of the frames topic, in bytes. Above it the bridge stops
    accepting frames and cameras spool them. Set at most half of the bytes that the topic retains per partition: the lag
    is an estimate, about a second old."""
    camera_backlog_bytes: int = Field(default=64 * 2**20, ge=1)
    """Maximum lag of the processors per camera, in bytes. Above it the bridge accepts no frame of this camera, so one
    camera alone never reaches max_backlog_bytes. Set it above credit_bytes and a camera's window."""
    backlog_interval_s: float = Field(default=0.25, gt=0)
    """Seconds between two readings of the lag; four times as long while no confirmation waits for one."""
    credit_frames: int = Field(default=256, ge=1)
    """Maximum lag of the processors, in frames, at which a frame is confirmed to its camera."""
    credit_bytes: int = Field(default=16 * 2**20, ge=1)
    """Maximum lag of the processors, in bytes (approximate), at which a frame is confirmed to its camera."""
    camera_messages_per_s: float = Field(default=2000.0, ge=0)
    """Maximum messages a second of one camera through this bridge; 0 sets no limit. Beyond it the camera's
    confirmations wait, and messages beyond the burst are rejected."""
    camera_bytes_per_s: float = Field(default=128 * 2**20, ge=0)
    """Maximum bytes a second of one camera through this bridge, enforced like camera_messages_per_s; 0 sets no
    limit."""
    camera_window_bytes: int = Field(default=WINDOW_BYTES, ge=1)
    """Burst in bytes that one camera may send beyond one second of its rate. Set at least twice the camera's
    unconfirmed bytes."""
    camera_rates: Path | None = None
    """JSON file with own rates for single cameras, in MiB a second by SITE/CAMERA. It is read again when it changes."""
    processors_group: str = PROCESSORS_GROUP
    """Consumer group of the processors; the lag is measured from its committed offsets."""
    delivery_deadline_s: float = Field(default=30.0, gt=0)
    """Seconds after which a batch without Kafka's acknowledgement is sent again by a new producer."""
    shutdown_s: float = Field(default=10.0, gt=0)
    """Deadline of the shutdown, in seconds: flush, acknowledge, confirm, disconnect."""

    @model_validator(mode="after")
    def _check_credit(self) -> Self:
        if self.camera_backlog_bytes <= self.credit_bytes:
            raise ValueError(
                f"camera_backlog_bytes: expected more than credit_bytes ({self.credit_bytes}), got "
                f"{self.camera_backlog_bytes}. Raise it, or lower credit_bytes."
            )
        return self
