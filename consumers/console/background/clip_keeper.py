"""The console's clips: films around alerts are made from Kafka and kept before its retention ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from consumers.cameras.episodes import AlertSummary
from consumers.cameras.open_alerts import newest_alerts
from consumers.console.context import ConsoleContext
from consumers.console.data.clips import film, read_shots
from consumers.console.data.kept_clips import ALERT, GIVEN_UP_MS, SIGHTING, KeptClips
from schemas.clock import unix_ms
from schemas.errors import StateError


async def film_around(context: ConsoleContext, camera: str, at_ms: int) -> bytes:
    """Return the film around a moment from Kafka; empty bytes if it holds no pictures of then. Raises BrokerError."""
    async with context.filming:  # one at a time: a film takes a core for a second
        shots = await read_shots(context.settings, context.keys, camera, at_ms)
        return await asyncio.to_thread(film, shots) if shots else b""


async def keep_clips(context: ConsoleContext) -> None:
    """Note the alerts of the last day, and make and keep each clip that is due.

    Raises the first error of Kafka, of a store or of the recorder's database. A clip that fails is not due again for a
    while, so that the next call begins with another one. From `GIVEN_UP_MS` on, it is given up.
    """
    clips = context.clips
    if clips is None:
        return
    try:
        newest = await context.read_recorded(newest_alerts)
    except StateError:  # the recorder has not created its database yet
        return
    await context.run_on_kept_files(_want_alerts, clips, newest)
    for wanted in await context.run_on_kept_files(clips.due):
        try:
            found = await film_around(context, wanted.camera, wanted.at_ms)
            await context.run_on_kept_files(clips.keep, wanted, found)
        except Exception:
            if wanted.at_ms > unix_ms() - GIVEN_UP_MS:
                clips.postpone(wanted)
                raise
            await context.run_on_kept_files(clips.keep, wanted, b"")
        await context.run_on_kept_files(clips.purge)


def _want_alerts(clips: KeptClips, newest: Sequence[AlertSummary]) -> None:
    since_ms = unix_ms() - GIVEN_UP_MS
    found = [each for each in newest if each.raised_ms > since_ms]
    for why, is_sighting in ((ALERT, False), (SIGHTING, True)):
        clips.request([(each.camera, each.raised_ms) for each in found if bool(each.wanted) is is_sighting], why)
