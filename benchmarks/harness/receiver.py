"""Base of the real HTTP servers that keep what the system sends them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from benchmarks.harness.serving import serving


class Receiver(ABC):
    """An HTTP server on a loopback port, in a separate thread, while its context is open."""

    def __init__(self, path: str) -> None:
        """Accept POST requests to `path`; others are answered by 404."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == path:
                    receiver.take(body)
                self.send_response(200 if self.path == path else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Write no log line."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._serving = serving(self._server)

    @abstractmethod
    def take(self, body: bytes) -> None:
        """Keep the body of a request. Called in a thread of the server."""

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(kind, error, trace)
