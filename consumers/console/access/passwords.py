"""The check of passwords: rate-limited, one at a time, with a short queue and a short cache."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from consumers.console.access.guesses import Attempt, Guesses, TryLaterError
from consumers.console.access.users import User, check_password
from schemas.runtime.worker_threads import WorkerThreads

MOST_WAITING: Final = 4
"""Maximum checks at once, the running one included. Each takes 50 ms, 16 MiB and a core."""
REMEMBERED_S: Final = 60.0
"""Seconds for which a correct password of an API client is not hashed again."""
_MOST_REMEMBERED: Final = 1_000

Gone = Callable[[], Coroutine[Any, Any, None]]
"""A function that returns when the client has disconnected."""


@dataclass
class _Check:
    task: asyncio.Task[User | None]
    waiting: int = 0


class Passwords:
    """Checks the passwords of users."""

    def __init__(self, users: Callable[[], Mapping[str, User]], clock_s: Callable[[], float] = time.monotonic) -> None:
        """Create the checker. `users` returns the current users."""
        self._users = users
        self._clock_s = clock_s
        self._guesses = Guesses(clock_s)
        self._run_in_thread = WorkerThreads(1, "passwords")
        self._turn = asyncio.Lock()
        self._key = secrets.token_bytes(32)
        self._checks: dict[bytes, _Check] = {}
        self._right: dict[bytes, tuple[User, float]] = {}

    async def check(self, attempt: Attempt, password: str, gone: Gone, *, remember: bool = False) -> User | None:
        """Return the user if the password is right, None if it is wrong.

        With `remember`, a password that was right a moment ago is right without a new check. Raises TryLaterError if
        the attempt may not begin yet, or if too many checks wait.
        """
        # The limit comes first: otherwise the cache would answer guesses at the speed of the network.
        self._guesses.check(attempt)
        digest = self._digest(attempt, password)
        if remember and (known := self._remembered(digest)) is not None:
            return known
        found = self._checks.get(digest)
        if found is None:
            if len(self._checks) >= MOST_WAITING:
                raise TryLaterError(1)
            refund = self._guesses.begin(attempt)
            task = asyncio.create_task(self._run(attempt, password, refund), name="password")
            found = self._checks[digest] = _Check(task)
        try:
            user = await self._result(found, gone)
        finally:
            if (found.task.done() or not found.waiting) and self._checks.get(digest) is found:
                del self._checks[digest]
        if user is not None and remember:
            self._remember(digest, user)
        return user

    async def _result(self, check: _Check, gone: Gone) -> User | None:
        """Wait for a check. It is cancelled when its last waiting visitor has left."""
        leaving = asyncio.create_task(gone(), name="visitor")
        check.waiting += 1
        try:
            await asyncio.wait([check.task, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not check.task.done():
                raise TryLaterError(1)
            return check.task.result()
        finally:
            check.waiting -= 1
            if not check.waiting:
                check.task.cancel()
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    async def _run(self, attempt: Attempt, password: str, refund: Callable[[], None]) -> User | None:
        try:
            await self._turn.acquire()
        except asyncio.CancelledError:
            refund()  # the check gave no result
            raise
        try:
            user = await self._run_in_thread(check_password, self._users(), attempt.name, password)
        finally:
            self._turn.release()
        if user is not None:
            refund()
            self._guesses.record_success(attempt)
        return user

    def _digest(self, attempt: Attempt, password: str) -> bytes:
        text = f"{attempt.visitor[0]}\0{attempt.name}\0{password}"
        return blake2b(text.encode(), key=self._key, digest_size=32).digest()

    def _remember(self, digest: bytes, user: User) -> None:
        self._right.pop(digest, None)
        self._right[digest] = user, self._clock_s() + REMEMBERED_S
        while len(self._right) > _MOST_REMEMBERED:
            del self._right[next(iter(self._right))]

    def _remembered(self, digest: bytes) -> User | None:
        user, until_s = self._right.get(digest, (None, 0.0))
        if user is None:
            return None
        if self._clock_s() < until_s and self._users().get(user.name) == user:
            return user
        del self._right[digest]
        return None

    def close(self) -> None:
        """Stop the thread."""
        self._run_in_thread.close()
