"""The generators of a fleet's attacks."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from producers.simulation.generator import Generator
from producers.simulation.generator_toml import find_generator


class RedTeam:
    """Each generator once, by its name in the scenario, for all attacked cameras of a process.

    Raises `ConfigError` when a generator cannot be run. Without any, nothing is imported.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.generators = {name: Generator(find_generator(name)) for name in sorted(set(names))}
        self.one_core = threading.Lock()
        """Held during an attack, because attacks may use one core of the machine and no more."""
