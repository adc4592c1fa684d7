"""The steering of drop ratios: reads the inputs of the policies, and sends and logs the commands that are due."""

from __future__ import annotations

from functools import partial
from typing import Final

from consumers.console.background.sending import send_all
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.backlogs import Backlog
from consumers.console.data.drop_plan import DropChange
from consumers.console.data.drop_policies import read_policies
from consumers.database.console_store import AuditLog
from schemas.clock import monotonic_ms

MOST_A_ROUND: Final = 32
"""Commands in one round: a camera that does not confirm takes one of the places for 8 s."""


async def steer(context: ConsoleContext, now_ms: int | None = None) -> None:
    """Decide about all cameras under a policy once, and send at most `MOST_A_ROUND` commands.

    `now_ms` is on a monotonic clock. Without an MQTT broker nothing is decided.
    """
    plan = context.drop_plan
    plan.adopt(await context.read(read_policies, context.store.engine))
    if plan.is_idle or context.commands is None:
        return
    due = plan.changes(context.fleet, await _backlogs(context), monotonic_ms() if now_ms is None else now_ms)
    plan.postpone(due[MOST_A_ROUND:])
    commands = context.commands

    def send(change: DropChange) -> str:
        return commands.send(change.camera, {"dropped_per_block": change.wanted})

    sending = await send_all(context, due[:MOST_A_ROUND], send, partial(_note, context))
    plan.postpone(sending.unsent)
    sending.warn("drop_ratios")


async def _backlogs(context: ConsoleContext) -> dict[str, Backlog]:
    """Return the ledgers stored since the last round, where a policy watches the uplink."""
    backlogs, sight = context.drop_plan.backlogs, context.drop_plan.uplinks()
    if not sight.sites:
        return {}
    found, _ = await unless_away(context.read_recorded(backlogs.read, sight), {})  # the next round reads them
    return found


async def _note(context: ConsoleContext, change: DropChange, outcome: str) -> None:
    """Write the line of a command in the audit log."""
    note = context.store.note
    await context.write(
        note, change.policy.name, "drop policy", change.camera, change.detail, outcome, log=AuditLog.POLICIES
    )
