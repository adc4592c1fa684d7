"""The role `monitor`: its metrics of brokers, the machine, GPUs and the audit."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter as Counts
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from aiokafka.errors import GroupLoadInProgressError
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge

from consumers.conservation.result import read_result
from consumers.conservation.rounds import LogOffsets
from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from infra.local.ports import Ports
from infra.local.topics import create_topics, pointillist_topics
from infra.monitor.conservation import FATES, ConservationMetrics
from infra.monitor.gpu import GpuMetrics, parse_readings
from infra.monitor.host import HostMetrics
from infra.monitor.kafka import KafkaMetrics, WaitingWork
from infra.monitor.mirrored_counters import MirroredCounter
from infra.monitor.mosquitto import MosquittoMetrics
from infra.monitor.service import run_monitor
from infra.monitor.settings import MonitorSettings
from infra.settings.load import SettingsSources, load
from infra.state_folder import Layout
from infra.up.processes import LocalRoles
from infra.up.settings import UpSettings
from schemas import metrics
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.runtime.health import Health
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import MqttAccess
from schemas.transport.kafka.admin import Cluster, PartitionState
from tests.consumers.recorder_rig import CAMERA, KEYS, Rig, ledger, verdict
from tests.waiting import PATIENCE_S, until, wait_until

SMI = """#!/bin/sh
echo "0, 42, 1024, 3072, 61, 70.5"
echo "1, [N/A], 0, 4096, 30, [Not Supported]"
echo "NVIDIA-SMI has failed"
"""


@given(st.lists(st.floats(0, 1e12), min_size=1))
def test_a_mirrored_counter_grows_by_the_increments_of_the_other_counter(values: list[float]) -> None:
    registry = CollectorRegistry()
    follower = MirroredCounter(Counter("made_total", "A counter.", ["of"], registry=registry), "it")
    expected = last = 0.0
    for value in values:
        follower.update(value)
        expected += value - last if value >= last else value
        last = value
    assert registry.get_sample_value("made_total", {"of": "it"}) == pytest.approx(expected)


@given(st.text())
def test_any_output_of_the_gpu_tool_is_parsed_without_an_error(text: str) -> None:
    list(parse_readings(text))


async def test_readings_of_gpus_come_from_the_installed_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    registry = CollectorRegistry()
    await GpuMetrics(registry).measure()
    assert registry.get_sample_value("pointillist_gpu_busy_ratio", {"gpu": "0"}) == 0.42
    assert registry.get_sample_value("pointillist_gpu_busy_ratio", {"gpu": "1"}) is None
    assert registry.get_sample_value("pointillist_gpu_memory_bytes", {"gpu": "1", "state": "free"}) == 2**32


async def test_a_removed_gpu_and_a_value_no_longer_reported_have_no_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    registry = CollectorRegistry()
    gpus = GpuMetrics(registry)

    def shown() -> dict[str, float]:
        return {
            f"{sample.name.removeprefix('pointillist_gpu_')} {' '.join(sample.labels.values())}": sample.value
            for family in registry.collect()
            for sample in family.samples
        }

    await gpus.measure()
    assert len(shown()) == 8
    tool.write_text('#!/bin/sh\necho "0, [N/A], 1024, 3072, 61, 70.5"\nexit 15\n')
    await gpus.measure()
    assert shown().keys() == {"memory_bytes 0 used", "memory_bytes 0 free", "temperature_celsius 0", "power_watts 0"}
    tool.unlink()
    with pytest.raises(FileNotFoundError):
        await gpus.measure()
    assert shown() == {}


def test_removed_network_cards_and_disks_and_falling_times_add_no_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = {"lo": 9e9, "eth0": 1e6, "veth1": 5e5}
    disks = {"loop0": 1e6, "loop1": 5e5, "loop0p1": 9e9}
    times = SimpleNamespace(idle=100.0, iowait=7.0)
    monkeypatch.setattr("infra.monitor.host._BLOCK_DEVICES", tmp_path)
    for name in ("loop0", "loop1"):
        (tmp_path / name).mkdir()

    def traffic(each: dict[str, float], *names: str) -> dict[str, Any]:
        return {name: SimpleNamespace(**dict.fromkeys(names, count)) for name, count in each.items()}

    real = psutil.cpu_times()
    monkeypatch.setattr(psutil, "cpu_times", lambda: real._replace(idle=times.idle, iowait=times.iowait))
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: traffic(cards, "bytes_recv", "bytes_sent"))
    monkeypatch.setattr(psutil, "disk_io_counters", lambda **_: traffic(disks, "read_bytes", "write_bytes"))
    registry = CollectorRegistry()
    host = HostMetrics(registry, tmp_path)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"pointillist_host_{name}_total", labels)

    def measure() -> list[float | None]:
        host.measure()
        totals = value("network_bytes", direction="sent"), value("disk_io_bytes", direction="read")
        return [*totals, value("cpu_seconds", mode="idle")]

    assert measure() == [1.5e6, 1.5e6, 107]
    times.iowait = 5.0
    del cards["veth1"], disks["loop1"]
    assert measure() == [1.5e6, 1.5e6, 107]
    cards |= {"eth0": 2e6, "veth2": 3.0}
    disks["loop0"], times.idle = 2e6, 103.0
    assert measure() == [2.5e6 + 3, 2.5e6, 108]

    def no_disks(**_: object) -> None:
        raise NotImplementedError("neither /proc/diskstats nor /sys/block")

    monkeypatch.setattr(psutil, "disk_io_counters", no_disks)
    cards["eth0"] += 1
    assert measure() == [2.5e6 + 4, 2.5e6, 108]


class _Cluster:
    """A stand-in for Kafka's administrator and reader, whose state the test changes."""

    def __init__(self) -> None:
        self.ends = {TopicPartition(KafkaTopic.FRAMES.value, number): 100 * (number + 1) for number in range(2)}
        self.led = set(self.ends)
        self.offsets: dict[str, int] = {"readers": 90, "passing": 40}
        self.loading = False

    async def __aenter__(self) -> _Cluster:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def cluster(self) -> Cluster:
        return Cluster(frozenset({1}), 1)

    async def partitions(self) -> list[PartitionState]:
        node = frozenset({1})
        return [PartitionState(place, 1 if place in self.led else -1, node, node) for place in self.ends]

    async def beginnings(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: self.ends[place] for place in places}

    async def groups(self) -> list[str]:
        if self.loading:
            raise GroupLoadInProgressError
        return list(self.offsets)

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        return {TopicPartition(KafkaTopic.FRAMES.value, 0): self.offsets[group]}


