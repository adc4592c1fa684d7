from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from infra.local.prometheus import Prometheus
from tests.waiting import wait_until


def query(prometheus: Prometheus, expression: str) -> list[dict[str, str]]:
    """Wait until `expression` has series, and return their labels."""
    address = f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    found: list[dict[str, str]] = []

    def answered() -> bool:
        with urllib.request.urlopen(address, timeout=60) as answer:
            found[:] = [series["metric"] for series in json.load(answer)["data"]["result"]]
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
