"""Accepted key generations, followed while a role runs: a revocation needs no restart."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from infra.state_folder.environment import accepted_generations
from schemas.keys.keys import KeyRing
from schemas.runtime.followed_file import FollowedFile
from schemas.waiting import cancel

POLL_S: Final = 0.25
"""Seconds between two checks of the file; each costs one call of `stat`."""

Result = TypeVar("Result")
log = structlog.get_logger()


async def following(file: Path | None, keys: KeyRing, work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`, and update the generations in `keys` whenever `file` changes. None stands for no file."""
    if file is None:
        return await work
    watch = asyncio.create_task(_follow(file, keys), name="generations")
    try:
        return await work
    finally:
        await cancel(watch)


async def _follow(file: Path, keys: KeyRing) -> None:
    def accept(file: Path) -> int:
        lowest = accepted_generations(file)
        keys.accept_from(lowest)
        return len(lowest)

    # Changes since the role read the file at its start count too. After a failed read, revocations stay in force: a
    # damaged file makes no generation acceptable.
    followed = FollowedFile(file, accept, version=None)
    while True:
        if (raised := followed.changed()) is not None:
            log.info("generations_read", raised=raised)
        await asyncio.sleep(POLL_S)