async def test_a_partition_without_a_leader_adds_no_records_and_a_deleted_group_has_no_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, registry = _Cluster(), CollectorRegistry()
    reader = SimpleNamespace(ends=cluster.end_offsets, beginnings=cluster.beginnings)
    kafka = KafkaMetrics(registry, metrics.BROKER_UP.on(registry).labels("kafka"), "127.0.0.1:1")
    kafka._clients = (cluster, reader)  # type: ignore[assignment]

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"pointillist_{name}", labels)

    async def records() -> float | None:
        await kafka.measure()
        return value("kafka_records_total", topic=KafkaTopic.FRAMES.value)

    first, second = cluster.ends
    assert await records() == 300
    assert value("kafka_records_total", topic=KafkaTopic.ALERTS.value) == 0
    cluster.led.remove(second)
    cluster.ends[first] += 5
    assert await records() == 305
    cluster.led.add(second)
    cluster.ends[second] += 7
    assert await records() == 312
    assert [value("kafka_group_lag_records", group=name) for name in ("readers", "passing")] == [15, 65]
    del cluster.offsets["passing"]
    cluster.loading = True
    await kafka.measure()
    assert (value("broker_up", broker="kafka"), value("kafka_group_lag_records", group="passing")) == (1, 65)
    cluster.loading = False
    await kafka.measure()
    assert [value("kafka_group_lag_records", group=name) for name in ("readers", "passing")] == [15, None]


def test_the_machine_has_cores_memory_a_disk_and_a_network(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    HostMetrics(registry, tmp_path).measure()
    memory = [registry.get_sample_value("pointillist_host_memory_bytes", {"state": s}) for s in ("used", "available")]
    assert sum(value or 0 for value in memory) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    stat = os.statvfs(tmp_path)
    free = registry.get_sample_value("pointillist_host_disk_bytes", {"state": "free"}) or 0
    assert free == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)
    assert (registry.get_sample_value("pointillist_host_cpu_seconds_total", {"mode": "busy"}) or 0) > 1


