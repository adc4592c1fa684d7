from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request

from infra.process.metrics_server import MAX_CONNECTIONS, role_registry, serve
from schemas.runtime.health import Health


def test_half_open_requests_take_few_threads_and_keep_no_scrape_out() -> None:
    health = Health()
    health.set("kafka", True)
    server = serve(role_registry("test"), health, ("127.0.0.1", 0))
    port = int(server.server_address[1])
    before = threading.active_count()
    with contextlib.ExitStack() as crowd:
        crowd.callback(server.server_close)
        crowd.callback(server.shutdown)
        for _ in range(10 * MAX_CONNECTIONS):
            half = crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            half.sendall(b"GET /metrics HTTP/1.1\r\n")
        for path in ("healthz", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
                assert answer.status == 200
        # Those that were closed for others are ending.
        assert threading.active_count() - before < 3 * MAX_CONNECTIONS
