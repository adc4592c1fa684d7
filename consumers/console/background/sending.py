"""Many commands to cameras, a few at once: for drop policies and for switches of groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import structlog

from consumers.console.context import ConsoleContext
from schemas.errors import error_text

AT_ONCE: Final = 4
"""Commands in flight: people's commands have as many threads again."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass
class SendOutcome(Generic[T]):
    """The outcome of a round of commands."""

    unsent: list[T] = field(default_factory=list)
    """The commands that the broker did not take, and the ones that were not tried after it."""
    problems: list[str] = field(default_factory=list)
    """The broker's errors."""
    unlogged: list[str] = field(default_factory=list)
    """Errors of the audit log; the command is sent."""

    def warn(self, what: str) -> None:
        """Log a warning for each kind of error; `what` names the commands."""
        for event, errors in ((f"{what}_not_sent", self.problems), (f"{what}_not_logged", self.unlogged)):
            if errors:
                log.warning(event, cameras=len(errors), error=errors[0][:200])


async def send_all(
    context: ConsoleContext,
    due: Sequence[T],
    send: Callable[[T], str],
    note: Callable[[T, str], Awaitable[None]],
) -> SendOutcome[T]:
    """Send commands, `AT_ONCE` at a time, and `note` the outcome of each, which `send` returns in a thread.

    After an error of `send` no other command begins.
    """
    sending, limit = SendOutcome[T](), asyncio.Semaphore(AT_ONCE)

    async def one(each: T) -> None:
        async with limit:
            if sending.problems:  # the broker does not answer
                sending.unsent.append(each)
                return
            try:
                outcome = await context.command(send, each)
            except Exception as error:
                sending.unsent.append(each)
                sending.problems.append(error_text(error))
                return
            try:
                await note(each, outcome)
            except Exception as error:
                sending.unlogged.append(error_text(error))

    await asyncio.gather(*(one(each) for each in due))
    return sending
