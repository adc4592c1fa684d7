"""The dashboard of third-party components: Kafka, mosquitto, the machine, its GPUs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from infra.grafana.board import board
from infra.grafana.panels import QUARTER, THIRD, Figure, Graph, Limit, Row
from infra.grafana.promql import ROLES, Query, rate, series, total
from schemas import metrics as m


def machines() -> Dashboard:
    """Return the dashboard of brokers and machines, as the role `monitor` of each machine measures them."""
    return board(
        "pointillist-machines",
        "Pointillist: brokers and machines",
        "Kafka, mosquitto, and the machine and the GPUs of each role `monitor`.",
        [Row("Kafka", _kafka()), Row("mosquitto", _mosquitto()), Row("Machine", _host()), Row("GPUs", _gpus())],
        of=("role",),
    )


def _kafka() -> list[Graph | Figure]:
    return [
        Figure(
            "Kafka answers",
            "1 while Kafka answers the monitor.",
            "none",
            Query(f"min({series(m.BROKER_UP, broker='kafka', **ROLES)})"),
            0,
            QUARTER,
            Limit(1, bad="below"),
        ),
        Figure(
            "Nodes",
            "Nodes that Kafka lists as alive.",
            "none",
            Query(f"max({series(m.KAFKA_BROKERS, **ROLES)})"),
            0,
            QUARTER,
        ),
        Figure(
            "Under-replicated partitions",
            "Partitions of Pointillist's topics without all replicas, and partitions without a leader.",
            "none",
            Query(f"max({series(m.KAFKA_UNDER_REPLICATED, **ROLES)})"),
            0,
            QUARTER,
            Limit(1),
        ),
        Figure(
            "mosquitto answers",
            "1 while mosquitto answers the monitor.",
            "none",
            Query(f"min({series(m.BROKER_UP, broker='mosquitto', **ROLES)})"),
            0,
            QUARTER,
            Limit(1, bad="below"),
        ),
        Graph(
            "Records accepted",
            "Records that Kafka accepts a second, by topic.",
            "ops",
            (Query(f"max by (topic) ({rate(m.KAFKA_END, 'role, topic', **ROLES)})", "{{topic}}"),),
            THIRD,
        ),
        Graph(
            "Records held",
            "Records that Kafka retains, by topic.",
            "none",
            (Query(f"max by (topic) ({series(m.KAFKA_HELD, **ROLES)})", "{{topic}}"),),
            THIRD,
        ),
        Graph(
            "Consumer lag",
            "Records in Kafka that a consumer group has not committed.",
            "none",
            (Query(f"max by (group) ({series(m.KAFKA_GROUP_LAG, **ROLES)})", "{{group}}"),),
            THIRD,
        ),
    ]


def _mosquitto() -> list[Graph | Figure]:
    return [
        Graph(
            "Clients",
            "Connected to mosquitto.",
            "none",
            (Query(f"max({series(m.MQTT_CLIENTS, **ROLES)})", "clients"),),
            QUARTER,
        ),
        Graph(
            "Messages",
            "Messages at mosquitto a second. Dropped messages exceeded its queues; cameras send unconfirmed frames "
            "again.",
            "ops",
            (Query(f"max by (direction) ({rate(m.MQTT_MESSAGES, 'role, direction', **ROLES)})", "{{direction}}"),),
            QUARTER,
        ),
        Graph(
            "Bytes at mosquitto",
            "Bytes a second, by direction.",
            "Bps",
            (Query(f"max by (direction) ({rate(m.MQTT_BYTES, 'role, direction', **ROLES)})", "{{direction}}"),),
            QUARTER,
        ),
        Graph(
            "Stored by mosquitto",
            "Retained messages, and messages that wait for clients.",
            "bytes",
            (Query(f"max({series(m.MQTT_STORED, **ROLES)})", "stored"),),
            QUARTER,
            limit=Limit(2**30),
        ),
    ]


def _host() -> list[Graph | Figure]:
    memory = f"{total(m.HOST_MEMORY, 'role', state='used', **ROLES)} / {total(m.HOST_MEMORY, 'role', **ROLES)}"
    disk = f"{total(m.HOST_DISK, 'role', state='used', **ROLES)} / {total(m.HOST_DISK, 'role', **ROLES)}"
    return [
        Graph(
            "Cores in use",
            "Share of the time of all cores.",
            "percentunit",
            (
                Query(
                    f"{rate(m.HOST_CPU, 'role', mode='busy', **ROLES)} / {rate(m.HOST_CPU, 'role', **ROLES)}",
                    "{{role}}",
                ),
            ),
            THIRD,
            limit=Limit(0.9),
        ),
        Graph(
            "Memory in use",
            "Share of the memory.",
            "percentunit",
            (Query(memory, "{{role}}"),),
            THIRD,
            limit=Limit(0.9),
        ),
        Graph(
            "Load",
            "Load of the last minute ÷ the cores. Above 1, processes wait for a core.",
            "none",
            (Query(f"max by (role) ({series(m.HOST_LOAD, **ROLES)})", "{{role}}"),),
            THIRD,
            limit=Limit(1.5),
        ),
        Graph(
            "Disk in use",
            "Share of the disk of the state folder.",
            "percentunit",
            (Query(disk, "{{role}}"),),
            THIRD,
            limit=Limit(0.9),
        ),
        Graph(
            "Disk traffic",
            "Bytes a second of all disks.",
            "Bps",
            (Query(rate(m.HOST_DISK_IO, "role, direction", **ROLES), "{{role}} {{direction}}"),),
            THIRD,
        ),
        Graph(
            "Network",
            "Bytes a second of all interfaces except loopback.",
            "Bps",
            (Query(rate(m.HOST_NETWORK, "role, direction", **ROLES), "{{role}} {{direction}}"),),
            THIRD,
        ),
    ]


def _gpus() -> list[Graph | Figure]:
    used = f"{total(m.GPU_MEMORY, 'role, gpu', state='used', **ROLES)} / {total(m.GPU_MEMORY, 'role, gpu', **ROLES)}"
    legend = "{{role}} {{gpu}}"
    return [
        Graph(
            "GPU",
            "Share of the time in which the GPU computes. The graph is empty on a machine without a GPU.",
            "percentunit",
            (Query(f"max by (role, gpu) ({series(m.GPU_BUSY, **ROLES)})", legend),),
            QUARTER,
        ),
        Graph("GPU memory", "Share in use.", "percentunit", (Query(used, legend),), QUARTER, limit=Limit(0.95)),
        Graph(
            "GPU temperature",
            "Temperature of each GPU.",
            "celsius",
            (Query(f"max by (role, gpu) ({series(m.GPU_TEMPERATURE, **ROLES)})", legend),),
            QUARTER,
            limit=Limit(85),
        ),
        Graph(
            "GPU power",
            "Power that each GPU draws.",
            "watt",
            (Query(f"max by (role, gpu) ({series(m.GPU_POWER, **ROLES)})", legend),),
            QUARTER,
        ),
    ]
