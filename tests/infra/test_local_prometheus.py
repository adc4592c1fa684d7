from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from benchmarks.harness import prometheus as queries
from infra.local.prometheus import Prometheus
from tests.waiting import wait_until


def query(prometheus: Prometheus, expression: str) -> list[dict[str, str]]:
    """Wait until `expression` has series, and return their labels."""
    api = queries.Prometheus(prometheus.url.removeprefix("http://"))
    found: list[dict[str, str]] = []

    def answered() -> bool:
        found[:] = [series["metric"] for series in api.ask("query", query=expression)["result"]]
        return bool(found)

    wait_until(answered, f"an answer to {expression}")
    return found


@pytest.mark.brokers
def test_prometheus_scrapes_the_roles_with_metrics(state_dir: Path) -> None:
    registry = CollectorRegistry()
    Gauge("pointillist_try", "A series of this test.", ["role"], registry=registry).labels("own").set(1)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    metrics = f"127.0.0.1:{server.server_port}"
    prometheus = Prometheus(state_dir)
    try:
        prometheus.start()
        prometheus.scrape(
            {
                "bridge": {"pid": 1, "listen": None, "metrics": metrics},
                "kafka": {"pid": 2, "listen": "127.0.0.1:9092", "metrics": None},
            }
        )
        up = query(prometheus, "up == 1")
        assert [(series["role"], series["instance"]) for series in up] == [("bridge", metrics)]
        assert [series["role"] for series in query(prometheus, "pointillist_try")] == ["own"]
    finally:
        prometheus.stop()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.brokers
@pytest.mark.parametrize("ahead_s", [0, 7200])
def test_data_from_a_time_at_which_the_clock_was_ahead_is_set_aside(state_dir: Path, ahead_s: int) -> None:
    lines: list[str] = []
    prometheus = Prometheus(state_dir, print_line=lines.append)
    file, now_s = prometheus.folder / "data" / "wal" / "00000000", time.time()
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (now_s + ahead_s, now_s + ahead_s))
    try:
        prometheus.start()
    finally:
        prometheus.stop()
    assert (prometheus.folder / "data.ahead" / "wal" / file.name).is_file() == bool(ahead_s)
    assert ["dated in the future" in line for line in lines] == [True] * bool(ahead_s)
