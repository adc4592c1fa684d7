"""The console's periodic tasks: they work on the data of the pages until they are cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from consumers.console.background.clip_keeper import keep_clips
from consumers.console.background.drop_steering import steer
from consumers.console.background.review_purge import purge_reviews
from consumers.console.background.switching import switch
from consumers.console.context import ConsoleContext
from consumers.console.data.collector import Collector
from consumers.console.data.fleet import Fleet
from consumers.console.data.rollup import Rollup
from consumers.database.engine import LATE, LATE_S
from schemas.clock import monotonic_ms
from schemas.errors import error_text
from schemas.runtime.repeat import attempt, repeat
from schemas.runtime.settled_clock import SettledClock
from schemas.waiting import noticing_delay, wait_at_most

_COLLECT_S: Final = 1.0
_ROLL_UP_S: Final = 5.0
_CLIPS_S: Final = 5.0
_BETWEEN_S: Final = 0.2
_PURGE_S: Final = 600.0
_FORGOTTEN_S: Final = 2.0
_STEER_S: Final = 5.0
_SWITCH_S: Final = 5.0
"""Between two tries to send commands that the broker did not take."""


def background_tasks(context: ConsoleContext) -> dict[str, Coroutine[Any, Any, object]]:
    """Return the periodic work on the data of the pages, by the names of its tasks."""
    work: dict[str, Coroutine[Any, Any, object]] = {
        "system": context.watch.run(),
        "tick": _tick(context.fleet, context.settings.tick_s),
        "rollup": roll_up(context),
        "forgotten": follow_forgotten(context),
        "drop_steering": _steer(context),
        "switches": _switch(context),
        "sites": _poll_sites(context),
        "purge": purge(context),
    }
    if context.labelled_frames is not None:
        work["labelled_frames"] = _collect(context)
    if context.clips is not None:
        work["clips"] = _keep_clips(context)
    return work


async def _tick(fleet: Fleet, every_s: float) -> None:
    while True:
        fleet.tick(monotonic_ms())
        await asyncio.sleep(every_s)


async def roll_up(context: ConsoleContext) -> None:
    """Sum up newly recorded frames in small steps, and delete expired sums."""
    rollup: Rollup | None = None
    age_clock = SettledClock()
    purge_at_s = 0.0

    async def sum_up() -> bool:
        nonlocal rollup, purge_at_s
        engine = await context.read_long(context.recorded.engine)
        if rollup is None or rollup.recorded is not engine:
            rollup = Rollup(engine, context.store.engine)
        rollup.note({card.name: card.evidence for card in context.fleet.own_cards() if card.evidence})
        part = await context.read_long(rollup.read)
        more = part is not None and await context.write(rollup.add, part)
        if time.monotonic() >= purge_at_s:
            left = await context.write(rollup.purge, age_clock.now_ms())
            purge_at_s = time.monotonic() + (0 if left else _PURGE_S)
            more |= left
        return more

    while True:
        more = await attempt(sum_up, "rollup_failed")
        # At most half of the time, so that people's requests get their turn.
        await asyncio.sleep(_BETWEEN_S if more else _ROLL_UP_S)


async def follow_forgotten(context: ConsoleContext) -> None:
    """Remove the cameras that the command line has removed since the last poll.

    The poll also sets the condition `store`: whether the console's own database responds.
    """
    health = context.health

    def note(responds: bool, detail: str = "") -> None:
        if health is not None:
            health.set("store", responds, detail)

    async def forget() -> None:
        try:
            with noticing_delay(LATE_S, partial(note, False, LATE)):
                removed = await context.write(context.store.removed_cameras)
        except Exception as error:
            note(False, error_text(error))
            raise
        note(True)
        context.fleet.forget_all(removed)

    await repeat(forget, _FORGOTTEN_S, "forgotten_not_read")


async def _steer(context: ConsoleContext) -> None:
    """Let the drop policies decide and send commands."""
    await asyncio.sleep(_STEER_S)
    await repeat(partial(steer, context), _STEER_S, "drop_ratios_not_steered")


async def _switch(context: ConsoleContext) -> None:
    """Send the commands of switches, also of those that an earlier console has left."""
    while True:
        context.switch_due.clear()
        if not await attempt(partial(switch, context), "presets_not_switched"):
            await wait_at_most(context.switch_due, _SWITCH_S)


async def _poll_sites(context: ConsoleContext) -> None:
    if context.sites is not None:
        await context.sites.run()
    await asyncio.Event().wait()


async def _collect(context: ConsoleContext) -> None:
    """Keep frames of the chosen cameras that are worth a label."""
    assert context.labelled_frames is not None
    collector = Collector(context.labelled_frames, context.feature_extractor)
    try:
        # Features may take seconds: pages that show frames must not wait for them.
        step = partial(asyncio.to_thread, collector.step, context.fleet)
        await repeat(step, _COLLECT_S, "labelled_frames_not_kept")
    finally:
        if context.feature_extractor is not None:
            context.feature_extractor.close()


async def _keep_clips(context: ConsoleContext) -> None:
    """Keep clips of alerts, also of those that were raised while no console ran, and clips that users asked for."""
    await repeat(partial(keep_clips, context), _CLIPS_S, "clips_not_kept")


async def purge(context: ConsoleContext) -> None:
    """Delete clips, frames to label and decisions beyond their bounds, also while no other one is kept."""
    while True:
        for kind, kept in (("clips", context.clips), ("labelled_frames", context.labelled_frames)):
            if kept is not None:
                await attempt(partial(context.run_on_kept_files, kept.purge), "kept_files_not_purged", kind=kind)
        await attempt(partial(purge_reviews, context), "reviews_not_purged")
        await asyncio.sleep(_PURGE_S)
