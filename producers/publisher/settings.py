"""Settings of a camera's connection and window."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from schemas.settings import SettingsTable


class WindowSettings(SettingsTable):
    """Limits on the frames that are sent and not confirmed. They bound every later queue."""

    frames: int = Field(default=256, ge=1, le=65_000)
    """Maximum number of unconfirmed frames."""
    bytes: int = Field(default=32 * 2**20, ge=1)
    """Maximum bytes of unconfirmed frames; a single frame may be larger."""


class LinkSettings(BaseModel):
    """Times of the MQTT connection and of the resends, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keepalive_s: int = Field(default=5, ge=1)
    """Keep-alive interval of MQTT. A broker that hangs is detected within twice this time. The time counts from the
    last byte that the broker has sent. While the uplink is busy with a frame, it counts from the last byte that the
    broker, or a proxy before it, has acknowledged."""
    session_expiry_s: int = Field(default=60, ge=0)
    connect_timeout_s: float = Field(default=3.0, gt=0)
    reconnect_s: float = Field(default=0.2, gt=0)
    reconnect_max_s: float = Field(default=5.0, gt=0)
    steady_s: float = Field(default=10.0, ge=0)
    """Seconds after which a connection counts as steady. After the loss of a steady connection, the camera reconnects
    at once. Two devices with one name disconnect each other earlier, and wait longer each time."""
    taken_over_s: float = Field(default=30.0, gt=0)
    """Maximum seconds without a connection after another device has connected under this name."""
    grace_s: float = Field(default=1.0, gt=0)
    """Seconds from a frame's last transmission to its resend, if later frames were confirmed and this frame was not."""
    retry_s: float = Field(default=2.0, gt=0)
    """Seconds without progress after which the oldest frame is sent again; doubles up to `retry_max_s`."""
    retry_max_s: float = Field(default=15.0, gt=0)
    ledger_every_s: float = Field(default=5.0, gt=0)
    """Interval between two reports of a boot's ledger, in seconds."""
    first_answer_s: float | None = Field(default=None, gt=0)
    """Seconds without any confirmation after which the camera logs the possible causes; None disables this log line."""
