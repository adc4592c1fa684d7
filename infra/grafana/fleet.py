"""The dashboard of the fleet."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from infra.grafana.board import board
from infra.grafana.panels import Figure, Graph, Limit, Row
from infra.grafana.promql import Query, or_zero, quantile, quantiles, rate, series, total
from infra.grafana.verdicts import ACCURACY, conservation, red_team, verdicts
from schemas import metrics as m

SAVED = f"1 - {rate(m.CAMERA_BYTES, kind='sent')} / {rate(m.CAMERA_BYTES, kind='raw')}"


def fleet() -> Dashboard:
    """Return the dashboard of the cameras' frames and their fates."""
    return board(
        "pointillist-fleet",
        "Pointillist: fleet",
        "The cameras' frames, their verdicts and their fates.",
        [
            Row("Now", _figures()),
            Row("Cameras", _flow()),
            Row("Verdicts", verdicts()),
            Row("Accuracy: clean, and under attack", red_team()),
            Row("Triggers and models", _defence()),
            Row("Conservation", conservation()),
        ],
        of=("site", "camera"),
    )


def _figures() -> list[Graph | Figure]:
    raised = or_zero(f"sum(increase({series(m.ALERTS)}[1h]))")
    firing = or_zero('count(ALERTS{alertstate="firing", alertname=~"Pointillist.*"})')
    return [
        Figure(
            "Cameras capturing",
            "Cameras of the scraped fleets that capture and are connected to MQTT.",
            "none",
            Query(total(m.CAMERA_TASKS, phase="capturing")),
            0,
            width=3,
        ),
        Figure(
            "Frames a second", "Recorded in the database.", "none", Query(rate(m.RECORDED, outcome="recorded")), width=3
        ),
        Figure(
            "Bytes saved",
            "Share of the raw bytes that was not sent, without resends.",
            "percentunit",
            Query(SAVED),
            width=3,
        ),
        Figure(
            "p99 latency", "Capture to record.", "s", Query(quantile(0.99, m.END_TO_END)), 3, width=3, limit=Limit(0.5)
        ),
        Figure(
            "Accuracy",
            "Share of right verdicts on clean frames of simulated sources, which announce the class.",
            "percentunit",
            Query(ACCURACY),
            width=3,
            limit=Limit(0.8, bad="below"),
        ),
        Figure(
            "Backdoor alerts",
            "Raised in the last hour, without sightings.",
            "none",
            Query(raised),
            0,
            width=3,
            limit=Limit(1),
        ),
        Figure(
            "Lost frames",
            "Published frames without any record of their fate, by the last audit.",
            "none",
            Query(f"max({series(m.AUDITED, fate='lost')})"),
            0,
            width=3,
            limit=Limit(1),
        ),
        Figure(
            "Firing rules",
            "Alert rules of Prometheus that are firing.",
            "none",
            Query(firing),
            0,
            width=3,
            limit=Limit(1),
        ),
    ]


