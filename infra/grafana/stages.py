"""The dashboard of the stages, RED: a row for each, with its rate, its errors and its duration."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from infra.grafana.board import board
from infra.grafana.panels import THIRD, Figure, Graph, Limit, Row
from infra.grafana.promql import ROLES, Query, mean, or_zero, quantile, quantiles, rate, series, total
from schemas import metrics as m


def stages() -> Dashboard:
    """Return the dashboard: rate, errors, duration of each stage."""
    return board(
        "pointillist-stages",
        "Pointillist: stages (RED)",
        "Rate, errors and duration of bridges, processors and recorders.",
        [
            Row("Bridges", _bridge()),
            Row("Processors", _processors()),
            Row("Recorders", _recorder()),
            Row("Queues and transport", _between()),
        ],
        of=("role",),
    )


def _bridge() -> list[Graph | Figure]:
    return [
        Graph(
            "Bridge: rate",
            "Messages a second that Kafka has stored, by channel and outcome.",
            "ops",
            (Query(rate(m.BRIDGE_MESSAGES, "channel, outcome", **ROLES), "{{channel}} {{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Bridge: errors",
            "Rejected payloads, and failed attempts to write a batch to Kafka, which the bridge repeats.",
            "ops",
            (
                Query(or_zero(rate(m.BRIDGE_MESSAGES, outcome="dead_lettered", **ROLES)), "dead letters"),
                Query(rate(m.BRIDGE_KAFKA_ERRORS, **ROLES), "Kafka"),
            ),
            THIRD,
        ),
        Graph(
            "Bridge: duration",
            "Time from the first message of a batch to Kafka's acknowledgement.",
            "s",
            quantiles(m.BRIDGE_KAFKA, **ROLES),
            THIRD,
        ),
    ]


def _processors() -> list[Graph | Figure]:
    return [
        Graph(
            "Processors: rate",
            "Frames a second, by outcome.",
            "ops",
            (Query(rate(m.FRAMES_TOTAL, "outcome", **ROLES), "{{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Processors: errors",
            "Frames a second of batches on which a stage failed.",
            "ops",
            (Query(rate(m.STAGE_ERRORS, "stage", **ROLES), "{{stage}}"),),
            THIRD,
        ),
        Graph(
            "Processors: duration",
            "95th percentile for a batch, by stage.",
            "s",
            (Query(quantile(0.95, m.STAGE, "stage", **ROLES), "{{stage}}"),),
            THIRD,
        ),
    ]


def _recorder() -> list[Graph | Figure]:
    return [
        Graph(
            "Recorder: rate",
            "Verdicts a second, by outcome. A duplicate changes nothing.",
            "ops",
            (Query(rate(m.RECORDED, "outcome", **ROLES), "{{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Recorder: errors",
            "Dead letters of all stages by reason, and frames captured in the future by the recorder's clock.",
            "ops",
            (
                Query(or_zero(f"{rate(m.DEAD_LETTERS, 'reason', **ROLES)} > 0"), "{{reason}}"),
                Query(rate(m.NEGATIVE_LATENCY, **ROLES), "captured in the future"),
            ),
            THIRD,
        ),
        Graph(
            "Recorder: duration",
            "Time from capture to record.",
            "s",
            quantiles(m.END_TO_END, **ROLES),
            THIRD,
            limit=Limit(0.5),
        ),
    ]


def _between() -> list[Graph | Figure]:
    return [
        Graph(
            "Lag",
            "Frames and records that wait in Kafka, and missing replicas.",
            "none",
            (
                Query(total(m.LAG, **ROLES), "processors, frames"),
                Query(total(m.RECORDER_LAG, **ROLES), "recorder, records"),
                Query(f"max({series(m.KAFKA_REPLICAS_MISSING, **ROLES)})", "missing replicas"),
            ),
            THIRD,
        ),
        Graph(
            "Queues",
            "Frames that wait inside the processors.",
            "none",
            (Query(total(m.QUEUE, "queue", **ROLES), "{{queue}}"),),
            THIRD,
        ),
        Graph(
            "Video",
            "Frames of groups of pictures at the decoders, by outcome.",
            "ops",
            (Query(rate(m.VIDEO_UNITS, "outcome", **ROLES), "{{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Key frames",
            "Key frames at the processors, the frames that depend on them, and requests that the bridges forward.",
            "ops",
            (
                Query(rate(m.KEY_FRAMES, "outcome", **ROLES), "{{outcome}}"),
                Query(rate(m.KEYED_FRAMES, "outcome", **ROLES), "frames {{outcome}}"),
                Query(rate(m.BRIDGE_KEY_REQUESTS, **ROLES), "forwarded requests"),
            ),
            THIRD,
        ),
        Graph(
            "Open groups",
            "Coded frames in the decoders' memory, from which they can reopen a group.",
            "bytes",
            (Query(total(m.VIDEO_HELD_BYTES, **ROLES), "processors"),),
            THIRD,
        ),
        Graph("Batches", "Mean frames in a batch.", "none", (Query(mean(m.BATCH, **ROLES), "frames"),), THIRD),
        Graph(
            "Bytes",
            "Payloads received by the bridge, and frames accepted by the processors, as sent and as captured.",
            "Bps",
            (
                Query(rate(m.BRIDGE_BYTES, **ROLES), "bridge"),
                Query(rate(m.FRAME_BYTES, "kind", **ROLES), "processors, {{kind}}"),
            ),
            THIRD,
        ),
        Graph(
            "Confirmations",
            "Confirmations that the bridge sends to cameras.",
            "ops",
            (Query(rate(m.BRIDGE_CONFIRMATIONS, **ROLES), "confirmations"),),
            THIRD,
        ),
        Graph(
            "Backlog",
            "Estimated bytes of unprocessed frames in the fullest partition of Kafka. Above max_backlog_bytes, bridges "
            "reject frames and cameras spool them.",
            "bytes",
            (Query(f"max({series(m.BRIDGE_BACKLOG, **ROLES)})", "fullest partition"),),
            THIRD,
        ),
    ]
