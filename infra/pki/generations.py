"""Accepted key generations, followed while a role runs: a revocation needs no restart."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from infra.state_folder.environment import accepted_generations
from schemas.errors import error_text
from schemas.keys.keys import KeyRing
from schemas.runtime.file_version import FileVersion, file_version
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
    # Changes since the role read the file at its start count too.
    seen: FileVersion = None
    failure = ""
    while True:
        now = file_version(file)
        if now != seen and now is not None:
            try:
                lowest = accepted_generations(file)
                keys.accept_from(lowest)
            except Exception as error:  # whatever it is, the next poll tries again
                # Revocations stay in force: a damaged file makes no generation acceptable.
                detail = error_text(error)
                if failure != detail:
                    failure = detail
                    log.error("generations_not_read", error=failure)
            else:
                seen, failure = now, ""
                log.info("generations_read", raised=len(lowest))
        await asyncio.sleep(POLL_S)
