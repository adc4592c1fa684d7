"""What a recorder is told: addresses, bounds, the rule of evidence and the plan of probes."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.evidence.rule import EvidenceRule
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress

_DAY_S = 86_400.0

HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:\[\]-]+$")]


POSTGRESQL_BYTES: Final = 64 * 2**30
"""Two days of 1,000 frames a second."""
LEAST_BYTES: Final = 2**30
"""However full the disk is."""


class ProbePlan(BaseModel):
    """When a camera is told to send more of its frames whole, so that STRIP sees more of it.

    What all of them send beyond their own settings is at most `extra_per_s` frames a second; 0 tells none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    extra_per_s: float = Field(default=8.0, ge=0)
    rising_share: float = Field(default=1.0, gt=0, le=1)
    """Of a camera whose evidence is on its way to an alarm."""
    rising_level: float = Field(default=0.2, gt=0, le=1)
    """How far on its way it must be, 1 being the alarm."""
    new_share: float = Field(default=0.5, gt=0, le=1)
    """Of a camera without a baseline."""
    new_extra: float = Field(default=0.01, ge=0, le=1)
    """Of the frames that the fleet sends, what such cameras may send whole beyond their own settings. They take turns:
    the last one that is told may exceed it."""
    again_s: float = Field(default=3.0, gt=0)
    """A camera that has not obeyed is told again after so long."""


class Bounds(BaseModel):
    """What the stores may hold: the oldest goes first. Frames are kept by time, as long as their disk bears it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_rows: int | None = Field(default=None, ge=1)
    database_bytes: int | None = Field(default=None, ge=2**16)
    """Of the frames; counts, which are kept for good, and what has a bound of its own come on top. None
    leaves them half of what the disk of a SQLite file has for them, and `POSTGRESQL_BYTES` of a server's."""
    database_age_s: float = Field(default=30 * _DAY_S, gt=0)
    quarantine_bytes: int = Field(default=2**30, ge=0)
    quarantine_age_s: float = Field(default=30 * _DAY_S, gt=0)
    dead_letter_bytes: int = Field(default=64 * 2**20, ge=0)
    """Of verified frames."""
    foreign_letter_bytes: int = Field(default=64 * 2**20, ge=0)
    """Of payloads without a verified identity, which anybody can send."""
    dead_letter_age_s: float = Field(default=30 * _DAY_S, gt=0)
    camera_ledgers: int = Field(default=256, ge=1)
    """Of one camera, one for each boot: older ones are summed. Those of boots that are not over, or that have frames
    without a fate, are summed only beyond four times as many."""
    evidence_rows: int = Field(default=200_000, ge=1)
    alert_rows: int = Field(default=100_000, ge=1)
    strangers: int = Field(default=1_000, ge=0)
    """Cameras kept by their status alone, before they have sent a frame."""
    preview_cameras: int = Field(default=1_000, ge=0)
    preview_bytes: int = Field(default=64 * 2**20, ge=0)
    purge_rows: int = Field(default=500, ge=1)
    """Rows that one step of purging takes, so that recording never waits long for it."""


SILENT_AFTER_S: Final = 10.0


class RecorderSettings(BaseModel):
    """Settings of `pointillist record`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: KafkaAddress
    """Bootstrap servers, host:port."""
    database: str = "sqlite:///pointillist.sqlite"
    """An SQLAlchemy URL: sqlite:///FILE or postgresql+psycopg://…"""
    group: str | None = None
    """The consumer group of the recorders that share a PostgreSQL: each takes its share of the partitions. None reads
    all of them, alone."""
    session_timeout_s: float = Field(default=6.0, ge=6.0)
    """So long after a recorder of a group has died or hangs, the others have its partitions. Kafka allows no less."""
    quarantine: str = "quarantine"
    """A folder, or any URL that fsspec opens, such as s3://bucket/prefix."""
    bounds: Bounds = Bounds()
    evidence: EvidenceRule = EvidenceRule()
    probes: ProbePlan = ProbePlan()
    linger_ms: int = Field(default=50, ge=0, le=10_000)
    """How long records are gathered for one transaction, at most: not at all while the database is idle most of
    the time, and the longer the more of it the transactions take."""
    batch_records: int = Field(default=5_000, ge=1)
    """Records in one transaction, about: so many where there is a backlog. Of as many cameras each changes a page of an
    index, which the next frames of these cameras change again: larger transactions write it less often."""
    silent_after_s: float = Field(default=SILENT_AFTER_S, gt=0)
    """A camera without a frame for this long is silent, unless it announces fewer frames than that."""
    forget_after_s: float = Field(default=3_600.0, gt=0)
    """The metrics of a camera without a frame for this long are removed."""
    shutdown_s: float = Field(default=10.0, gt=0)
    frames_topic: str = KafkaTopic.FRAMES.value
    """Written by the console's replay of dead letters only."""
    verdicts_topic: str = KafkaTopic.VERDICTS.value
    events_topic: str = KafkaTopic.EVENTS.value
    dead_letters_topic: str = KafkaTopic.DEAD_LETTERS.value
    alerts_topic: str = KafkaTopic.ALERTS.value
