"""Switches of groups to a preset: sends and logs the commands that are still to be sent."""

from __future__ import annotations

from functools import partial
from typing import Final

from consumers.console.background.sending import send_all
from consumers.console.context import ConsoleContext
from consumers.console.data.presets import words_of
from consumers.console.data.switches import Switch, is_unsent, note_sent, read_switches, wanted_of
from consumers.database.console_store import AuditLog
from schemas.errors import BrokerError, UserError

MOST_A_ROUND: Final = 64
"""Commands of a switch between two notes of its progress."""
STEERED: Final = "refused: a drop policy steers its drop ratio"


async def switch(context: ConsoleContext) -> bool:
    """Send the next commands of each unfinished switch, the oldest first. Return whether some are left to send now.

    Commands do not wait for the cameras: what those announce shows whether they have obeyed.
    """
    if context.commands is None:
        return False
    unfinished = await context.read(partial(read_switches, context.store.engine, unfinished=True))
    more = False
    for each in reversed(unfinished):
        if not await _send_some(context, each):
            return False
        more |= len(each.unsent) > MOST_A_ROUND
    return more


async def _send_some(context: ConsoleContext, switch: Switch) -> bool:
    """Send the next commands of a switch. Return whether the broker took all of them."""
    refused: dict[str, str] = {}
    some = switch.unsent[:MOST_A_ROUND]

    def send(camera: str) -> str:
        outcome, is_taken = _sent(context, switch, camera)
        if not is_taken:
            refused[camera] = outcome
        return outcome

    async def note(camera: str, outcome: str) -> None:
        write = context.store.note
        named = f"{switch.preset}: " if switch.preset and switch.changes else ""
        detail = named + words_of(switch.changes)
        await context.write(write, switch.who, "preset", camera, detail, outcome, log=AuditLog.POLICIES)

    sending = await send_all(context, some, send, note)
    done = set(some) - set(sending.unsent)
    await context.write(note_sent, context.store.engine, switch.number, done, refused)
    sending.warn("presets")
    return not sending.unsent


def _sent(context: ConsoleContext, switch: Switch, camera: str) -> tuple[str, bool]:
    """Command a camera, unless a later command replaces this one. Return the outcome, and False if it was refused.

    Raises BrokerError.
    """
    assert context.commands is not None
    wanted = wanted_of(switch.changes, steered=context.drop_plan.policy_of(camera) is not None)
    is_due = partial(is_unsent, context.store.engine, switch.number, camera)
    try:
        if not switch.changes:
            return context.commands.reset(camera, wait_s=0, is_due=is_due), True
        if not wanted:
            return STEERED, False
        return context.commands.send(camera, wanted, wait_s=0, is_due=is_due), True
    except BrokerError:
        raise
    except UserError as error:  # such as no key of this camera
        return str(error), False
