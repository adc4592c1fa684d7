"""A real RTSP server of GStreamer's on loopback, for tests and benchmarks."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

BITS: Final = 16
_PROGRAM: Final = Path(__file__).with_name("rtsp_server.py")
_SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""The system's Python with Debian's `python3-gi` and `gir1.2-gst-rtsp-server-1.0`."""


class RtspServer:
    """A server that runs during the `with` block at `address`. See `rtsp_server` for its paths."""

    def __init__(self, *options: object, login: str | None = None, port: int = 0) -> None:
        """`login` is user:password that clients must give; `port` 0 takes a free one."""
        self._login = login
        self._command = [_SYSTEM_PYTHON, str(_PROGRAM), "--port", str(port), *map(str, options)]
        if login is not None:
            self._command += ["--login", login]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            self.kill()
            raise RuntimeError("expected an RTSP server: install python3-gi and gir1.2-gst-rtsp-server-1.0")
        self.port = int(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def address(self, path: str = "live", login: str | None = None) -> str:
        """Return the URL of a stream, with the server's login or the given one; an empty login is left out."""
        login = self._login if login is None else login
        user, _, password = (login or "").partition(":")
        named = f"{quote(user, safe='')}:{quote(password, safe='')}@" if login else ""
        return f"rtsp://{named}127.0.0.1:{self.port}/{path}"

    def pause(self) -> None:
        """Make it hang with its sockets open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def counted_number(picture: NDArray[np.uint8]) -> int:
    """Return the number in a frame of `/counted`, (H, W, C)."""
    width = picture.shape[1] // BITS
    middle = picture[:, : width * BITS].mean(axis=(0, 2)).reshape(BITS, width)
    inner = middle[:, width // 4 : width - width // 4].mean(axis=1)
    return int(sum(1 << bit for bit, level in zip(reversed(range(BITS)), inner, strict=True) if level > 127))
