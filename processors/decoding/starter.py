"""The starts of decoding processes: each waits for its readiness, and a spare process shortens the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from processors.decoding.process import DecodingProcess, ProcessLost, StartError
from processors.decoding.sandbox import CALLS
from schemas.errors import typed_text
from schemas.runtime.throttle import Throttle

log = structlog.get_logger()

_LOG_EVERY_S: Final = 60.0


class ProcessStarter:
    """A source of ready processes, callable from any thread."""

    def __init__(self, start: Callable[[], DecodingProcess], *, unconfined: bool = False) -> None:
        """`start` returns a new process, which need not be ready yet.

        With `unconfined`, processes without the filter of system calls are used as well.
        """
        self._start = start
        self._unconfined = unconfined
        self._changing = threading.Lock()
        self._spare: DecodingProcess | None = None
        self._failures: dict[int, str] = {}
        """The error of the last start, by the number of each lane that waits for a process."""
        self._throttle: Throttle[str] = Throttle(_LOG_EVERY_S, remembered=1)
        self._closed = False

    @property
    def failure(self) -> str:
        """The error because of which a lane has no process; empty if none waits for one."""
        with self._changing:
            return next(iter(self._failures.values()), "")

    def start(self, lane: int, prepare: Callable[[DecodingProcess], None] | None = None) -> DecodingProcess:
        """Return a ready process for this lane, and start the next spare one.

        `prepare` is called with the process. Raises `StartError`; `failure` is its text until a start for this lane
        succeeds.
        """
        with self._changing:
            process, self._spare = self._spare, None
        try:
            if process is None or not self._is_ready(process):
                process = self._start()
                if not self._is_ready(process):
                    raise StartError("the decoding process ended before it was ready")
            if prepare is not None:
                prepare(process)
        except (OSError, MemoryError, StartError) as error:
            failure = str(error) if isinstance(error, StartError) else typed_text(error)
            with self._changing:
                self._failures[lane] = failure
                is_due = self._throttle.try_acquire("start", time.monotonic())
            if is_due:
                log.error("decoding_process_not_started", error=failure)
            raise StartError(failure) from error
        with self._changing:
            self._failures.pop(lane, None)
            if self._spare is None and not self._closed:
                try:
                    self._spare = self._start()
                except (OSError, MemoryError) as error:  # the next lane starts its own
                    log.warning("spare_decoding_process_not_started", error=repr(error))
        return process

    def _is_ready(self, process: DecodingProcess) -> bool:
        """Return whether a process has started; end it otherwise. Raises `StartError` if it is not confined."""
        try:
            held = process.limits()
        except ProcessLost:
            process.kill()
            return False
        if self._unconfined or CALLS in held:
            return True
        process.kill()
        raise StartError(
            f"expected a filter of its system calls, got {', '.join(held) or 'no limit'}. Run the processor where the "
            "kernel accepts one, or set decoding_unconfined."
        )

    def close(self) -> None:
        """End the spare process, and start no other one."""
        with self._changing:
            self._closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
