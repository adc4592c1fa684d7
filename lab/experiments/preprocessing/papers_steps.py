"""Our function with the paper's own quantisation steps. Elsewhere it has smaller ones (`choose.SCALES`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lab.experiments.preprocessing.attacked import Attacker
from lab.experiments.preprocessing.defences import OURS, Function, Settings, functions

PAPERS_STEPS: Final = f"{OURS}, steps of 20 to 100"
"""The name in the tables."""
LARGEST: Final = 100.0
"""The largest step of Algorithm 2, which maps counts to 20 … 100 (line 15)."""


def with_the_papers_steps(settings: Settings) -> Settings:
    """Return the settings with the table scaled to steps of 20 to 100; δ and the cell stay as they were chosen."""
    scale = LARGEST / max(max(row) for row in settings.steps)
    return replace(settings, steps=tuple(tuple(step * scale for step in row) for row in settings.steps))


class PapersSteps(Attacker):
    """The attacks on one subject, also behind our function with the paper's steps."""

    def function(self, name: str) -> Function:
        """Return a defence by its name. `PAPERS_STEPS` has the chosen settings, except for the steps."""
        if name != PAPERS_STEPS:
            return super().function(name)
        return replace(functions(with_the_papers_steps(self.chosen.settings))[OURS], name=name)
