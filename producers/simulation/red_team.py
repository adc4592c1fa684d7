"""The generators of a fleet's attacks."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from producers.simulation.generator import Generator
from producers.simulation.generator_toml import find_generator


class RedTeam:
    """The generators by their names in the scenario, shared by all attacked cameras of a process.

    Raises `ConfigError` when a generator cannot be run. Without any, nothing is imported.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.generators = {name: Generator(find_generator(name)) for name in sorted(set(names))}
        self.one_core = threading.Lock()
        """A lock held during an attack, because attacks may use one core of the machine only."""
