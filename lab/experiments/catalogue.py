"""All experiments on the harness, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

from lab.experiments.harness.plan import Plan, Workplace

Planned = Callable[[Workplace], Plan]
EXPERIMENTS: Final = (
    "video", "hardening", "red_team", "qusecnets", "preprocessing", "codefend", "aigan", "super_iot", "scale",
    "certified",
)  # fmt: skip
"""Packages of `lab.experiments` with a module `experiment`, in the order in which the queue serves equals."""


def experiments() -> Mapping[str, Planned]:
    """Return the plan of each experiment, by the name of its folder under docs/results."""
    return {name.replace("_", "-"): import_module(f"lab.experiments.{name}.experiment").plan for name in EXPERIMENTS}
