from __future__ import annotations

import contextlib
import socket
import threading
from http.client import HTTPConnection
from importlib.metadata import PackageNotFoundError
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from consumers.console.api import openapi
from infra.process import metrics_server
from infra.process.metrics_server import MAX_CONNECTIONS, role_registry, serve
from schemas.runtime.health import Health
from tests.fetching import fetch
from tests.waiting import wait_until


def test_half_open_requests_use_few_threads_and_block_no_scrape() -> None:
    health = Health()
    health.set("kafka", True)
    server = serve(role_registry("test"), health, ("127.0.0.1", 0))
    port = int(server.server_address[1])
    before = threading.active_count()
    with contextlib.ExitStack() as connections:
        connections.callback(server.server_close)
        connections.callback(server.shutdown)
        for _ in range(10 * MAX_CONNECTIONS):
            half = connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            half.sendall(b"GET /metrics HTTP/1.1\r\n")
        for path in ("healthz", "metrics"):
            fetch(f"http://127.0.0.1:{port}/{path}")
        # The threads of connections that were closed in favour of others are ending.
        wait_until(lambda: threading.active_count() - before < 3 * MAX_CONNECTIONS)


def test_the_server_listens_on_an_ipv6_address() -> None:
    server = serve(CollectorRegistry(), Health(), ("::1", 0))
    try:
        fetch(f"http://[::1]:{server.server_address[1]}/metrics")
    finally:
        server.shutdown()
        server.server_close()


def test_another_path_is_answered_by_404_with_the_valid_paths() -> None:
    server = serve(CollectorRegistry(), Health(), ("127.0.0.1", 0))
    try:
        link = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        link.request("GET", "/admin")
        answer = link.getresponse()
        assert (answer.status, answer.read()) == (404, b"expected /metrics or /healthz\n")
        link.close()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("error", "logged"), [(ConnectionResetError(), False), (ValueError("ours"), True)])
def test_our_own_errors_are_logged_and_broken_connections_are_not(
    capsys: pytest.CaptureFixture[str], error: Exception, logged: bool
) -> None:
    server = serve(CollectorRegistry(), Health(), ("127.0.0.1", 0))
    try:
        try:
            raise error
        except Exception:
            server.handle_error(cast(Any, None), ("127.0.0.1", 1))
        assert (type(error).__name__ in capsys.readouterr().err) is logged
    finally:
        server.shutdown()
        server.server_close()


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise PackageNotFoundError

    assert metrics_server.software_version() != "unknown"
    monkeypatch.setattr(metrics_server, "version", missing)
    monkeypatch.setattr(openapi, "version", missing)
    assert metrics_server.software_version() == openapi._version() == "unknown"
