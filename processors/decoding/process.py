"""A decoding process, from the side of the processor: start, requests with a deadline, kill."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from processors.decoding.protocol import UNIT_BYTES, Operation, Request, Status, picture_bytes
from processors.decoding.sandbox import address_space
from schemas.errors import BadPixelsError
from schemas.messages.access_unit import AccessUnit, Codec
from schemas.pixels.planes import Planes, chroma_shape
from schemas.runtime.module import MODULE

START_S: Final = 30.0
"""Longest start of a process on a busy machine."""
_STARVED: Final = 5
"""Multiple of the time limit for a process that waits for a core."""
_USED: Final = 0.5
"""Share of the time limit as CPU time from which a process has not waited for a core."""
_FULL: Final = 0.75
"""Share of the memory for decoders from which a process counts as full. The rest is enough for one more unit."""


class ProcessLost(Exception):  # noqa: N818  # a state of the process
    """A decoding process ended or hung during a request; `cause` is `crashed` or `hung`."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the decoding process {cause}")
        self.cause = cause


class StartError(Exception):
    """A decoding process could not be started, or ended before it was ready. A later start may succeed."""


class SlowCallback(NamedTuple):
    """A call for a request that takes longer than some seconds, and may still be answered."""

    after_s: float
    note: Callable[[], None]


class DecodingProcess:
    """One process and the memory that is shared with it. One thread at a time uses it."""

    def __init__(self, most_pixels: int, memory_bytes: int) -> None:
        """Start the process without waiting for it. It decodes pictures of at most `most_pixels`.

        `memory_bytes` bounds the memory of its decoders. Raises OSError or MemoryError if it cannot be started.
        """
        side = int(most_pixels**0.5) + 1
        # A long strip has up to one more chroma sample for each pixel of its length.
        shared = UNIT_BYTES + max(picture_bytes(side, side), 3 * most_pixels)
        descriptor = os.memfd_create("pointillist-decoding")
        try:
            os.ftruncate(descriptor, shared)
            self._memory = mmap.mmap(descriptor, shared)
            self._area = np.frombuffer(self._memory, dtype=np.uint8)
            self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    self._process = _start_process(theirs.fileno(), descriptor, memory_bytes)
                except (OSError, MemoryError):
                    self._link.close()
                    raise
        finally:
            os.close(descriptor)
        self._limits: list[str] | None = None
        self._full_bytes = round(_FULL * memory_bytes)
        self._ready_bytes = 0
        """Its address space when it was ready."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def limits(self) -> list[str]:
        """Return the limits that hold in it, once it is ready; `ProcessLost` if it does not start."""
        if self._limits is None:
            self._limits = json.loads(self._receive(START_S)[1])
            self._ready_bytes = self._address_space()
        return self._limits

    def decode(
        self,
        operation: Operation,
        decoder: int,
        unit: AccessUnit,
        height: int,
        width: int,
        timeout_s: float,
        slow: SlowCallback | None = None,
    ) -> Planes:
        """Return the picture (height, width) of a unit. A picture without colours has neutral chroma planes.

        `slow` is noted while the request still waits for its answer.

        Raises `BadPixelsError` if the unit is rejected, `ProcessLost` if the process ends or takes longer than
        `timeout_s`. On a busy machine a process that waits for a core gets more time.
        """
        self.limits()
        used_s = self.used_s()
        length = len(unit.data)
        self._area[:length] = np.frombuffer(unit.data, dtype=np.uint8)
        self._send(Request(operation, decoder, unit.codec, height, width, length))
        answered, left_s = False, timeout_s
        if slow is not None and slow.after_s < timeout_s:
            answered = self._answers(slow.after_s)
            if not answered:
                slow.note()
            left_s -= slow.after_s
        if not answered:
            self._await(left_s, timeout_s, used_s + _USED * timeout_s)
        status, text = self._receive(timeout_s)
        if status != Status.DECODED:
            raise BadPixelsError(f"access unit: {text.decode(errors='replace')}")
        rows, columns = chroma_shape(height, width)
        luma, cells = height * width, rows * columns
        samples = self._area[UNIT_BYTES : UNIT_BYTES + luma + 2 * cells].copy()
        blue, red = samples[luma:].reshape(2, rows, columns)
        return Planes(samples[:luma].reshape(height, width), blue, red, unit.colour)

    def close_decoder(self, decoder: int) -> None:
        """Close a decoder in the process."""
        self._send(Request(Operation.CLOSE, decoder, Codec.H264, 0, 0, 0))

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._link.close()

    def _send(self, request: Request) -> None:
        try:
            self._link.settimeout(START_S)
            self._link.send(request.packed())
        except OSError:
            raise ProcessLost("crashed") from None

    def _answers(self, within_s: float) -> bool:
        """Return whether a reply, or the end of the process, comes in this time."""
        self._link.settimeout(within_s)
        try:
            self._link.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            pass  # `_receive` meets it again
        return True

    def _await(self, left_s: float, timeout_s: float, least_s: float) -> None:
        """Wait for a reply: first for `left_s`, then for `timeout_s` at a time while the process waits for a core.

        Raises `ProcessLost` if none comes.
        """
        for waits_s in (left_s, *[timeout_s] * (_STARVED - 1)):
            if self._answers(waits_s):
                return
            if not self._is_starved(least_s):
                break
        raise ProcessLost("hung")

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def used_s(self) -> float:
        """Return its CPU seconds by the clock that Linux gives each process."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:  # it has ended
            return 0.0

    def is_full(self) -> bool:
        """Return whether its decoders have taken most of their memory."""
        return self._address_space() - self._ready_bytes >= self._full_bytes

    def _address_space(self) -> int:
        try:
            return address_space(self.pid)
        except OSError:  # it has ended
            return 0

    def _is_starved(self, least_s: float) -> bool:
        """Return whether it could run, but has less than `least_s` CPU seconds in all."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state in "RD" and self.used_s() < least_s

    def _receive(self, timeout_s: float) -> tuple[int, bytes]:
        self._link.settimeout(timeout_s)
        try:
            reply = self._link.recv(4096)
        except TimeoutError:
            raise ProcessLost("hung") from None
        except OSError:
            raise ProcessLost("crashed") from None
        if not reply:
            raise ProcessLost("crashed")
        return reply[0], reply[1:]


def _start_process(link: int, memory: int, memory_bytes: int) -> subprocess.Popen[bytes]:
    """Start a process that inherits two descriptors: its end of the link, and the shared memory."""
    command = [*MODULE, "processors.decoding.worker", str(link), str(memory), str(memory_bytes)]
    # No variable of the environment: some hold secrets. OpenBLAS would start threads.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        pass_fds=(link, memory),
        env={"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