@pytest.mark.brokers
async def test_metrics_and_health_follow_the_brokers_and_the_audit(
    kafka: Kafka, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    await create_topics(kafka.bootstrap, pointillist_topics(1))
    rig = Rig(tmp_path, f"sqlite:///{tmp_path}/records.sqlite")
    registry, health, stop = CollectorRegistry(), Health(), asyncio.Event()
    settings = MonitorSettings(
        kafka=kafka.bootstrap, mqtt=f"{mosquitto.host}:{mosquitto.port}", database=rig.url, folder=tmp_path,
        look_s=0.2, audit_s=0.2,
    )  # fmt: skip
    task = asyncio.create_task(run_monitor(settings, KEYS, registry=registry, health=health, stop=stop))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"pointillist_{name}", labels)

    try:
        await until(lambda: health.report()[0] or task.done(), "health")
        assert value("broker_up", broker="kafka") == value("broker_up", broker="mosquitto") == 1
        assert (value("kafka_brokers"), value("kafka_under_replicated_partitions")) == (1, 0)
        await until(lambda: (value("mqtt_clients") or 0) >= 1, "mosquitto's own metrics")
        rig.ledger(ledger(1, 3))
        rig.verdicts([verdict(0), verdict(1)])
        await until(lambda: value("audited_frames", fate="recorded") == 2, "an audit")
        assert value("audited_frames", fate="pending") == 1
        assert (value("audit_age_seconds") or 0) < 30
        mosquitto.kill()
        await until(lambda: value("broker_up", broker="mosquitto") == 0, "mosquitto to be reported as down")
        assert not health.report()[0]
        mosquitto.start()
        await until(lambda: health.report()[0], "health again")
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task
        rig.close()


async def test_a_monitor_recognises_its_silences_by_the_id_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = Mock(side_effect=InterruptedError)  # no other task starts
    monkeypatch.setattr("infra.monitor.service.AlertNotifier", notifier)
    keys = KeyRing(Roots.of_fleet(bytes(32)).of(Role.AUDITOR))
    settings = MonitorSettings(
        kafka="127.0.0.1:1", mqtt="127.0.0.1:1", database=f"sqlite:///{tmp_path}/records.sqlite", folder=tmp_path,
        alertmanager="http://127.0.0.1:1",
    )  # fmt: skip
    with pytest.raises(InterruptedError):
        await run_monitor(settings, keys, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())
    assert notifier.call_args.kwargs["system"] == keys.system_id


