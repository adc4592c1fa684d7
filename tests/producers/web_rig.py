"""A web server for the files of a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Quiet(SimpleHTTPRequestHandler):
    """A request handler that logs nothing."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass

    def log_error(self, *arguments: object) -> None:
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve the folder, and yield the server's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, name="web")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
