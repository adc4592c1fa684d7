"""Settings of a monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from schemas.settings import HttpUrl, KafkaSettings, MqttSettings, RoleSettings, SettingsTable


class GateRules(SettingsTable):
    """Rules by which a candidate passes or fails; `infra.monitor.gate` describes the tests."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Maximum probability of an error of one rule over all its assessments."""
    least_pairs: int = Field(default=256, ge=16)
    """Frames that both models have judged before a candidate may pass."""
    most_pairs: int = Field(default=2048, ge=256)
    """Frames after which a rule that is still open fails."""
    least_agreement: float = Field(default=0.8, ge=0, le=1)
    """Minimum share of equal classes. Where at least four cameras know the true class of nine frames in ten, only the
    accuracy counts."""
    most_errors: float = Field(default=0.02, ge=0, le=1)
    """Maximum share of frames without an answer."""
    most_confidence_lost: float = Field(default=0.25, ge=0, le=1)
    """Maximum loss of mean confidence."""
    most_accuracy_lost: float = Field(default=0.05, ge=0, le=1)
    """Maximum loss of accuracy where the true class is known."""
    most_times_slower: float = Field(default=2.0, gt=0)
    """Maximum median of the candidate's time for a frame divided by the live model's."""
    most_flagged: float = Field(default=0.1, ge=0, le=1)
    """Maximum share of probes that STRIP flags with the candidate."""
    most_memory_bytes: int = Field(default=2 * 2**30, ge=2**20)
    """Maximum growth of a processor's memory by the candidate."""

    @model_validator(mode="after")
    def _least_within_looks(self) -> Self:
        """Raise ValueError if no look has the least number of pairs."""
        last = 1 << (self.most_pairs.bit_length() - 1)
        if self.least_pairs > last:
            raise ValueError(
                f"least_pairs: expected at most {last}, the last look within most_pairs, got {self.least_pairs}. "
                "Reduce it."
            )
        return self


class MonitorSettings(RoleSettings, MqttSettings, KafkaSettings):
    """Settings of `pointillist monitor`."""

    database: str = ""
    """SQLAlchemy URL of the recorder's database, to which the audit's result, comparisons and rollouts are written.
    Default: SQLite in the state folder."""
    folder: Path | None = None
    """Folder whose disk is measured. Default: the state folder; without one, the working directory."""
    look_s: float = Field(default=5.0, gt=0)
    """Seconds between two readings of Kafka, the machine and its GPUs."""
    audit_s: float = Field(default=10.0, gt=0, le=240)
    """Seconds between two audits. A missing frame counts as lost once processors and recorders have read beyond it,
    after three audits at the earliest. After five minutes without an audit, PointillistAuditSilent fires."""
    alertmanager: HttpUrl | None = None
    """URL of the Alertmanager to which open backdoor alerts and sightings are posted. Default: none are posted. If
    several monitors post alerts, all of them must read the same `console_store`."""
    console: HttpUrl | None = None
    """URL at which people reach the console, for the links in these alerts."""
    console_store: str = ""
    """SQLAlchemy URL of the console's own database: an alert ends when its episode is closed there. Default: that of
    `up` on the state folder, SQLite in it unless `console.store` is set. Without either, an alert ends 15 minutes after
    it was raised."""
    signer: Path | None = None
    """File of the private key that signs the gate's assessments, see `signer init`. Default: the key in the state
    folder. Without a key the gate measures, but decides nothing."""
    trust: Path | None = None
    """File of the trusted signers of the list of models. Default: the file in the state folder."""
    rollout: GateRules = GateRules()
    rollout_s: float = Field(default=1.0, gt=0)
    """Seconds between two assessments of a candidate."""
    alerts_s: float = Field(default=1.0, gt=0, le=240)
    """Seconds between two searches for new alerts. Alertmanager ends an alert that is not posted for five minutes."""