def _flow() -> list[Graph | Figure]:
    return [
        Graph(
            "Frames at the cameras",
            "Frames a second, by outcome. Shed frames were deleted from a full spool, skipped ones never published. "
            "Both have no verdict.",
            "ops",
            (Query(rate(m.CAMERA_FRAMES, "outcome"), "{{outcome}}"),),
        ),
        Graph(
            "Bytes at the cameras",
            "Bytes captured, sent for the first time, and sent again.",
            "Bps",
            (Query(rate(m.CAMERA_BYTES, "kind"), "{{kind}}"),),
        ),
        Graph(
            "Bytes sent, compared with a plain camera",
            "Sent bytes ÷ bytes of the same frame as raw pixels, as JPEG of quality 90, and under the codec without a "
            "mask. Measured on one frame in a hundred of cameras with measure_codec.",
            "percentunit",
            tuple(
                Query(f"{rate(m.CAMERA_COMPARED, way='sent')} / {rate(m.CAMERA_COMPARED, way=way)}", f"÷ {name}")
                for way, name in (("raw", "raw pixels"), ("jpeg", "JPEG"), ("codec", "codec"))
            ),
        ),
        Graph("Latency", "Capture to record.", "s", quantiles(m.END_TO_END), limit=Limit(0.5)),
        Graph(
            "Camera tasks by phase",
            "Cameras in the fleets' processes.",
            "none",
            (Query(total(m.CAMERA_TASKS, "phase"), "{{phase}}"),),
        ),
        Graph(
            "Spooled frames",
            "Unconfirmed frames in the spools, and damaged frames and ledgers since the start.",
            "none",
            (
                Query(total(m.SPOOL_FRAMES), "frames"),
                Query(f"sum by (kind) ({series(m.SPOOL_DAMAGED)})", "damaged, {{kind}}"),
            ),
            8,
        ),
        Graph(
            "Oldest spooled frame",
            "The age of the oldest frame in any spool.",
            "s",
            (Query(f"max({m.SPOOL_OLDEST.name})", "oldest"),),
            8,
            limit=Limit(30),
        ),
        Graph(
            "Silence",
            "Time since a camera's last recorded frame: the ten longest. Paused and ended cameras are included.",
            "s",
            (Query(f"topk(10, min by (camera_id) ({series(m.CAMERA_AGE)}))", "{{camera_id}}"),),
            8,
            limit=Limit(60),
        ),
        Graph(
            "Impaired cameras",
            "Cameras that need attention, by state, as in the console and on the command line.",
            "none",
            (
                Query(
                    or_zero(f"topk(10, max by (camera_id, state) ({series(m.CAMERA_IMPAIRED)}))"),
                    "{{camera_id}} {{state}}",
                ),
            ),
            12,
            limit=Limit(1),
        ),
        Graph(
            "Published to Home Assistant",
            "Cameras that are announced to Home Assistant (count), and messages (per second).",
            "none",
            (
                Query(or_zero(total(m.HOME_CAMERAS)), "cameras"),
                Query(or_zero(rate(m.HOME_MESSAGES)), "messages a second"),
            ),
        ),
    ]


