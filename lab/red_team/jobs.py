"""What one measurement is: an attack with its effort, on one variant of the defence, at one strength."""

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
"""What asks a defence for its answers alone, so that it runs on ONNX networks too."""

Cost = tuple[int, int]
"""Of a picture: passes forward and backward, and passes forward alone."""


@dataclass(frozen=True)
class Effort:
    """How an attack is run. What a kind does not use keeps its default.

    `step` is the length of a step as a share of ε (None: 2.5 ÷ steps); `samples` draws of the defence are averaged in
    each gradient or answer; `queries` is what a gradient-free attack may ask, of HopSkipJump in its first step.
    """

    kind: Kind
    steps: int = 0
    samples: int = 1
    step: float | None = None
    random_start: bool = True
    targeted: bool = False
    queries: int = 0
    random: bool = False
    """Whether the defence draws: AutoAttack then is its randomised version, and Square compares on common draws."""

    @property
    def version(self) -> Literal["rand", "standard"]:
        """Of AutoAttack."""
        return "rand" if self.random else "standard"

    @property
    def gradients(self) -> bool:
        """Whether it differentiates the defence."""
        return self.kind not in WITHOUT_GRADIENTS


@dataclass(frozen=True)
class Job:
    """An attack on the first `pictures` pictures within L∞ `eps`.

    `variant` names what is attacked and what then judges (`defences.Defence.variant`). Of pictures beyond the first
    `compared` only those are attacked that everything before left standing. `counts` says whether it is an attack on
    the very defence within the bound, so that its successes count for the worst case.
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
        """At most, of one picture; attacks that stop when they succeed take less."""
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
        """Whether pictures on which it has succeeded cost nothing more."""
        return self.effort.kind in ("square", "auto-attack") and not self.effort.random

    @property
    def group(self) -> str:
        """What `--attacks` calls it: the name up to the stroke."""
        return self.name.partition("/")[0]

    def settings(self) -> tuple[object, ...]:
        """What its outcome on a batch depends on, apart from the batch and the defence."""
        return (self.name, self.effort, self.eps, self.variant)


# Croce and Hein 2020: 100 steps of APGD on two losses, each gradient the mean of 20 draws; the standard version has one
# loss without draws, then targeted APGD and FAB at 9 targets of 100 steps each, and Square.
_AUTO_ATTACK: Final[dict[str, Cost]] = {"rand": (4000, 240), "standard": (1900, 5000)}
