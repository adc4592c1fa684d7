"""A trial opening of camera sources: which of them open now, before anything is started or registered for them."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from producers.sources.opening import open_source
from producers.sources.settings import REAL_KINDS, SourceSettings
from schemas.errors import PointillistError, SourceError
from schemas.runtime.daemon_thread import start_daemon_thread

Name = TypeVar("Name", bound=Hashable)

_TRIAL_S: Final = 21.0
"""Least deadline of the trials that run at once: a source has 10 s to answer by default, and again to name its
stream."""
_REMEDIES: Final = {
    "401 Unauthorized": "Check user and password. Give them by --login-file, or the key `login` of a file of cameras.",
    "Protocol not found": "Use rtsp://, rtsps://, http:// or https://.",
}
"""Remedies by a part of FFmpeg's error."""
_AT_ONCE: Final = 16
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class Trial:
    """The result for one source: the error of the opening, or None, and with a picture its width and height."""

    error: SourceError | None = None
    size: tuple[int, int] | None = None


def try_sources(
    sources: Mapping[Name, SourceSettings],
    *,
    picture: bool = False,
    one_deadline: bool = False,
    check: Callable[[], None] = lambda: None,
) -> dict[Name, Trial]:
    """Open each source once and close it again, equal ones once for all; with `picture`, read one from each.

    A source that has not opened in time counts as an error: 21 s for every 16 sources, or longer by their `open_s`.
    With `one_deadline`, this time is for all of them. `check` is called every 0.1 s, and its exception ends the wait.
    Simulated sources are not in the result.
    """
    tried = {name: source for name, source in sources.items() if source.kind in REAL_KINDS}
    waiting: queue.SimpleQueue[SourceSettings] = queue.SimpleQueue()
    for source in dict.fromkeys(tried.values()):
        waiting.put(source)
    left = waiting.qsize()
    found: dict[SourceSettings, Trial] = {}

    def work() -> None:
        while True:
            try:
                source = waiting.get_nowait()
            except queue.Empty:
                return
            found[source] = _try(source, picture)

    for number in range(min(left, _AT_ONCE)):
        start_daemon_thread(work, f"trial-{number}")
    within_s = max([_TRIAL_S, *(source.opening_s for source in tried.values())])
    if not one_deadline:
        within_s *= math.ceil(left / _AT_ONCE)
    end = time.monotonic() + within_s
    while len(found) < left and time.monotonic() < end:
        check()
        time.sleep(_POLL_S)
    late = Trial(SourceError(f"expected an answer within {within_s:g} s, got none"))
    return {name: found.get(source, late) for name, source in tried.items()}


def try_source(settings: SourceSettings) -> None:
    """Open one source and close it again; raise its `SourceError`, `remedied`."""
    trial = try_sources({"": settings}).get("", Trial())
    if trial.error is not None:
        raise remedied(trial.error)


def remedied(error: SourceError, otherwise: str = "") -> SourceError:
    """Return the error with the remedy for an unknown scheme or a missing login; `otherwise` is that of the others."""
    remedy = next((each for text, each in _REMEDIES.items() if text in str(error)), otherwise)
    return SourceError(f"{error}. {remedy}") if remedy else error


def _try(settings: SourceSettings, picture: bool) -> Trial:
    try:
        source = open_source(settings)
        try:
            captured = source.read() if picture else None
        finally:
            source.close()
    except SourceError as error:
        return Trial(error)
    except Exception as error:  # without a result its source would seem to give no answer
        return Trial(SourceError(str(error) if isinstance(error, PointillistError) else type(error).__name__))
    if picture and captured is None:
        return Trial(SourceError("expected a picture, got none: the source is at its end"))
    return Trial(size=(captured.picture.shape[1], captured.picture.shape[0]) if captured is not None else None)
