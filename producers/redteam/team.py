"""The generators of a fleet's attacks, and the one thread that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from producers.redteam.generator import Generator
from producers.redteam.generator_toml import find_generator

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class RedTeam:
    """Each generator once, by the name that a scenario gives it, for all attacked cameras of a process.

    The one thread is the bound on what the red team takes of the machine: a core. Raises `ConfigError` when a generator
    cannot be run; without any, nothing is imported and no thread starts.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.generators = {name: Generator(find_generator(name)) for name in sorted(set(names))}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="red-team")

    async def beside(self, call: Callable[[*Ts], R], *arguments: *Ts) -> R:
        """What `call` gives, computed beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
