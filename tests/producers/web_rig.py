"""A web server for the files of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.harness.serving import serving


class Quiet(SimpleHTTPRequestHandler):
    """A request handler that logs nothing."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass

    def log_error(self, *arguments: object) -> None:
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve the folder, and yield the server's address."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))) as server:
        yield f"http://127.0.0.1:{server.server_port}"
