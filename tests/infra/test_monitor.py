"""The role `monitor`: what it makes of brokers, kernels and GPUs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from consumers.conservation.result import read_result
from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from infra.local.ports import Ports
from infra.local.topics import create_topics, pointillist_topics
from infra.monitor.conservation import FATES, Conservation, WorkWaiting
from infra.monitor.follow import Follower
from infra.monitor.gpu import Gpus, readings
from infra.monitor.host import Host
from infra.monitor.service import run_monitor
from infra.monitor.settings import MonitorSettings
from infra.settings.load import Given, load
from infra.state_folder import Layout
from infra.up.processes import LocalRoles
from infra.up.settings import UpSettings
from schemas.runtime.health import Health
from tests.consumers.recorder_rig import CAMERA, KEYS, Rig, ledger, verdict
from tests.waiting import PATIENCE_S, until

SMI = """#!/bin/sh
echo "0, 42, 1024, 3072, 61, 70.5"
echo "1, [N/A], 0, 4096, 30, [Not Supported]"
echo "NVIDIA-SMI has failed"
"""


@given(st.lists(st.floats(0, 1e12), min_size=1))
def test_a_followed_counter_grows_by_what_the_other_counted_and_never_by_where_it_stood(values: list[float]) -> None:
    registry = CollectorRegistry()
    follower = Follower(Counter("made_total", "A counter.", ["of"], registry=registry), "it")
    expected = last = 0.0
    for value in values:
        follower.update(value)
        expected += value - last if value >= last else value
        last = value
    assert registry.get_sample_value("made_total", {"of": "it"}) == pytest.approx(expected)


@given(st.text())
def test_whatever_the_tool_says_is_no_error(text: str) -> None:
    list(readings(text))


async def test_gpus_are_asked_of_the_tool_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    registry = CollectorRegistry()
    await Gpus(registry).look()
    assert registry.get_sample_value("pointillist_gpu_busy_ratio", {"gpu": "0"}) == 0.42
    assert registry.get_sample_value("pointillist_gpu_busy_ratio", {"gpu": "1"}) is None
    assert registry.get_sample_value("pointillist_gpu_memory_bytes", {"gpu": "1", "state": "free"}) == 2**32


def test_the_machine_has_cores_memory_a_disk_and_a_network(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Host(registry, tmp_path).look()
    memory = [registry.get_sample_value("pointillist_host_memory_bytes", {"state": s}) for s in ("used", "available")]
    assert sum(value or 0 for value in memory) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    stat = os.statvfs(tmp_path)
    free = registry.get_sample_value("pointillist_host_disk_bytes", {"state": "free"}) or 0
    assert free == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)
    assert (registry.get_sample_value("pointillist_host_cpu_seconds_total", {"mode": "busy"}) or 0) > 1


@pytest.mark.brokers
async def test_it_tells_of_brokers_and_notices_one_that_hangs_and_comes_back(
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
        await until(lambda: (value("mqtt_clients") or 0) >= 1, "what mosquitto says of itself")
        rig.ledger(ledger(1, 3))
        rig.verdicts([verdict(0), verdict(1)])
        await until(lambda: value("audited_frames", fate="recorded") == 2, "an audit")
        assert value("audited_frames", fate="pending") == 1
        assert (value("audit_age_seconds") or 0) < 30
        mosquitto.kill()
        await until(lambda: value("broker_up", broker="mosquitto") == 0, "that mosquitto is missed")
        assert not health.report()[0]
        mosquitto.start()
        await until(lambda: health.report()[0], "health again")
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task
        rig.close()


def test_waiting_work_is_divided_by_the_rate_of_the_last_minute() -> None:
    work = WorkWaiting()
    assert work.seconds(0, 500, 10_000) == 0, "without a rate"
    assert work.seconds(10, 500, 10_100) == pytest.approx(50), "10 frames a second"
    assert work.seconds(70, 500, 10_700) == pytest.approx(50)
    assert work.seconds(130, 500, 10_700) == pytest.approx(500), "nothing for a minute: as with one frame a second"
    assert work.seconds(140, 500, 12_200) == pytest.approx(500 * 70 / 1500), "the minute before now, and not all of it"
    assert work.seconds(150, 0, 12_200) == 0
    assert work.seconds(160, 30, 3) == 30, "another database"


async def test_an_audit_that_cannot_be_made_grows_old_and_a_database_in_another_ones_place_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def marks(*_: object) -> object:
        from consumers.conservation.rounds import LogOffsets

        return LogOffsets({}, {}, {})

    monkeypatch.setattr("infra.monitor.conservation.read_log_offsets", marks)
    registry = CollectorRegistry()
    file = tmp_path / "records.sqlite"
    audit = Conservation(registry, "127.0.0.1:1", f"sqlite:///{file}", KEYS)
    try:
        with pytest.raises(Exception, match=r"records\.sqlite"):
            await audit.look()
        first = registry.get_sample_value("pointillist_audit_age_seconds")
        for count in (3, 1):
            file.unlink(missing_ok=True)
            rig = Rig(tmp_path, f"sqlite:///{file}")
            rig.ledger(ledger(1, count))
            rig.verdicts([verdict(seq) for seq in range(count)], CAMERA)
            await audit.look()
            found = {fate: registry.get_sample_value("pointillist_audited_frames", {"fate": fate}) for fate in FATES}
            assert found == dict.fromkeys(FATES, 0) | {"recorded": count}
            with rig.engine.begin() as connection:
                saved = read_result(connection)
            assert saved is not None
            assert {name: saved[f"frames_{name}"] for name in FATES} == found
            rig.close()
        assert (registry.get_sample_value("pointillist_audit_age_seconds") or 0) < (first or 0) + 60
    finally:
        audit.end()


@pytest.mark.parametrize("notifies", [True, False])
def test_up_gives_the_monitor_the_address_that_alertmanager_gets(tmp_path: Path, notifies: bool) -> None:
    layout, ports = Layout(tmp_path), Ports(tmp_path)
    roles = LocalRoles(UpSettings(state=tmp_path, plain=True), layout, ports, "127.0.0.1:1883", "127.0.0.1:9092")
    roles.monitor(alertmanager=notifies, console="http://127.0.0.1:8080")
    found = load(MonitorSettings, Given("monitor", layout.role_settings("monitor")))
    if notifies:
        expected = (f"http://127.0.0.1:{ports.take('alertmanager')}", "http://127.0.0.1:8080")
        assert (found.alertmanager, found.console) == expected
    else:
        assert (found.alertmanager, found.console) == (None, None)
