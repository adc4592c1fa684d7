"""Names, labels and buckets of all metrics: the contract between the roles, the dashboards and the alert rules.

Base units, ratios from 0 to 1, counters end in `_total`. `camera_id` is a label only where the series are bounded in
number. Where a rule fires at the first count, a series stays at 0 until 15 s after its first scrape and then catches
up: a count before it would be no increase.

A role makes its metrics with `METRIC.on(registry)`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.late_counter import LateCounter

Kind = TypeVar("Kind", Counter, Gauge, Histogram)

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LOAD_SECONDS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Buckets up to the default time limit of a model's start: compiling a model takes minutes."""
FRAMES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
EXEMPLAR_LETTERS: Final = 128
"""OpenMetrics limit of all label names and values of an exemplar together, in characters."""
BITS: Final = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)


@dataclass(frozen=True)
class Metric(Generic[Kind]):
    """One metric family, before it is registered."""

    kind: type[Kind]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def on(self, registry: CollectorRegistry) -> Kind:
        """Register the family and return it."""
        if self.kind is Histogram:
            return self.kind(self.name, self.help, self.labels, registry=registry, buckets=self.buckets)
        return self.kind(self.name, self.help, self.labels, registry=registry)


def observe_often(histogram: Histogram, counts: Mapping[float, int]) -> None:
    """Observe each value as many times as `counts` gives: the client has no call for several observations at once."""
    found = [0] * len(histogram._buckets)
    for value, count in counts.items():
        found[bisect_left(histogram._upper_bounds, value)] += count
    for bucket, count in zip(histogram._buckets, found, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(math.fsum(value * count for value, count in counts.items()))


def exemplar(camera_id: str, boot: int, seq: int) -> dict[str, str] | None:
    """Return the labels of the frame that increased a counter; None if the camera's name exceeds OpenMetrics' limit."""
    found = {"camera_id": camera_id, "boot": f"{boot:016x}", "seq": str(seq)}
    return found if sum(len(key) + len(value) for key, value in found.items()) <= EXEMPLAR_LETTERS else None


class _CameraFrames(LateCounter):
    """Frames by outcome. Only the shed ones are held: the others are rates."""

    def _is_late(self) -> bool:
        return "shed" in self._labelvalues


# Every role
BUILD_INFO = Metric(Gauge, "pointillist_build_info", "1, with the role and its version as labels", ("role", "version"))
CERTIFICATE_EXPIRATION = Metric(
    Gauge,
    "pointillist_certificate_expiration_timestamp_seconds",
    "Unix time at which a certificate ends, by purpose; of several, the earliest. Of the role itself: mqtt, kafka, "
    "admin (of the console), pages (which the console serves). Of servers, as the monitor is presented them: "
    "mqtt_server, kafka_server, database_server",
    ("purpose",),
)

DISK_FREE = Metric(
    Gauge,
    "pointillist_disk_free_bytes",
    "Free bytes on the disk of a use: database, quarantine, spools",
    ("holds",),
)
KAFKA_DAMAGED = Metric(
    LateCounter,
    "pointillist_kafka_damaged_records_total",
    "Skipped records in damaged batches of Kafka's log, by reader: processor, recorder",
    ("reader",),
)

# Cameras and the simulated fleet
CAMERA_FRAMES = Metric(
    _CameraFrames,
    "pointillist_camera_frames_total",
    "Frames at the cameras, by outcome: published, confirmed, resent, shed, skipped, no_motion (not sent)",
    ("outcome",),
)
CAMERA_BYTES = Metric(
    Counter,
    "pointillist_camera_bytes_total",
    "Bytes of published frames: raw as captured, sent as messages (first sends only), resent",
    ("kind",),
)
CAMERA_COMPARED = Metric(
    Counter,
    "pointillist_camera_compared_bytes_total",
    "Bytes of one frame in a hundred of cameras with measure_codec, by way: sent, raw, jpeg (quality 90), codec "
    "(without a mask)",
    ("way",),
)
CAMERA_TASKS = Metric(
    Gauge,
    "pointillist_camera_tasks",
    "Cameras of this process by phase of their task: opening, capturing, failing, disconnected, draining, ended",
    ("phase",),
)
CAMERA_LIST_REFUSED = Metric(
    Gauge,
    "pointillist_camera_list_refused",
    "1 while the camera file is invalid; the previous cameras keep running",
)
SPOOL_FRAMES = Metric(Gauge, "pointillist_spool_frames", "Frames in the spools without a confirmation from Kafka")
SPOOL_BYTES = Metric(Gauge, "pointillist_spool_bytes", "Disk usage of the spools in bytes")
SPOOL_OLDEST = Metric(Gauge, "pointillist_spool_oldest_age_seconds", "Age of the oldest frame in any spool")
SPOOL_DAMAGED = Metric(
    Counter,
    "pointillist_spool_damaged_total",
    "Spool entries damaged by the storage medium: frame (then shed), ledger",
    ("kind",),
)
CAMERA_RECONNECTS = Metric(Counter, "pointillist_camera_reconnects_total", "MQTT reconnections")
SOURCE_RESTARTS = Metric(
    Counter, "pointillist_source_restarts_total", "Sources reopened, by cause: hung, failed", ("cause",)
)

# Bridge
BRIDGE_MESSAGES = Metric(
    Counter,
    "pointillist_bridge_messages_total",
    "Messages from MQTT by channel and outcome: forwarded, dead_lettered (both stored by Kafka), dropped (rejected, "
    "without a dead letter, because too many wait for the recorder)",
    ("channel", "outcome"),
)
BRIDGE_BYTES = Metric(Counter, "pointillist_bridge_bytes_total", "Payload bytes received from MQTT")
BRIDGE_UNACKNOWLEDGED = Metric(
    Gauge, "pointillist_bridge_unacknowledged_messages", "Messages received and not yet acknowledged to MQTT"
)
BRIDGE_KAFKA = Metric(
    Histogram,
    "pointillist_bridge_kafka_seconds",
    "Time from the first message of a batch to Kafka's acknowledgement",
    buckets=SECONDS,
)
BRIDGE_BACKLOG = Metric(
    Gauge,
    "pointillist_bridge_backlog_bytes",
    "Estimated bytes of unprocessed frames in Kafka, of the partition with the most",
)
BRIDGE_BACKPRESSURE = Metric(
    Gauge,
    "pointillist_bridge_backpressure_active",
    "1 while the bridge rejects frames because too many in Kafka are unprocessed, or too many verdicts or dead letters "
    "unrecorded",
)
BRIDGE_CONFIRMATIONS = Metric(Counter, "pointillist_bridge_confirmations_total", "Confirmations sent to cameras")
BRIDGE_OVER_QUOTA = Metric(
    LateCounter,
    "pointillist_bridge_over_quota_messages_total",
    "Messages that the bridge rejected because their camera exceeded its quota of messages, bytes or boots, or its "
    "limit of unprocessed bytes in Kafka; those of cameras beyond the first 200 count under the camera_id `other`",
    ("camera_id",),
)
BRIDGE_THROTTLED = Metric(
    Gauge,
    "pointillist_bridge_throttled_cameras",
    "Cameras whose confirmations are delayed because they exceed their rate",
)
MQTT_REFUSALS = Metric(
    LateCounter,
    "pointillist_mqtt_refusals_total",
    "Client refusals in the MQTT broker's log, counted by each bridge: login, publish or subscription without the "
    "right, takeover of a session by another connection with the same name, oversize message, broken protocol; "
    "unnamed: a connection that ended before its client had a name, also by a refused login",
    ("kind",),
)
BRIDGE_KEY_REQUESTS = Metric(
    Counter, "pointillist_bridge_key_requests_total", "Requests for a key frame sent to cameras"
)
BRIDGE_PROBE_REQUESTS = Metric(
    Counter, "pointillist_bridge_probe_requests_total", "Changes of the share of probes sent to cameras"
)
BRIDGE_REFUSED_REQUESTS = Metric(
    LateCounter,
    "pointillist_bridge_refused_requests_total",
    "Requests to cameras among Kafka's events that the server did not sign or that are out of date, by kind",
    ("kind",),
)
BRIDGE_KAFKA_ERRORS = Metric(
    LateCounter, "pointillist_bridge_kafka_errors_total", "Failed attempts to send a batch to Kafka"
)

# Processors
FRAMES_TOTAL = Metric(
    Counter,
    "pointillist_frames_total",
    "Frames read from Kafka, by outcome: classified, dead_lettered",
    ("outcome",),
)
REFUSED = Metric(
    LateCounter,
    "pointillist_refused_frames_total",
    "Frames with a valid tag that a processor dead-lettered without processing, by reason: over_size, over_quota",
    ("reason",),
)
FRAME_BYTES = Metric(
    Counter, "pointillist_frame_bytes_total", "Bytes of the frames read from Kafka: raw as captured, sent", ("kind",)
)
STAGE = Metric(Histogram, "pointillist_stage_seconds", "Duration of a stage for one batch", ("stage",), buckets=SECONDS)
STAGE_ERRORS = Metric(
    LateCounter,
    "pointillist_stage_errors_total",
    "Frames on which a stage failed; for `pictures`, verdicts without preview and evidence; for `preview`, `stillness` "
    "and `drift`, batches without that result",
    ("stage",),
)
KEY_FRAMES = Metric(
    Counter,
    "pointillist_key_frames_total",
    "Key frames at the processors: received, recalled from Kafka, requested from the camera",
    ("outcome",),
)
KEYED_FRAMES = Metric(
    Counter,
    "pointillist_keyed_frames_total",
    "Frames that depend on a key frame: with_key, waited for it, without_key and so dead-lettered",
    ("outcome",),
)
VIDEO_UNITS = Metric(
    Counter,
    "pointillist_video_frames_total",
    "Frames under video at the decoders: decoded, restored from Kafka, duplicate, missing an earlier frame, refused, "
    "crashed or hung with their process, reopened with their decoder",
    ("outcome",),
)
VIDEO_HELD_BYTES = Metric(Gauge, "pointillist_video_held_bytes", "Bytes of the coded frames of open groups in memory")
BATCH = Metric(Histogram, "pointillist_batch_frames", "Frames in a batch", buckets=FRAMES)
QUEUE = Metric(Gauge, "pointillist_queue_frames", "Frames waiting in a queue: decode, batch, strip", ("queue",))
LAG = Metric(Gauge, "pointillist_lag_frames", "Unread frames in this processor's partitions of Kafka")
UNREAD = Metric(
    Gauge,
    "pointillist_partitions_unassigned",
    "1 while no processor is assigned to a partition of the frames topic, or the topic does not exist",
)
PAUSED = Metric(Gauge, "pointillist_paused_partitions", "Partitions paused by back-pressure")
STRIP_FRAMES = Metric(
    Counter, "pointillist_strip_frames_total", "Frames for STRIP, by outcome: checked, flagged, shed", ("outcome",)
)
CERTIFICATES = Metric(
    Counter,
    "pointillist_certificates_total",
    "Frames whose label was to be certified against stickers, by outcome: certified, uncertified, failed, shed",
    ("outcome",),
)
STRIP_ENTROPY = Metric(
    Histogram, "pointillist_strip_entropy_bits", "Entropy of a checked frame, over the overlays seen", buckets=BITS
)
MODEL_INFO = Metric(Gauge, "pointillist_model_info", "1, with the model that this processor serves", ("model_id",))
BACKEND_INFO = Metric(
    Gauge,
    "pointillist_backend_info",
    "1, with the runtime of each network of the model that this processor serves: classifier, restorer",
    ("network", "backend", "precision"),
)
MODEL_SWAPS = Metric(
    LateCounter,
    "pointillist_model_swaps_total",
    "Published models at a processor, by outcome: switched, refused, superseded by a newer one during its load",
    ("outcome",),
)
COMPARISONS = Metric(
    Counter,
    "pointillist_comparisons_total",
    "Frames for both models of a rollout, by outcome: compared, failed on the candidate, dropped",
    ("outcome",),
)
DRIFT = Metric(
    Gauge,
    "pointillist_drift_ratio",
    "Discrepancy of live pictures or answers from the calibration ÷ its limit, the least of three windows in "
    "succession; above 1 is drift; absent without a reference",
    ("of",),
)
MODEL_LOAD = Metric(
    Histogram,
    "pointillist_model_load_seconds",
    "Time to fetch, load and warm a published model",
    buckets=LOAD_SECONDS,
)
STRIP_PASSES = Metric(
    Counter, "pointillist_strip_passes_total", "Network passes of checked frames, one for each overlay"
)
DEVICE_BUSY = Metric(Counter, "pointillist_device_busy_seconds_total", "Busy time of the device thread")

# Recorder
RECORDED = Metric(
    Counter, "pointillist_recorded_frames_total", "Verdicts, by outcome: recorded, duplicate", ("outcome",)
)
VERDICTS = Metric(
    Counter,
    "pointillist_verdicts_total",
    "Recorded verdicts, by the name of their class; those of classes beyond the first 100 count under `other`",
    ("class_name",),
)
END_TO_END = Metric(
    Histogram, "pointillist_end_to_end_seconds", "Time from capture to the record in the database", buckets=SECONDS
)
NEGATIVE_LATENCY = Metric(
    Counter, "pointillist_negative_latency_total", "Frames captured in the future by the recorder's clock"
)
CLOCK_SKEW = Metric(
    Gauge, "pointillist_clock_skew_seconds", "Largest amount by which a camera's clock is ahead of the recorder's"
)
TRUTH = Metric(
    Counter,
    "pointillist_truth_frames_total",
    "Frames with a known class, neither with a sticker nor changed by the red team, by result: correct, wrong",
    ("result",),
)
CAMERA_TRUTH = Metric(
    Counter,
    "pointillist_camera_truth_frames_total",
    "Frames with a known class of cameras that the red team attacks, from the first attacked one on, by picture: "
    "attacked, clean, and result: correct, wrong; the attacked ones of cameras beyond the first 200 count under the "
    "camera_id `other`",
    ("camera_id", "picture", "result"),
)
ALERTS = Metric(Counter, "pointillist_alerts_total", "Alerts raised, by kind", ("kind",))
ALERTS_UNPUBLISHED = Metric(
    Gauge, "pointillist_alerts_unpublished", "Alerts in the recorder's database that wait for Kafka"
)
DEAD_LETTERS = Metric(
    LateCounter, "pointillist_dead_letters_total", "Rejected payloads, by stage and reason", ("stage", "reason")
)
STORE_BYTES = Metric(
    Gauge,
    "pointillist_store_bytes",
    "Bytes held: database (the whole of it) and, of it, frames, dead_letters (of verified frames), foreign_letters "
    "(payloads without a verified identity); quarantine",
    ("store",),
)
DATABASES_SET_ASIDE = Metric(
    Gauge, "pointillist_databases_set_aside", "Damaged databases next to the role's own that were not removed yet"
)
RECORDER_LAG = Metric(Gauge, "pointillist_recorder_lag_records", "Records in Kafka that the recorder has not read yet")
KAFKA_REPLICAS_MISSING = Metric(
    Gauge,
    "pointillist_kafka_replicas_missing",
    "Replicas of the recorder's partitions in Kafka that are missing or behind",
)
CAMERA_AGE = Metric(
    Gauge,
    "pointillist_camera_age_seconds",
    "Time since the last frame of a camera, at most 200 cameras",
    ("camera_id",),
)
CAMERA_FLAGGED = Metric(
    Gauge,
    "pointillist_camera_flagged_ratio",
    "Share of flagged frames among a camera's recent probes, at most 200 cameras",
    ("camera_id",),
)
CAMERA_EVIDENCE = Metric(
    Gauge,
    "pointillist_camera_evidence_ratio",
    "Evidence of a trigger as a share of the alert limit, 1 during an episode, at most 200 cameras",
    ("camera_id",),
)
CAMERA_IMPAIRED = Metric(
    Gauge,
    "pointillist_camera_impaired",
    "1 while a camera is in a state that needs attention: alert, offline, silent, refused, degraded, black, "
    "frozen, blurred; at most 200 cameras",
    ("camera_id", "state"),
)
CAMERA_PROBE_SHARE = Metric(
    Gauge,
    "pointillist_camera_probe_share_ratio",
    "Share of its frames that a camera sends whole by its settings, at most 200 cameras",
    ("camera_id",),
)

MAX_CAMERA_SERIES: Final = 200
MAX_CLASS_SERIES: Final = 100

# Console
HTTP_CONNECTIONS = Metric(
    LateCounter,
    "pointillist_http_connections_total",
    "HTTP connections of the console: requests answered, and connections ended by the server: crowded by too many, "
    "late with a request, slow "
    "to read, oversize after an answer; misdirected counts requests for a foreign host (answered too)",
    ("outcome",),
)
CONSOLE_LOGINS = Metric(
    Counter,
    "pointillist_console_logins_total",
    "Logins at the console, by way (password, openid, proxy, token, link) and outcome: accepted, wrong (credentials), "
    "refused (too many attempts, or by a rule), logout",
    ("way", "outcome"),
)

# Monitor: rollouts, and parts of the system without metrics
ROLLOUT_PAIRS = Metric(
    Gauge, "pointillist_rollout_pairs", "Frames of the rollout's slot that the gate counts, 0 without a rollout"
)
ROLLOUT_OUTCOME = Metric(
    Gauge,
    "pointillist_rollout_outcome",
    "1 for the outcome of the rollout so far: measuring, passed, promoted, rolled_back",
    ("outcome",),
)
BROKER_UP = Metric(Gauge, "pointillist_broker_up", "1 while a broker answers, by broker: kafka, mosquitto", ("broker",))
KAFKA_BROKERS = Metric(Gauge, "pointillist_kafka_brokers", "Live nodes of Kafka")
KAFKA_END = Metric(
    Counter,
    "pointillist_kafka_records_total",
    "Records that Kafka has accepted since the topic was created, by topic",
    ("topic",),
)
KAFKA_HELD = Metric(Gauge, "pointillist_kafka_held_records", "Records that Kafka holds, by topic", ("topic",))
KAFKA_GROUP_LAG = Metric(Gauge, "pointillist_kafka_group_lag_records", "Lag of a consumer group in records", ("group",))
KAFKA_UNDER_REPLICATED = Metric(
    Gauge,
    "pointillist_kafka_under_replicated_partitions",
    "Partitions of Pointillist's topics that lack a replica or a leader",
)
MQTT_CLIENTS = Metric(Gauge, "pointillist_mqtt_clients", "Clients connected to mosquitto")
MQTT_MESSAGES = Metric(
    Counter,
    "pointillist_mqtt_messages_total",
    "Messages at mosquitto, by direction: received, sent, dropped",
    ("direction",),
)
MQTT_BYTES = Metric(
    Counter, "pointillist_mqtt_bytes_total", "Bytes at mosquitto, by direction: received, sent", ("direction",)
)
MQTT_STORED = Metric(
    Gauge, "pointillist_mqtt_stored_bytes", "Bytes that mosquitto holds: retained, and waiting for clients"
)
HOST_CPU = Metric(Counter, "pointillist_host_cpu_seconds_total", "Time of all cores, by mode: busy, idle", ("mode",))
HOST_MEMORY = Metric(
    Gauge, "pointillist_host_memory_bytes", "Memory of the machine, by state: used, available", ("state",)
)
HOST_DISK = Metric(
    Gauge, "pointillist_host_disk_bytes", "The disk of the state folder, by state: used, free", ("state",)
)
HOST_DISK_IO = Metric(
    Counter, "pointillist_host_disk_io_bytes_total", "Bytes of all disks, by direction: read, written", ("direction",)
)
HOST_NETWORK = Metric(
    Counter,
    "pointillist_host_network_bytes_total",
    "Bytes of all network interfaces but loopback, by direction: received, sent",
    ("direction",),
)
HOST_LOAD = Metric(Gauge, "pointillist_host_load_ratio", "Load of the last minute for each core")
GPU_BUSY = Metric(Gauge, "pointillist_gpu_busy_ratio", "Share of the time in which a GPU computes", ("gpu",))
GPU_MEMORY = Metric(Gauge, "pointillist_gpu_memory_bytes", "Memory of a GPU, by state: used, free", ("gpu", "state"))
GPU_TEMPERATURE = Metric(Gauge, "pointillist_gpu_temperature_celsius", "Temperature of a GPU", ("gpu",))
GPU_POWER = Metric(Gauge, "pointillist_gpu_power_watts", "Power that a GPU draws", ("gpu",))
AUDITED = Metric(
    Gauge,
    "pointillist_audited_frames",
    "Published frames by outcome, at the last audit: recorded, dead_lettered, shed, pending, lost, unread",
    ("fate",),
)
WORK_WAITING = Metric(
    Gauge,
    "pointillist_work_waiting_seconds",
    "Frames in Kafka that the processors have not finished, divided by their rate of the last minute",
)
AUDIT_AGE = Metric(Gauge, "pointillist_audit_age_seconds", "Time since the last successful audit, or since the start")

# Home Assistant
HOME_CAMERAS = Metric(Gauge, "pointillist_home_cameras", "Cameras that are published to Home Assistant")
HOME_MESSAGES = Metric(Counter, "pointillist_home_messages_total", "Retained messages published to Home Assistant")
