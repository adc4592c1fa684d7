"""One row of the plan against one judge: adversarial frames, and the answers to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lab.attacks import eot_pgd, make_attack
from lab.attacks.carlini_wagner import CarliniWagner, Effort
from lab.attacks.contract import Defended, Logits
from lab.attacks.jsma import Jsma
from lab.attacks.square import square
from lab.attacks.transfer import transfer
from lab.data import to_frames
from lab.experiments.cells import Scores, score
from lab.experiments.qusecnets.box import in_box
from lab.experiments.qusecnets.judges import Judge
from lab.experiments.qusecnets.plan import AttackRow, Budget

LONG: Final = 100
REPEATS: Final = 1
"""One evaluation is enough, because the layer is not random."""
EFFORT: Final = Effort(3, 100, 0.02, 1.0)
"""Effort of C&W: the paper's 100 iterations, for each of 3 constants."""


def scores(judge: Judge, row: AttackRow, plan: Budget, plain: Judge) -> Scores:
    """Return the scores of `judge` on its first pictures under an attack; `plain` is the network without the layer."""
    pictures = judge.pictures.first(plan.pictures(row))
    clean = to_frames(pictures.images, torch.device("cpu"))
    labels = torch.from_numpy(pictures.labels)
    targets = torch.from_numpy(judge.targets[: len(pictures)]) if row.targeted else None
    chance = torch.Generator().manual_seed(plan.seed + 1)
    frames = Attacker(judge, plain, plan, chance).attack(row, clean, labels, targets).detach()
    return score(_defended(judge), frames, clean, labels, targets, REPEATS, chance)


def _defended(judge: Judge) -> Defended:
    return lambda frames, _: judge.logits(frames)


@dataclass(frozen=True)
class Attacker:
    """The attacker of `judge`. Depending on the row, the attacker has `judge` itself, only `plain`, or only a
    substitute."""

    judge: Judge
    plain: Judge
    plan: Budget
    chance: torch.Generator

    def attack(self, row: AttackRow, clean: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        """Return the attacked frames (n, C, H, W) of the row. Changes by unbounded attacks are then clipped to ε."""
        name, _, how = row.key.partition("-")
        logits = self.judge.imitation if how == "black" else self.judge.logits
        if name == "clean":
            return clean
        if name in ("cw", "jsma"):
            attack = Jsma() if name == "jsma" else CarliniWagner("cw", None, 0.0, (EFFORT,))
            found = attack(logits, clean, labels, targets, self.chance)
            return found if row.eps is None else clean + (found - clean).clamp(-row.eps, row.eps)
        assert row.eps is not None
        return self._within(row.eps, name, how, logits, clean, labels, targets)

    def _within(
        self, eps: float, name: str, how: str, logits: Logits, clean: Tensor, labels: Tensor, targets: Tensor | None
    ) -> Tensor:
        chance = self.chance
        if name == "noise":
            signs = torch.randint(0, 2, clean.shape, generator=chance) * 2 - 1
            return (clean + eps * signs).clamp(0, 1)
        if name == "fgsm":
            return make_attack("fgsm", eps)(logits, clean, labels, targets, chance)
        if name == "transfer":
            return transfer([self.plain.logits], clean, labels, targets, eps=eps, generator=chance)
        if name == "square":
            whole, queries = _defended(self.judge), self.plan.queries
            return square(whole, clean, labels, targets, eps=eps, queries=queries, generator=chance)
        if name == "box":
            bundle, steps = self.judge.bundle, self.plan.steps
            return in_box(bundle.preprocess, bundle.network_logits, clean, labels, eps=eps, steps=steps, chance=chance)
        ways = {"identity": self.judge.by_identity, "soft": self.judge.by_soft}
        through = ways[how] if name == "bpda" else _defended(self.judge)
        steps = LONG if how == "long" else self.plan.steps
        return eot_pgd(through, clean, labels, targets, eps=eps, steps=steps, samples=1, generator=chance)
