"""Work in a thread that nothing has to wait for: an interrupt leaves it behind."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """One call of `work` in a daemon thread, which does not keep the process alive."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def done(self, wait_s: float) -> bool:
        """Wait at most `wait_s`; return whether the work has ended."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def result(self) -> T:
        """Return the result of work that is done. Raises the work's own exception."""
        if self._error is not None:
            raise self._error
        assert not self._thread.is_alive()
        return self._result  # type: ignore[return-value]  # set by _run, None included where T allows it

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # raised again in the thread that asks for the result
            self._error = error
