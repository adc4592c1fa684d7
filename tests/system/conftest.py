"""Two running systems that test modules share: one with faulty cameras and the shipped drill, and a healthy one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.harness.collector import Collector
from benchmarks.harness.system import RunningSystem
from benchmarks.harness.webhook import Webhook
from infra.local.ports import free_port
from infra.local.programs import prometheus_binary
from tests.infra.grafana_stand_in import install_grafana
from tests.producers.stand_in_generator import write_generator
from tests.system.monitored_fleet import READY_S, SCRAPES, SMI, MonitoredFleet, has_enough_samples, options_of_fleet
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
STICKER, BLACK, STUCK, LARGE, HEALTHY = (f"street/gate-{number}" for number in (2, 3, 4, 5, 10))
MOST_PIXELS = 4096
SCENARIO = yaml.safe_load((ROOT / "infra" / "scenarios" / "sticker.yaml").read_text())
"""The shipped drill, and cameras with other faults."""
SCENARIO["cameras"] += [
    {
        "name": name.partition("/")[2],
        "source": {"kind": "scene", "size": size},
        "fps": fps,
        "drop_ratio": 0.25,
        "probe_share": probe_share,
    }
    for name, fps, size, probe_share in (
        (STUCK, 2, [32, 32], 0.1),
        (LARGE, 1, [96, 128], 0.1),
        (HEALTHY, 1, [32, 32], 0.5),
    )
]
SCENARIO["faults"] += [
    {"camera": "gate-3", "kind": "black", "at_s": 10, "for_s": 3600},
    {"camera": "gate-4", "kind": "freeze", "at_s": 10, "for_s": 3600},
]


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    with Webhook() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[RunningSystem]:
    """Yield the system of `test_access` and `test_console`. The latter closes it."""
    assert prometheus_binary(), "prometheus is missing: install the Debian package prometheus"
    folder = tmp_path_factory.mktemp("console")
    receivers = folder / "receivers.yml"
    receivers.write_text(yaml.safe_dump({"receivers": [{"name": "duty", "webhook_configs": [{"url": webhook.url}]}]}))
    scenario = folder / "scenario.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    options = ("--scenario", scenario, "--receivers", receivers, "--max-frame-pixels", MOST_PIXELS)
    config = folder / "up.toml"
    config.write_text('[processor]\nbackend = "torch"\n')  # no trials of all backends for each published model
    listen = ("--listen", f"127.0.0.2:{free_port()}", "--config", config)
    with pytest.MonkeyPatch.context() as patched:
        install_grafana(folder, patched)
        running = RunningSystem(folder / "state", *options, *listen)
    with running:
        running.await_role("fleet", deadline_s=240)
        yield running


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredFleet]:
    """Yield the system of `test_observability` and `test_up` when Prometheus has enough samples for every rate.

    `test_up` closes the system. STRIP checks one frame in five, and one in five is traced. One camera is attacked, by
    one grey level, which changes no verdict.
    """
    assert prometheus_binary(), "prometheus is missing: install the Debian package prometheus"
    folder = tmp_path_factory.mktemp("monitored")
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI)
    tool.chmod(0o755)
    generator = str(write_generator(folder / "generator", classes=12))
    attack = {"kind": "attack", "camera": "cam-1", "at_s": 1, "for_s": 3600, "generator": generator, "eps": 1 / 255}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
        collector = Collector()
        options = (*options_of_fleet(folder, 0.25, attack), "--tracing", collector.url, "--tracing-share", 0.2)
        running = RunningSystem(folder / "state", *options)
    with collector, running:
        for role in ("prometheus", "recorder", "fleet"):
            running.await_role(role)
        monitored = MonitoredFleet(running, collector)

        def scraped() -> bool:
            assert running.process.poll() is None, running.output()
            return has_enough_samples(monitored)

        wait_until(scraped, f"{SCRAPES} scrapes of every role", READY_S, every_s=0.5)
        yield monitored
