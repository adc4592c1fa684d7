"""Frames that are too large for Kafka: a drill, see `benchmarks.reliability.drills`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from benchmarks.harness.records import rows
from benchmarks.harness.system import Result, RunningSystem, summary
from benchmarks.harness.waiting import wait_until
from infra.state_folder import Layout
from schemas.topics import KafkaTopic
from schemas.transport.kafka.admin import Admin

_LIMIT_BYTES: Final = 2_900
"""Between the record of a frame of the scene cameras without a quarter of its pixels, and that of a whole one."""


def oversize(folder: Path, cameras: int = 3, seconds: float = 40.0) -> Result:
    """Lower Kafka's limit under load, so that it refuses the whole frames. Each is shed, with one dead letter."""
    state = folder / "oversize"
    options = ("--cameras", cameras, "--fps", 4, "--seconds", seconds, "--drop-ratio", 0.25, "--probe-share", 0.2)
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        whole = "select count(*) from frames where whole"
        wait_until(lambda: rows(Layout(state).database, whole)[0][0] > 0, "a whole frame", 60, system=system)
        asyncio.run(_limit(system))
        report = system.finish()
    ((letters,),) = rows(Layout(state).database, "select count(*) from dead_letters")
    return {"most_record_bytes": _LIMIT_BYTES, "dead_letters": letters, **summary(report, state)}


async def _limit(system: RunningSystem) -> None:
    async with Admin(system.kafka()) as admin:
        await admin.set_topics(KafkaTopic.FRAMES.value, settings={"max.message.bytes": str(_LIMIT_BYTES)})
