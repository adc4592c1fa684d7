"""The dashboard of the resources, USE: utilisation, saturation, errors."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from infra.grafana.board import board
from infra.grafana.panels import QUARTER, THIRD, Figure, Graph, Limit, Row
from infra.grafana.promql import ROLES, WINDOW, Query, or_zero, rate, selector, series, total
from schemas import metrics as m


def resources() -> Dashboard:
    """Return the dashboard: utilisation, saturation, errors of the stages' resources."""
    return board(
        "pointillist-resources",
        "Pointillist: resources (USE)",
        "Utilisation, saturation and errors of processors, memory, device, queues and disks.",
        [
            Row("Utilisation", _utilisation()),
            Row("Saturation", _saturation()),
            Row("Errors", _errors()),
        ],
        of=("role",),
    )


def _process(name: str) -> str:
    return selector(name, job="pointillist", **ROLES)


def _utilisation() -> list[Graph | Figure]:
    return [
        Graph(
            "CPU",
            "Cores in use, by role.",
            "none",
            (Query(f"sum by (role) (rate({_process('process_cpu_seconds_total')}[{WINDOW}]))", "{{role}}"),),
            stacked=True,
        ),
        Graph(
            "Memory",
            "Resident memory, by role.",
            "bytes",
            (Query(f"sum by (role) ({_process('process_resident_memory_bytes')})", "{{role}}"),),
            stacked=True,
        ),
        Graph(
            "Device",
            "Share of the time in which a processor's device thread was busy.",
            "percentunit",
            (Query(rate(m.DEVICE_BUSY, "role", **ROLES), "{{role}}"),),
        ),
        Graph(
            "Disk",
            "Bytes of the stores and the spools.",
            "bytes",
            (
                # Recorders that share a database report the same bytes.
                *(
                    Query(f"max({series(m.STORE_BYTES, store=store, **ROLES)})", store)
                    for store in ("database", "quarantine")
                ),
                Query(total(m.SPOOL_BYTES, **ROLES), "spools"),
            ),
        ),
    ]


def _saturation() -> list[Graph | Figure]:
    open_files = f"max by (role) ({_process('process_open_fds')} / {_process('process_max_fds')})"
    return [
        Graph(
            "Back-pressure",
            "Partitions that processors have paused; bridges that reject frames because too much waits in Kafka; and 1 "
            "while a partition of the frames topic has no processor.",
            "none",
            (
                Query(total(m.PAUSED, **ROLES), "paused partitions"),
                Query(total(m.BRIDGE_BACKPRESSURE, **ROLES), "bridges that reject frames"),
                Query(f"max({series(m.UNREAD, **ROLES)})", "a partition has no processor"),
            ),
            QUARTER,
        ),
        Graph(
            "HTTP requests and logins",
            "Requests answered, connections closed because they were too many or too slow, requests for another host "
            "name, and logins at the console, per second.",
            "ops",
            (
                Query(rate(m.HTTP_CONNECTIONS, "outcome", **ROLES), "{{outcome}}"),
                Query(rate(m.CONSOLE_LOGINS, "outcome", **ROLES), "login {{outcome}}"),
            ),
            QUARTER,
        ),
        Graph(
            "Unacknowledged messages",
            "Messages that bridges have received and Kafka has not stored yet.",
            "none",
            (Query(total(m.BRIDGE_UNACKNOWLEDGED, **ROLES), "messages"),),
            QUARTER,
        ),
        Graph(
            "Open files",
            "Open files ÷ the limit of the process: the highest of each role.",
            "percentunit",
            (Query(open_files, "{{role}}"),),
            QUARTER,
            limit=Limit(0.8),
        ),
        Graph(
            "Free disk space",
            "Free bytes on the disk of each store.",
            "bytes",
            (Query(f"min by (holds) ({series(m.DISK_FREE, **ROLES)})", "{{holds}}"),),
            limit=Limit(2**30, bad="below"),
        ),
        Graph(
            "Damage",
            "Records a second that are skipped in damaged batches of Kafka's log, and databases set aside.",
            "none",
            (
                Query(or_zero(rate(m.KAFKA_DAMAGED, "reader", **ROLES)), "{{reader}}"),
                Query(f"max({series(m.DATABASES_SET_ASIDE, **ROLES)})", "databases"),
            ),
        ),
    ]


def _errors() -> list[Graph | Figure]:
    certificates = f"min by (role, purpose) ({series(m.CERTIFICATE_EXPIRATION, **ROLES)} - time())"
    return [
        Graph(
            "Roles",
            "1 if the role answered the last scrape.",
            "none",
            (Query(f"min by (role) ({_process('up')})", "{{role}}"),),
            limit=Limit(1, bad="below"),
        ),
        Graph(
            "Versions",
            "Processes of each role and version.",
            "none",
            (Query(f"count by (role, version) ({series(m.BUILD_INFO, **ROLES)})", "{{role}} {{version}}"),),
        ),
        Graph(
            "Reconnections",
            "Reconnections to MQTT, reopened sources by cause, and invalid camera files.",
            "ops",
            (
                Query(rate(m.CAMERA_RECONNECTS, **ROLES), "MQTT connections"),
                Query(or_zero(rate(m.SOURCE_RESTARTS, "cause", **ROLES)), "sources, {{cause}}"),
                Query(or_zero(total(m.CAMERA_LIST_REFUSED, **ROLES)), "invalid camera files, now"),
            ),
            THIRD,
        ),
        Graph(
            "Clock skew",
            "Seconds by which the clock of a camera is ahead of the recorder's: the largest.",
            "s",
            (Query(f"max({series(m.CLOCK_SKEW, **ROLES)})", "skew"),),
            THIRD,
            limit=Limit(1),
        ),
        Graph(
            "Certificates",
            "Time until the certificate of a role ends, by purpose.",
            "s",
            (Query(certificates, "{{role}} {{purpose}}"),),
            THIRD,
            limit=Limit(259_200, bad="below"),
        ),
    ]
