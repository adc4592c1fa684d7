"""Settings of a camera's connection and window."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from schemas.settings import SettingsTable


class WindowSettings(SettingsTable):
    """The maximum of frames in flight, unconfirmed. It bounds every later queue."""

    frames: int = Field(default=256, ge=1, le=65_000)
    """Frames that were sent and are not confirmed."""
    bytes: int = Field(default=32 * 2**20, ge=1)
    """Their bytes; a lone frame may be larger."""


class LinkSettings(BaseModel):
    """Times of the MQTT connection and of the resends, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keepalive_s: int = Field(default=5, ge=1)
    """A broker that hangs is noticed within twice this time."""
    session_expiry_s: int = Field(default=60, ge=0)
    connect_timeout_s: float = Field(default=3.0, gt=0)
    reconnect_s: float = Field(default=0.2, gt=0)
    reconnect_max_s: float = Field(default=5.0, gt=0)
    steady_s: float = Field(default=10.0, ge=0)
    """Seconds after which a connection counts as steady, and is made again at once after its loss. Two devices with one
    name disconnect each other and wait longer each time."""
    taken_over_s: float = Field(default=30.0, gt=0)
    """Maximum seconds without a connection after another device has connected under this name."""
    grace_s: float = Field(default=1.0, gt=0)
    """A frame that a later confirmation passed over is sent again this long after its last transmission."""
    retry_s: float = Field(default=2.0, gt=0)
    """Without any progress for this long, the oldest frame is sent again; doubles up to `retry_max_s`."""
    retry_max_s: float = Field(default=15.0, gt=0)
    ledger_every_s: float = Field(default=5.0, gt=0)
    """Interval between two reports of a boot's ledger, in seconds."""
    first_answer_s: float | None = Field(default=None, gt=0)
    """Seconds without any confirmation after which the camera logs the possible causes; None never does."""
