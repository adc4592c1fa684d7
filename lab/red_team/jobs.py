"""One measurement: an attack with its effort, on one variant of the defence, at one strength."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "clean",
    "noise",
    "random-search",
    "gradients",
    "eot-pgd",
    "auto-attack",
    "square",
    "hop-skip-jump",
    "transfer",
    "verdicts",
]
WITHOUT_GRADIENTS: Final[tuple[Kind, ...]] = ("clean", "noise", "random-search", "square", "hop-skip-jump", "verdicts")
"""Attacks that use a defence's answers alone. They also run on ONNX networks."""

Cost = tuple[int, int]
"""Cost per picture: passes forward and backward, and passes forward alone."""


@dataclass(frozen=True)
class Effort:
    """The effort of an attack. Settings that a kind does not use keep their defaults.

    `step` is the length of a step as a share of ε (None: 2.5 ÷ steps). Each gradient or answer is the mean over
    `samples` draws of the defence. `queries` is the most queries of a gradient-free attack; for HopSkipJump, those of
    its first step.
    """

    kind: Kind
    steps: int = 0
    samples: int = 1
    step: float | None = None
    random_start: bool = True
    targeted: bool = False
    queries: int = 0
    random: bool = False
    """True if the defence draws. AutoAttack then runs its randomised version, and Square compares on common draws."""

    @property
    def version(self) -> Literal["rand", "standard"]:
        """The version of AutoAttack."""
        return "rand" if self.random else "standard"

    @property
    def gradients(self) -> bool:
        """True if the attack differentiates the defence."""
        return self.kind not in WITHOUT_GRADIENTS


@dataclass(frozen=True)
class Job:
    """An attack on the first `pictures` pictures within L∞ `eps`.

    `variant` names the attacked and the judging function (`defences.Defence.variant`). Beyond the first `compared`
    pictures, only those that no earlier attack broke are attacked. `counts` is True for an attack on the defence itself
    within the bound, whose successes count for the worst case.
    """

    name: str
    effort: Effort
    eps: float
    pictures: int
    variant: str = "defence"
    counts: bool = True
    compared: int | None = None

    @property
    def cost(self) -> Cost:
        """The highest cost of one picture. Attacks that stop at success cost less."""
        effort = self.effort
        passes = effort.steps * effort.samples
        if effort.kind == "auto-attack":
            return _AUTO_ATTACK[effort.version]
        if effort.kind == "hop-skip-jump":
            return 0, round(
                effort.samples * effort.queries * sum(math.sqrt(step) for step in range(1, effort.steps + 1))
            )
        if effort.kind == "square":
            return 0, effort.queries * (2 if effort.random else 1)
        return (passes, 0) if effort.gradients else (0, effort.queries)

    @property
    def stops(self) -> bool:
        """True if pictures on which the attack has succeeded cost nothing more."""
        return self.effort.kind in ("square", "auto-attack") and not self.effort.random

    @property
    def group(self) -> str:
        """The group's name for `--attacks`: the name up to the slash."""
        return self.name.partition("/")[0]

    def settings(self) -> tuple[object, ...]:
        """Return the settings on which its outcome on a batch depends, apart from the batch and the defence."""
        return (self.name, self.effort, self.eps, self.variant)


# Croce and Hein 2020. The randomised version has 100 steps of APGD on two losses, each gradient the mean of 20 draws.
# The standard version has one loss without draws, then targeted APGD and FAB at 9 targets of 100 steps each, and
# Square.
_AUTO_ATTACK: Final[dict[str, Cost]] = {"rand": (4000, 240), "standard": (1900, 5000)}
