"""Features of pictures for the console's collection, from a child process: the console itself loads no torch.

Requests and replies are a length of four bytes, and then a JPEG or the features. An empty reply means no picture.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from typing import IO, Final

import numpy as np
import structlog

from bundles import GENERAL, named_bundles
from consumers.console.data.appearance import Vector
from infra.cli.console_jobs import job_environment
from infra.local.process import COMMAND, spawn
from schemas.errors import error_text
from schemas.runtime.module import MODULE

REPLY_S: Final = 120.0
"""Deadline of a reply in seconds. The first one includes the start of the process."""
RETRY_S: Final = 600.0
"""Seconds without another process after one that failed."""
_NICENESS: Final = 10
_LENGTH: Final = 4

log = structlog.get_logger()


def feature_process() -> FeatureProcess | None:
    """Return the source of features; None if the general network is not installed."""
    return FeatureProcess() if GENERAL in named_bundles() else None


class FeatureProcess:
    """`pointillist teach describe` in the background: started by the first picture, ended by `close`.

    For one thread at a time, except for `close`.
    """

    def __init__(self, command: tuple[str, ...] = (*COMMAND, "teach", "describe")) -> None:
        self._command = (*MODULE, "schemas.runtime.priority", str(_NICENESS), *command)
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before_s = 0.0

    def __call__(self, jpeg: bytes) -> Vector | None:
        """Return the features of a picture; None if the process does not answer, or the picture does not decode."""
        if self._process is None:
            if time.monotonic() < self._not_before_s:
                return None
            self._process = spawn(
                self._command, subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=job_environment(), start_new_session=True,
            )  # fmt: skip
        process = self._process
        try:
            assert process.stdin is not None
            send(process.stdin, jpeg)
            found = _reply(process)
        except (OSError, ValueError) as error:  # ValueError: `close` has closed the pipes
            log.warning("features_unavailable", error=error_text(error))
            self._not_before_s = time.monotonic() + RETRY_S
            self.close()
            return None
        return np.frombuffer(found, np.float32) if found else None

    def close(self) -> None:
        """End the process. The next picture starts another one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a picture that the process has not read
                pipe.close()


def send(out: IO[bytes], data: bytes) -> None:
    """Write a message."""
    out.write(len(data).to_bytes(_LENGTH, "big") + data)
    out.flush()


def receive(source: IO[bytes]) -> bytes | None:
    """Read a message; None at the end."""
    size = source.read(_LENGTH)
    return source.read(int.from_bytes(size, "big")) if size else None


def _reply(process: subprocess.Popen[bytes]) -> bytes:
    """Return the reply. Raises OSError if there is none within the deadline."""
    assert process.stdout is not None
    place, end_s, found = process.stdout.fileno(), time.monotonic() + REPLY_S, b""
    while len(found) < _LENGTH or len(found) < _LENGTH + int.from_bytes(found[:_LENGTH], "big"):
        if not select.select([place], [], [], max(0.0, end_s - time.monotonic()))[0]:
            raise TimeoutError(f"features: expected a reply within {REPLY_S:g} s")
        part = os.read(place, 2**16)
        if not part:
            raise ConnectionError("features: expected a reply, the process has ended")
        found += part
    return found[_LENGTH:]