@pytest.mark.brokers
def test_two_monitors_of_one_broker_do_not_disconnect_each_other(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = Counts[MosquittoMetrics]()
    subscribe = MosquittoMetrics._subscribe

    def count_subscription(self: MosquittoMetrics) -> None:
        connected[self] += 1
        subscribe(self)

    monkeypatch.setattr(MosquittoMetrics, "_subscribe", count_subscription)
    address = MqttAccess(mosquitto.host, mosquitto.port)
    registries = CollectorRegistry(), CollectorRegistry()
    first, second = (MosquittoMetrics(each, Gauge("up", "Up.", registry=each), address) for each in registries)
    try:
        for monitor in (first, second):
            monitor.start()
            wait_until(partial(getattr, monitor._client, "is_connected"), "the broker")
        # A client id in use would make the broker close the earlier connection before it accepts the later one.
        for monitor in (first, second):
            assert monitor._client.publish("test/monitor", b"", retain=False, wait_s=PATIENCE_S)
        assert (connected[first], connected[second]) == (1, 1)
    finally:
        first.close()
        second.close()


def test_waiting_work_in_seconds_uses_the_rate_of_the_last_minute() -> None:
    work = WaitingWork()
    assert work.seconds(0, 500, 10_000) == 0, "without a rate"
    assert work.seconds(10, 500, 10_100) == pytest.approx(50), "10 frames a second"
    assert work.seconds(70, 500, 10_700) == pytest.approx(50)
    assert work.seconds(130, 500, 10_700) == pytest.approx(500), "nothing for a minute: as with one frame a second"
    assert work.seconds(140, 500, 12_200) == pytest.approx(500 * 70 / 1500), "the minute before now, and not all of it"
    assert work.seconds(150, 0, 12_200) == 0
    assert work.seconds(160, 30, 3) == 30, "another topic"


async def test_waiting_work_counts_records_in_kafka_and_not_frames_in_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_offsets(*_: object) -> LogOffsets:
        return LogOffsets({}, {}, {})

    monkeypatch.setattr("infra.monitor.conservation.read_log_offsets", no_offsets)
    url = f"sqlite:///{tmp_path}/records.sqlite"
    rig = Rig(tmp_path, url)
    rig.ledger(ledger(1, 600))
    rig.verdicts([verdict(seq) for seq in range(100)], CAMERA)
    cluster, registry, clock = _Cluster(), CollectorRegistry(), SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("infra.monitor.kafka.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    first, second = cluster.ends
    cluster.offsets[PROCESSORS_GROUP] = 100  # all of the first partition; the second has no commit yet
    cluster.ends[second] = 0
    kafka = KafkaMetrics(registry, metrics.BROKER_UP.on(registry).labels("kafka"), "127.0.0.1:1")
    audit = ConservationMetrics(registry, "127.0.0.1:1", url, KEYS)

    async def seconds() -> float | None:
        kafka._clients = (cluster, SimpleNamespace(ends=cluster.end_offsets, beginnings=cluster.beginnings))  # type: ignore[assignment]
        await kafka.measure()
        clock.now_s += 10
        return registry.get_sample_value("pointillist_work_waiting_seconds")

    try:
        for _ in range(2):
            await audit.audit()
            assert await seconds() == 0
        assert registry.get_sample_value("pointillist_audited_frames", {"fate": "pending"}) == 500
        cluster.ends |= {first: 1120, second: 180}
        cluster.offsets[PROCESSORS_GROUP] = 1100
        assert await seconds() == pytest.approx(200 * 20 / 1000), "20 s in which 1,000 frames were processed"
        cluster.led.remove(first)
        assert await seconds() == pytest.approx(180 * 30 / 1000), "a leader that is missing lowers no rate"
        monkeypatch.setattr(cluster, "groups", cluster.end_offsets)
        with pytest.raises(TypeError):
            await seconds()
        assert registry.get_sample_value("pointillist_work_waiting_seconds") == 0, "no old value while Kafka is away"
    finally:
        audit.close()
        rig.close()


async def test_a_failed_audit_ages_and_a_replaced_database_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_offsets(*_: object) -> LogOffsets:
        return LogOffsets({}, {}, {})

    monkeypatch.setattr("infra.monitor.conservation.read_log_offsets", no_offsets)
    registry = CollectorRegistry()
    file = tmp_path / "records.sqlite"
    audit = ConservationMetrics(registry, "127.0.0.1:1", f"sqlite:///{file}", KEYS)
    try:
        with pytest.raises(Exception, match=r"records\.sqlite"):
            await audit.audit()
        first = registry.get_sample_value("pointillist_audit_age_seconds")
        for count in (3, 1):
            file.unlink(missing_ok=True)
            rig = Rig(tmp_path, f"sqlite:///{file}")
            rig.ledger(ledger(1, count))
            rig.verdicts([verdict(seq) for seq in range(count)], CAMERA)
            await audit.audit()
            found = {fate: registry.get_sample_value("pointillist_audited_frames", {"fate": fate}) for fate in FATES}
            assert found == dict.fromkeys(FATES, 0) | {"recorded": count, "lost": None}
            with rig.engine.begin() as connection:
                saved = read_result(connection)
            assert saved is not None
            assert {name: saved[f"frames_{name}"] for name in FATES} == found | {"lost": 0}
            rig.close()
        assert (registry.get_sample_value("pointillist_audit_age_seconds") or 0) < (first or 0) + 60
        file.unlink()
        now_s = time.monotonic() + 400
        monkeypatch.setattr("infra.monitor.conservation.time", SimpleNamespace(monotonic=lambda: now_s))
        with pytest.raises(Exception, match=r"records\.sqlite"):
            await audit.audit()
        assert (registry.get_sample_value("pointillist_audit_age_seconds") or 0) >= 399
    finally:
        audit.close()


async def test_a_restarted_monitor_never_reports_fewer_lost_frames_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_offsets(*_: object) -> LogOffsets:
        return LogOffsets({}, {}, {})

    monkeypatch.setattr("infra.monitor.conservation.read_log_offsets", no_offsets)
    rig = Rig(tmp_path, f"sqlite:///{tmp_path}/records.sqlite")
    closed_ledger = ledger(1, 3)
    closed_ledger.confirmed_to = 3
    rig.ledger(closed_ledger)
    for _ in range(2):
        registry = CollectorRegistry()
        audit, shown = ConservationMetrics(registry, "127.0.0.1:1", rig.url, KEYS), []
        for _ in range(5):
            await audit.audit()
            shown.append(registry.get_sample_value("pointillist_audited_frames", {"fate": "lost"}))
        audit.close()
        assert [each for each in shown if each is not None] == [3] * 2
    rig.close()


@pytest.mark.parametrize("alertmanager", ["http://127.0.0.1:9093", None])
def test_up_passes_the_address_of_its_alertmanager_to_the_monitor(tmp_path: Path, alertmanager: str | None) -> None:
    layout, ports = Layout(tmp_path), Ports(tmp_path)
    roles = LocalRoles(UpSettings(state=tmp_path, plain=True), layout, ports, "127.0.0.1:1883", "127.0.0.1:9092")
    roles.monitor(alertmanager=alertmanager, console="http://127.0.0.1:8080")
    found = load(MonitorSettings, SettingsSources("monitor", layout.role_settings("monitor")))
    expected = (None, None) if alertmanager is None else (alertmanager, "http://127.0.0.1:8080")
    assert (found.alertmanager, found.console) == expected