def _defence() -> list[Graph | Figure]:
    return [
        Graph(
            "Probe frames",
            "Probes a second, by outcome. Flagged ones count as checked too. Shed ones are classified and not checked.",
            "ops",
            (Query(rate(m.STRIP_FRAMES, "outcome"), "{{outcome}}"),),
            8,
        ),
        Graph(
            "STRIP passes",
            "Mean number of overlays for each checked frame. The sequential mode stops early for most frames.",
            "none",
            (Query(f"{rate(m.STRIP_PASSES)} / {rate(m.STRIP_FRAMES, outcome='checked')}", "overlays a frame"),),
            8,
        ),
        Graph(
            "Models served",
            "Processors by live model and by backend of its networks, and the outcomes of published models.",
            "none",
            (
                Query(total(m.MODEL_INFO, "model_id"), "{{model_id}}"),
                Query(
                    total(m.BACKEND_INFO, "network, backend, precision"),
                    "{{network}}: {{backend}} {{precision}}",
                ),
                Query(
                    or_zero(f"sum by (outcome) (increase({series(m.MODEL_SWAPS)}[1h])) > 0"), "{{outcome}}, last hour"
                ),
            ),
            8,
        ),
        Graph(
            "Certificates against adversarial patches",
            "Frames a second whose label was examined, by outcome. Empty while the processors certify nothing.",
            "ops",
            (Query(rate(m.CERTIFICATES, "outcome"), "{{outcome}}"),),
            8,
        ),
        Graph(
            "Rollout",
            "Frames a second that both models of a rollout classify, by outcome, and the frames that the gate has "
            "counted.",
            "none",
            (
                Query(rate(m.COMPARISONS, "outcome"), "{{outcome}} a second"),
                Query(or_zero(f"max({series(m.ROLLOUT_PAIRS)})"), "counted by the gate"),
                Query(f"max by (outcome) ({series(m.ROLLOUT_OUTCOME)}) > 0", "{{outcome}}"),
            ),
            8,
        ),
        Graph(
            "Drift",
            "Discrepancy of live pictures and answers from the calibration ÷ its limit: the least of the last three "
            "windows. Above 1, they differ from the calibration. Empty if the model has no [drift] table.",
            "none",
            (Query(f"max by (of) ({series(m.DRIFT)})", "{{of}}"),),
            8,
            limit=Limit(1),
        ),
        Graph(
            "Loading a model",
            "Time in the last hour in which models were fetched, loaded and warmed while another model was live.",
            "s",
            (Query(f"sum(increase({m.MODEL_LOAD.name}_sum[1h]))", "all processors"),),
            8,
        ),
        Graph(
            "STRIP entropy",
            "Entropy of the checked probes in bits: the lowest 1, 10 and 50 %. A trigger that survives overlays makes "
            "it low.",
            "none",
            tuple(Query(quantile(q, m.STRIP_ENTROPY), f"p{round(100 * q)}") for q in (0.01, 0.1, 0.5)),
            8,
        ),
        Graph(
            "Flagged share",
            "Flagged share of each camera's recent probes: the ten highest.",
            "percentunit",
            (Query(f"topk(10, max by (camera_id) ({series(m.CAMERA_FLAGGED)}))", "{{camera_id}}"),),
            8,
            limit=Limit(0.3),
        ),
        Graph(
            "Evidence of a trigger",
            "Evidence of each camera as a share of the alert threshold: the ten highest. An alert is raised at 1.",
            "percentunit",
            (Query(f"topk(10, max by (camera_id) ({series(m.CAMERA_EVIDENCE)}))", "{{camera_id}}"),),
            8,
            limit=Limit(0.99),
        ),
        Graph(
            "Probe share",
            "Share of frames that a camera sends whole: the ten highest. Also the changes that bridges sent to "
            "cameras, and the requests that they rejected, per second.",
            "percentunit",
            (
                Query(f"topk(10, max by (camera_id) ({series(m.CAMERA_PROBE_SHARE)}))", "{{camera_id}}"),
                Query(f"avg({series(m.CAMERA_PROBE_SHARE)})", "mean"),
                Query(rate(m.BRIDGE_PROBE_REQUESTS), "changes a second"),
                Query(rate(m.BRIDGE_REFUSED_REQUESTS, "kind"), "rejected a second, {{kind}}"),
            ),
            8,
        ),
        Graph(
            "Alerts",
            "Backdoor alerts raised in the last hour, and alerts that Kafka has not acknowledged. The console lists "
            "them.",
            "none",
            (
                Query(or_zero(f"sum(increase({series(m.ALERTS)}[1h]))"), "raised"),
                Query(f"max({series(m.ALERTS_UNPUBLISHED)})", "not acknowledged"),
            ),
            8,
        ),
        Graph(
            "Verdicts against the truth",
            "Clean frames of simulated sources, which announce the class, by result.",
            "ops",
            (Query(rate(m.TRUTH, "result"), "{{result}}"),),
        ),
        Graph(
            "Rejected payloads",
            "Dead letters by stage and reason, and frames of cameras with a valid key that processors rejected.",
            "ops",
            (
                Query(or_zero(f"{rate(m.DEAD_LETTERS, 'stage, reason')} > 0"), "{{stage}} {{reason}}"),
                Query(rate(m.REFUSED, "reason"), "processors, {{reason}}"),
            ),
        ),
        Graph(
            "Above the quota",
            "Rejected messages a second of the ten cameras with most of them, and cameras whose confirmations wait "
            "because they exceed their quota.",
            "none",
            (
                Query(or_zero(f"topk(10, {rate(m.BRIDGE_OVER_QUOTA, 'camera_id')} > 0)"), "{{camera_id}}"),
                Query(total(m.BRIDGE_THROTTLED), "cameras that wait"),
            ),
        ),
        Graph(
            "Rejected by the MQTT broker",
            "Logins, messages and subscriptions that the broker rejected, and sessions taken over by a client of the "
            "same name, in the last hour, by the broker's log.",
            "none",
            (Query(f"max by (kind) (increase({series(m.MQTT_REFUSALS)}[1h]))", "{{kind}}"),),
        ),
    ]
