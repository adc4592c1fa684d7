"""What a recorder is told: addresses, bounds and the rule of evidence."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from schemas.topics import KafkaTopic

_DAY_S = 86_400.0


class EvidenceRule(BaseModel):
    """When the probes of one camera are evidence of a backdoor trigger.

    The checked probes of `window_frames` consecutive sequence numbers of one boot are read in their order; an alert is
    raised at the first one up to which at least `min_flagged` were flagged, and at least the share `min_flagged_share`
    of all. A missing frame is waited for at most `patience_s`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_frames: int = Field(default=200, ge=1, le=100_000)
    min_flagged: int = Field(default=3, ge=1)
    min_flagged_share: float = Field(default=0.5, ge=0, le=1)
    patience_s: float = Field(default=5.0, ge=0)


class Bounds(BaseModel):
    """What the stores may hold: the oldest goes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_rows: int = Field(default=5_000_000, ge=1)
    database_bytes: int = Field(default=2 * 2**30, ge=2**16)
    database_age_s: float = Field(default=30 * _DAY_S, gt=0)
    quarantine_bytes: int = Field(default=2**30, ge=0)
    quarantine_age_s: float = Field(default=30 * _DAY_S, gt=0)
    dead_letter_bytes: int = Field(default=64 * 2**20, ge=0)
    dead_letter_age_s: float = Field(default=30 * _DAY_S, gt=0)
    evidence_rows: int = Field(default=200_000, ge=1)
    alert_rows: int = Field(default=100_000, ge=1)
    strangers: int = Field(default=1_000, ge=0)
    """Cameras kept by their status alone, which is not signed, before they have sent a frame."""
    preview_cameras: int = Field(default=1_000, ge=0)
    preview_bytes: int = Field(default=64 * 2**20, ge=0)
    purge_rows: int = Field(default=500, ge=1)
    """Rows that one step of purging takes, so that recording never waits long for it."""


class RecorderSettings(BaseModel):
    """Settings of `pointillist record`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: str
    """Bootstrap servers, host:port."""
    database: str = "sqlite:///pointillist.sqlite"
    """An SQLAlchemy URL: sqlite:///FILE or postgresql+psycopg://…"""
    quarantine: str = "quarantine"
    """A folder, or any URL that fsspec opens, such as s3://bucket/prefix."""
    http: tuple[str, int] | None = None
    """Where the pages listen; port 0 takes a free one."""
    bounds: Bounds = Bounds()
    evidence: EvidenceRule = EvidenceRule()
    linger_ms: int = Field(default=50, ge=0, le=10_000)
    """How long records are gathered for one transaction."""
    batch_records: int = Field(default=2_000, ge=1)
    silent_after_s: float = Field(default=10.0, gt=0)
    """An online camera without a frame for this long is called silent."""
    forget_after_s: float = Field(default=3_600.0, gt=0)
    """The metrics of a camera without a frame for this long are removed."""
    shutdown_s: float = Field(default=10.0, gt=0)
    verdicts_topic: str = KafkaTopic.VERDICTS.value
    events_topic: str = KafkaTopic.EVENTS.value
    dead_letters_topic: str = KafkaTopic.DEAD_LETTERS.value
    alerts_topic: str = KafkaTopic.ALERTS.value
