"""The dashboard of the stages, RED: a row for each, with its rate, its errors and its duration."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from infra.grafana.panels import Figure, Graph, board
from infra.grafana.promql import Query, mean, or_zero, quantile, quantiles, rate, total
from schemas import metrics as m

THIRD = 8
"""Columns of a panel that shares its row with two others."""


def stages() -> Dashboard:
    """Rate, errors, duration of each stage."""
    return board(
        "pointillist-stages",
        "Pointillist: stages (RED)",
        "Rate, errors and duration of every stage on a frame's way.",
        [*_bridge(), *_processors(), *_recorder(), *_between()],
    )


def _bridge() -> list[Graph | Figure]:
    return [
        Graph(
            "Bridge: rate",
            "Messages by channel and outcome.",
            "ops",
            (Query(rate(m.BRIDGE_MESSAGES, "channel, outcome"), "{{channel}} {{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Bridge: errors",
            "Payloads refused, and batches that Kafka refused at first.",
            "ops",
            (
                Query(or_zero(rate(m.BRIDGE_MESSAGES, outcome="dead_lettered")), "dead letters"),
                Query(rate(m.BRIDGE_KAFKA_ERRORS), "Kafka"),
            ),
            THIRD,
        ),
        Graph(
            "Bridge: duration",
            "First message of a batch to Kafka's acknowledgement.",
            "s",
            quantiles(m.BRIDGE_KAFKA),
            THIRD,
        ),
    ]


def _processors() -> list[Graph | Figure]:
    return [
        Graph(
            "Processors: rate",
            "Frames by outcome.",
            "ops",
            (Query(rate(m.FRAMES_TOTAL, "outcome"), "{{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Processors: errors",
            "Batches on which a stage failed.",
            "ops",
            (Query(rate(m.STAGE_ERRORS, "stage"), "{{stage}}"),),
            THIRD,
        ),
        Graph(
            "Processors: duration",
            "95th percentile for a batch, by stage.",
            "s",
            (Query(quantile(0.95, m.STAGE, "stage"), "{{stage}}"),),
            THIRD,
        ),
    ]


def _recorder() -> list[Graph | Figure]:
    return [
        Graph(
            "Recorder: rate",
            "Verdicts by outcome. A duplicate changes nothing.",
            "ops",
            (Query(rate(m.RECORDED, "outcome"), "{{outcome}}"),),
            THIRD,
        ),
        Graph(
            "Recorder: errors",
            "Dead letters of all stages by reason, and frames captured in the future by the recorder's clock.",
            "ops",
            (
                Query(or_zero(f"{rate(m.DEAD_LETTERS, 'reason')} > 0"), "{{reason}}"),
                Query(rate(m.NEGATIVE_LATENCY), "captured in the future"),
            ),
            THIRD,
        ),
        Graph("Recorder: duration", "Capture to record: the whole way.", "s", quantiles(m.END_TO_END), THIRD),
    ]


def _between() -> list[Graph | Figure]:
    return [
        Graph(
            "Lag",
            "Frames and records that wait in Kafka; copies of partitions that are away or behind.",
            "none",
            (
                Query(total(m.LAG), "processors, frames"),
                Query(total(m.RECORDER_LAG), "recorder, records"),
                Query(f"max({m.KAFKA_COPIES_MISSING.name})", "copies missing"),
            ),
            THIRD,
        ),
        Graph(
            "Queues",
            "Frames that wait inside the processors.",
            "none",
            (Query(total(m.QUEUE, "queue"), "{{queue}}"),),
            THIRD,
        ),
        Graph("Batches", "Mean frames in a batch.", "none", (Query(mean(m.BATCH), "frames"),), THIRD),
        Graph(
            "Bytes",
            "Payloads received by the bridge; frames taken by the processors, as sent and as captured.",
            "Bps",
            (
                Query(rate(m.BRIDGE_BYTES), "bridge"),
                Query(rate(m.FRAME_BYTES, "kind"), "processors, {{kind}}"),
            ),
            THIRD,
        ),
        Graph(
            "Confirmations",
            "Messages from the bridge that tell cameras which frames Kafka has.",
            "ops",
            (Query(rate(m.BRIDGE_CONFIRMATIONS), "confirmations"),),
            THIRD,
        ),
        Graph(
            "Backlog",
            "Frames in Kafka that are not processed; above a limit the bridges leave more of them to the cameras.",
            "bytes",
            (Query(f"max({m.BRIDGE_BACKLOG.name})", "fullest partition"),),
            THIRD,
        ),
    ]
