"""Settings of a recorder, and of the roles that read its records."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.evidence.rule import EvidenceRule
from schemas.limits import MAX_CAMERAS
from schemas.settings import KafkaSettings, RoleSettings, SettingsTable, TracingSettings
from schemas.topics import KafkaTopic

DAY_S: Final = 86_400.0


def _host(text: str) -> str:
    """Return the name or address in a `Host` header: without port and brackets."""
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        return re.sub(r"(?<=.):[0-9]+$", "", text).strip("[]")


Age = Annotated[float, Field(gt=0, le=36_500 * DAY_S)]
"""An age in seconds. Larger ones, such as infinity, do not fit into the database's times."""
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:\[\]-]+$"), AfterValidator(_host)]

POSTGRESQL_BYTES: Final = 64 * 2**30
"""Two days of 1,000 frames a second."""
LEAST_BYTES: Final = 2**30
"""The bound on a disk that is nearly full."""
SILENT_AFTER_S: Final = 10.0


class ProbePlan(SettingsTable):
    """Plan of the probes: cameras that are new or suspect send more whole frames, and STRIP checks more of them."""

    extra_per_s: float = Field(default=8.0, ge=0)
    """Frames a second that all cameras send whole beyond their own settings; 0 requests none."""
    rising_share: float = Field(default=1.0, gt=0, le=1)
    """Probe share of a camera whose evidence rises towards an alarm."""
    rising_level: float = Field(default=0.2, gt=0, le=1)
    """Evidence above which it counts as rising, as a share of the alarm's level."""
    new_share: float = Field(default=0.5, gt=0, le=1)
    """Probe share of a camera without a baseline."""
    new_extra: float = Field(default=0.01, ge=0, le=1)
    """Share of the fleet's frames that cameras without a baseline send whole beyond their own settings. They take
    turns, and the last request may exceed the share."""
    again_s: float = Field(default=3.0, gt=0)
    """Seconds after which a request is repeated to a camera that has not applied it."""


class Bounds(SettingsTable):
    """Bounds of the stores; the oldest entries are deleted first. Age bounds hold as long as the disk has room."""

    database_rows: int | None = Field(default=None, ge=1)
    """Maximum rows of frames. Default: no limit of rows."""
    database_bytes: int | None = Field(default=None, ge=2**16)
    """Maximum bytes of frames in the database, without counts and tables that have their own bound. Default: half of
    the free disk for SQLite, 64 GiB for PostgreSQL."""
    database_age_s: Age = 30 * DAY_S
    """Maximum age of frames and of the counts per minute, in seconds."""
    quarantine_bytes: int = Field(default=2**30, ge=0)
    """Maximum bytes of quarantined frames."""
    quarantine_age_s: Age = 30 * DAY_S
    """Maximum age of quarantined frames, in seconds."""
    dead_letter_bytes: int = Field(default=64 * 2**20, ge=0)
    """Maximum bytes of dead letters whose camera is verified."""
    foreign_letter_bytes: int = Field(default=64 * 2**20, ge=0)
    """Maximum bytes of dead letters without a verified camera, which anybody can send."""
    dead_letter_age_s: Age = 30 * DAY_S
    """Maximum age of dead letters, in seconds."""
    camera_ledgers: int = Field(default=256, ge=1)
    """Maximum ledgers of one camera, one for each boot; older ledgers are summed. Ledgers of boots that continue, or
    that have frames without a known fate, are summed only beyond four times this number."""
    evidence_rows: int = Field(default=200_000, ge=1)
    """Maximum rows of evidence."""
    alert_rows: int = Field(default=100_000, ge=1)
    """Maximum rows of backdoor alerts, and of sightings."""
    strangers: int = Field(default=MAX_CAMERAS, ge=0)
    """Maximum number of cameras with a status and no frame yet. All cameras of a new fleet count."""
    preview_cameras: int = Field(default=1_000, ge=0)
    """Maximum number of cameras with previews in memory."""
    preview_bytes: int = Field(default=64 * 2**20, ge=0)
    """Maximum bytes of previews in memory."""
    purge_rows: int = Field(default=500, ge=1)
    """Rows that one step of the purge deletes. Recording waits for one step at most. While more is left, each batch
    also deletes as many of the oldest frames as it records."""


class RecordsSettings(KafkaSettings):
    """Settings of every role that reads the records."""

    database: str = ""
    """SQLAlchemy URL of the recorder's database, sqlite:///FILE or postgresql+psycopg://…. Default: SQLite in the state
    folder."""
    quarantine: str = ""
    """Folder of quarantined frames, or any URL that fsspec opens, such as s3://bucket/prefix. Default: in the state
    folder."""
    bounds: Bounds = Bounds()
    silent_after_s: float = Field(default=SILENT_AFTER_S, gt=0)
    """Seconds without a frame after which a camera is silent, unless it announces a lower frame rate."""

    frames_topic: ClassVar[str] = KafkaTopic.FRAMES.value
    verdicts_topic: ClassVar[str] = KafkaTopic.VERDICTS.value
    events_topic: ClassVar[str] = KafkaTopic.EVENTS.value
    dead_letters_topic: ClassVar[str] = KafkaTopic.DEAD_LETTERS.value
    alerts_topic: ClassVar[str] = KafkaTopic.ALERTS.value


class RecorderSettings(RoleSettings, RecordsSettings, TracingSettings):
    """Settings of `pointillist record`."""

    group: str | None = None
    """Consumer group of the recorders that share one PostgreSQL; each reads a part of the partitions. Default: no
    group; this recorder reads all partitions."""
    session_timeout_s: float = Field(default=6.0, ge=6.0)
    """Seconds after which the other recorders of the group take over the partitions of a recorder that crashed or
    hangs. Kafka requires at least 6."""
    evidence: EvidenceRule = EvidenceRule()
    probes: ProbePlan = ProbePlan()
    linger_ms: int = Field(default=50, ge=0, le=10_000)
    """Maximum linger of a transaction, in milliseconds: records are gathered for this long. The linger adapts to the
    load: it is zero while the database is mostly idle."""
    batch_records: int = Field(default=5_000, ge=1)
    """Approximate number of records in one transaction while there is a backlog. Larger transactions write fewer pages
    of an index."""
    forget_after_s: float = Field(default=3_600.0, gt=0)
    """Seconds without a frame after which the metrics of a camera that is not faulty are removed, unless its announced
    rate is so low that it is not silent yet."""
    console_store: str = ""
    """SQLAlchemy URL of the console's own database: cameras that were removed there raise no alert until they send
    again. Default: that of `up` on the state folder, SQLite in it unless `console.store` is set."""
    shutdown_s: float = Field(default=10.0, gt=0)
    """Deadline of the shutdown, in seconds."""

    @model_validator(mode="after")
    def _check_baseline(self) -> Self:
        fewest, most = self.evidence.baseline_probes, self.evidence.history_probes
        if fewest > most:
            raise ValueError(
                f"evidence.baseline_probes: expected at most history_probes, {most}, got {fewest}: no camera would "
                "have a baseline. Correct one."
            )
        return self

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if self.group is not None and (self.database.startswith("sqlite") or not (self.database or self.state is None)):
            raise ValueError(
                "group: expected a PostgreSQL database, got SQLite, which one recorder uses alone. "
                "Set database, or remove group."
            )
        return self
