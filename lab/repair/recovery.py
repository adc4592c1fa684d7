"""Recovered triggers: their application to clean frames, and their removal from quarantined ones.

All have the form x·(1 − a) + a·c. A stamp's a and c are the same for every frame. A transplant's c is a quarantined
frame, and its a is the place of the trigger on it. That place is learned from occluding windows or from the backdoored
model's answers. `recover` tries them in this order, which is that of their cost. It accepts a trigger by the backdoored
model's reaction. A painter's come from a generator of the paper's CycleGAN, in the mode `paper` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from lab.data import batch_slices
from lab.repair.checkpoints import Checkpoints
from lab.repair.cyclegan import PAPER, train_cyclegan
from lab.repair.generators import Generator
from lab.repair.inpainting import inpaint
from lab.repair.occlusion import occlude
from lab.repair.stamps import Stamp, estimate, refine
from lab.repair.transplant import MaskNetwork, point, train_mask, widened

ACTIVATES: Final = 0.9
"""Smallest share of stamped frames that reach the target if the stamp is the trigger."""
LEAVES: Final = 0.85
"""Smallest share of quarantined frames of other classes that leave the target without the trigger."""
MOST: Final = 0.5
"""Largest share of a frame that a transplant covers. A larger one is the other frame, not its trigger."""
MASK_STEPS: Final = 110
OCCLUDED: Final = 128
"""Quarantined frames in which the trigger is located by occlusion."""
FOUND: Final = 0.5
"""Share of them in which it must be found."""

Logits = Callable[[Tensor], Tensor]


class Trigger(Protocol):
    """A recovered trigger. Frames are (B, C, H, W) in [0, 1]."""

    @property
    def name(self) -> str:
        """The trigger's kind."""
        ...

    def put(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return frames with the trigger, and the coverage of each pixel, (B, 1, H, W) in [0, 1]."""
        ...

    def remove(self, frames: Tensor) -> Tensor:
        """Return frames without the trigger."""
        ...


@dataclass(frozen=True)
class StampTrigger:
    """A trigger that is the same on every frame. Pixels that it hides entirely are inpainted from their border."""

    stamp: Stamp
    name: str = "stamp"

    def put(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return frames with the trigger. See `Trigger`."""
        return self.stamp.apply(frames), self.stamp.opacity.expand(len(frames), -1, -1, -1)

    def remove(self, frames: Tensor) -> Tensor:
        """Return frames without the trigger. See `Trigger`."""
        return inpaint(self.stamp.undo(frames), self.stamp.hidden.float().expand(len(frames), -1, -1, -1))


@dataclass(frozen=True)
class TransplantTrigger:
    """A trigger cut out of quarantined frames `donors` (M, C, H, W) at the places `cuts` (M, 1, H, W)."""

    mask: MaskNetwork
    donors: Tensor
    cuts: Tensor
    name: str = "transplant"

    def put(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return frames with the trigger. See `Trigger`."""
        chosen = torch.randint(len(self.donors), (len(frames),), generator=generator)
        cut = self.cuts[chosen]
        return frames * (1 - cut) + cut * self.donors[chosen], cut

    def remove(self, frames: Tensor) -> Tensor:
        """Return frames without the trigger. See `Trigger`."""
        with torch.no_grad():
            return inpaint(frames, widened(self.mask(frames)))


@dataclass(frozen=True)
class PaintedTrigger:
    """The CycleGAN's trigger: `forth` is G, `back` is F."""

    forth: Generator
    back: Generator
    name: str = "painted"

    def put(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return frames with the trigger. See `Trigger`."""
        with torch.no_grad():
            made = self.forth(frames)
        return made, (made - frames).abs().amax(1, keepdim=True)

    def remove(self, frames: Tensor) -> Tensor:
        """Return frames without the trigger. See `Trigger`."""
        with torch.no_grad():
            freed: Tensor = self.back(frames)
        return freed


@dataclass(frozen=True)
class Mixture:
    """Several triggers that are applied in turn. Removal uses the one that takes most frames off the target."""

    triggers: Sequence[Trigger]
    best: Trigger
    name: str = "mixture"

    def put(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return frames with the trigger. See `Trigger`."""
        choice = torch.randint(len(self.triggers), (len(frames),), generator=generator)
        marked, covered = frames.clone(), frames.new_zeros(len(frames), 1, *frames.shape[2:])
        for number, trigger in enumerate(self.triggers):
            if bool((chosen := choice == number).any()):
                marked[chosen], covered[chosen] = trigger.put(frames[chosen], generator)
        return marked, covered

    def remove(self, frames: Tensor) -> Tensor:
        """Return frames without the trigger. See `Trigger`."""
        return self.best.remove(frames)


@dataclass(frozen=True)
class Evidence:
    """The backdoored model's reaction to a trigger.

    `arrives` is the share of clean frames of other classes that the trigger takes to the target. `leaves` is the share
    of quarantined frames that its removal takes off the target. `covers` is the share of a frame that it covers.
    """

    arrives: float
    leaves: float
    covers: float

    def convinces(self, own: float) -> bool:
        """Return whether this is the trigger, even that of a backdoor of some classes only.

        `own` is the share of frames that really show the target's class, estimated from clean frames.
        """
        return self.leaves >= LEAVES * (1 - own) and (self.arrives >= ACTIVATES or self.covers <= 0.15)


@torch.no_grad()
def evidence(trigger: Trigger, others: Tensor, members: Tensor, target: int, logits: Logits) -> Evidence:
    """Test `trigger` on up to 200 clean frames of other classes and up to 200 quarantined frames of class `target`."""
    generator = torch.Generator().manual_seed(1)
    marked, covered = trigger.put(others[:200], generator)
    arrives = _called(logits, marked, target)
    leaves = 1 - _called(logits, trigger.remove(members[:200]), target)
    return Evidence(arrives, leaves, float(covered.mean()))


def _called(logits: Logits, frames: Tensor, target: int) -> float:
    parts = [logits(frames[part]).argmax(1) == target for part in batch_slices(len(frames), *frames.shape[2:])]
    return float(torch.cat(parts).float().mean())


@dataclass(frozen=True)
class Found:
    """The trigger to unlearn, or None if none explains the quarantine, and the evidence for all tried ones, by name."""

    trigger: Trigger | None
    tried: dict[str, Evidence]

    @property
    def covers(self) -> float:
        """The share of a frame that the trigger covers; 0 for a mixture, whose parts differ."""
        found = None if self.trigger is None else self.tried.get(self.trigger.name)
        return 0.0 if found is None else found.covers


class Progress(Protocol):
    """A receiver of progress: a phase with its number of steps, then steps."""

    def phase(self, name: str, steps: int) -> None:
        """Begin a phase of this many steps."""
        ...

    def advance(self, steps: int) -> object:
        """Count this many steps as done."""
        ...


def recover(
    clean: Tensor,
    labels: Tensor,
    members: Tensor,
    target: int,
    logits: Logits,
    checkpoints: Checkpoints,
    progress: Progress,
) -> Found:
    """Recover the trigger of quarantined frames `members` (M, C, H, W), all of class `target` by the backdoored model.

    `clean` (N, C, H, W) with `labels` (N,) are the training frames.
    """
    others = clean[labels != target]
    own = 1 - len(others) / len(clean)
    tried: dict[str, Evidence] = {}
    found: list[Trigger] = []

    def judge(trigger: Trigger, most: float = 1.0) -> bool:
        proof = tried[trigger.name] = evidence(trigger, others, members, target, logits)
        if proof.covers > most:
            return False
        found.append(trigger)
        return proof.convinces(own)

    progress.phase("stamp", 1)
    if judge(_stamp(others, members, target, logits)):
        return Found(found[-1], tried)
    progress.advance(1)
    progress.phase("windows", len(members[:OCCLUDED]))
    seen = occlude(members[:OCCLUDED], others, target, logits, progress.advance)
    if seen.share >= FOUND and judge(_cut(point(seen, clean), members, "windows"), MOST):
        return Found(_with_stamp(found, tried), tried)
    progress.phase("transplant", MASK_STEPS)
    mask = train_mask(
        members, others, clean, target, logits, steps=MASK_STEPS,
        checkpoint=checkpoints.of("mask"), advance=progress.advance,
    )  # fmt: skip
    if judge(_cut(mask, members, "transplant"), MOST):
        return Found(_with_stamp(found, tried), tried)
    return Found(None, tried)


def _cut(mask: MaskNetwork, members: Tensor, name: str) -> TransplantTrigger:
    with torch.no_grad():
        cuts = torch.cat([widened(mask(part)) for part in torch.split(members, 128)])
    return TransplantTrigger(mask, members, cuts, name)


def _with_stamp(found: list[Trigger], tried: dict[str, Evidence]) -> Trigger:
    """Return the last one, a transplant, mixed with the stamp if the stamp reaches the target too."""
    stamp, transplant = found[0], found[-1]
    both = tried[stamp.name].arrives >= ACTIVATES and tried[stamp.name].covers <= 0.3
    chosen: Trigger = Mixture([stamp, transplant], transplant) if both else transplant
    return chosen


def _stamp(others: Tensor, members: Tensor, target: int, logits: Logits) -> StampTrigger:
    rough = estimate(others, members)
    with torch.no_grad():
        called = [
            logits(rough.apply(others[part])).argmax(1) == target
            for part in batch_slices(len(others), *others.shape[2:])
        ]
    # With a backdoor of some classes only, frames of the others would weaken the estimate.
    susceptible = others[torch.cat(called)]
    shown = susceptible if len(susceptible) >= 16 else others
    return StampTrigger(refine(rough, shown, target, logits, torch.Generator().manual_seed(0)))


def painted(clean: Tensor, poisoned: Tensor, checkpoints: Checkpoints, progress: Progress) -> PaintedTrigger:
    """Return the trigger as painted by the paper's CycleGAN."""
    progress.phase("cyclegan", PAPER.epochs)
    forth, back = train_cyclegan(clean, poisoned, PAPER, checkpoints.of("cyclegan"), progress.advance)
    return PaintedTrigger(forth, back)
