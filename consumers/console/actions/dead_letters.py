"""Replay of the dead letters of a reason, site by site."""

from __future__ import annotations

import math

from starlette.requests import Request

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.gate import session_of
from consumers.console.access.sight import Sight
from consumers.console.access.sites import sight_of
from consumers.console.context import ConsoleContext
from consumers.console.replay import ReplayOutcome, letters, replay
from schemas.errors import UserError


async def replay_reason(context: ConsoleContext, request: Request, reason: str) -> tuple[str, bool]:
    """Replay the dead letters of a reason at the person's sites. Return the outcome, and whether no site failed.

    Each site is replayed by itself: the line in its audit log has its own numbers. A failure ends the replay.
    """
    sight, who, settings = sight_of(request), session_of(request).name, context.settings
    sites = {"": sight} if sight.sites is None else {site: Sight(frozenset({site})) for site in sorted(sight.sites)}
    total, is_done = ReplayOutcome(), False
    # Large frames are searched in the whole topic: `replay` ends when Kafka gives nothing for a while.
    begin_long_answer(request.scope, math.inf)
    for site, part in sites.items():
        try:
            found, recorded = await context.read_long(context.recorded.read, letters, reason, part)
            outcome = await replay(settings.kafka, settings.frames_topic, found, recorded) if found else None
        except UserError as error:
            await context.note(who, "replay", reason, "", str(error), site)
            return f"{total}. {error}" if is_done else str(error), False
        total += outcome or ReplayOutcome(recorded=recorded)
        if outcome is not None:
            is_done = True
            await context.note(who, "replay", reason, "", str(outcome), site)
    return str(total) if is_done else f"no frame to send again; {total.recorded} recorded meanwhile", True
