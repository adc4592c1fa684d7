"""The attacks of the plan on one subject, and the answers of its defences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import eot_pgd, make_attack
from lab.attacks.contract import Defended
from lab.attacks.surrogate import learn_surrogate
from lab.baselines import Baseline
from lab.cache import Arrays, Cache, digest
from lab.experiments.cells import Scores, score
from lab.experiments.preprocessing.choose import Choice, chosen
from lab.experiments.preprocessing.defences import NONE, OURS, Function, functions
from lab.experiments.preprocessing.plan import BOUND, Adaptive, Budget, Standard
from lab.experiments.preprocessing.released import descend
from lab.experiments.preprocessing.subjects import Shown, Subject
from lab.provenance import made_by


class Attacked(NamedTuple):
    """Attacked `frames` (n, C, H, W), and the `curve` of an attack in rounds, as in `Scores`."""

    frames: Tensor
    curve: NDArray[np.float64] = np.zeros((0, 2))


Kind = Literal["bpda", "bpda-surrogate", "eot-clean", "eot-current"]


@dataclass(frozen=True)
class Attacker:
    """The attacks on one subject behind its defences. Attack and defence use the same first pictures."""

    subject: Subject
    budget: Budget
    cache: Cache

    @cached_property
    def chosen(self) -> Choice:
        """The settings and η that were chosen on the validation pictures."""
        return chosen(self.subject, self.budget.rounds, BOUND, self.cache)

    def function(self, name: str) -> Function:
        """Return a defence by its name, with the chosen settings. `ours, δ = …` has another limit of the distortion."""
        ours, _, limit = name.partition(", δ = ")
        settings = replace(self.chosen.settings, limit=float(limit)) if limit else self.chosen.settings
        return replace(functions(settings)[ours], name=name)

    def score(self, function: Function, found: Attacked, targeted: bool) -> Scores:
        """Return the scores of a defence on attacked frames."""
        shown = self._shown(len(found.frames))
        answers = score(
            function.before(self.subject.logits), found.frames, shown.frames, shown.labels,
            shown.targets if targeted else None, self.budget.draws if function.random else 1,
            torch.Generator().manual_seed(self.budget.seed + 7),
        )  # fmt: skip
        return replace(answers, curve=found.curve)

    def blind(self, each: Standard) -> Attacked:
        """Return frames attacked on the bare network. They are cached, so every defence gets the same pictures."""
        shown = self._shown(self.budget.slow_images if each.slow else self.budget.images)
        if each.key == "clean":
            return Attacked(shown.frames)
        made_from = digest(
            self.subject.made_from(), each, len(shown), self.budget.seed, self.budget.rounds, made_by(__name__)
        )

        def make() -> Arrays:
            chance = torch.Generator().manual_seed(self.budget.seed + 1)
            if each.name == "descent":
                bare = self.function(NONE).before(self.subject.logits)
                return {"frames": self._descended(bare, bare, shown, 1.0, 1, at_clean=False).frames.numpy()}
            attack = make_attack(each.name, each.eps)
            found = attack(self.subject.logits, shown.frames, shown.labels, shown.targets, chance).detach()
            return {"frames": found.numpy()}

        found = self.cache.get(f"{self.subject.name}/attacked/{each.key}", made_from, make)
        return Attacked(torch.from_numpy(found["frames"].astype("float32", copy=False)))

    def released(self, kind: Kind, function: Function, factor: float, count: int) -> Attacked:
        """Return frames after the rounds of BPDA, or of BPDA and EOT, as the authors released them."""
        logits, eot = self.subject.logits, kind.startswith("eot")
        if eot:
            through = function.known(logits)
        elif kind == "bpda":
            through = function.by_identity(logits)
        else:
            through = function.by(self.surrogate, logits)
        samples = self.budget.samples if eot else 1
        before, at_clean = function.before(logits), kind == "eot-clean"
        return self._descended(before, through, self._shown(count), factor, samples, at_clean=at_clean)

    def pgd(self, each: Adaptive, function: Function, bound: float, *, surrogate: bool) -> Attacked:
        """Return frames after PGD through the defence, or through the learned imitation of it."""
        budget, logits, shown = self.budget, self.subject.logits, self._shown(self.budget.eot_images)
        through = function.by(self.surrogate, logits) if surrogate else function.known(logits)
        length = bound * shown.frames[0].numel() ** 0.5 if each.norm == "l2" else bound
        frames = eot_pgd(
            through, shown.frames, shown.labels, shown.targets if each.targeted else None, eps=length,
            steps=budget.steps, samples=each.samples, norm="l2" if each.norm == "l2" else "linf",
            generator=torch.Generator().manual_seed(budget.seed + 3),
        )  # fmt: skip
        return Attacked(frames)

    @cached_property
    def surrogate(self) -> Baseline:
        """The 6-layer auto-encoder, trained on validation pictures and on the outputs of our function for them."""
        pictures = self.subject.chosen_on.frames
        return learn_surrogate(
            self.function(OURS).forward, pictures, seed=self.budget.seed, steps=self.budget.surrogate_steps
        )

    def _shown(self, count: int) -> Shown:
        return self.subject.judged.part(slice(count))

    def _descended(
        self, shown_to: Defended, through: Defended, shown: Shown, factor: float, samples: int, *, at_clean: bool
    ) -> Attacked:
        found = descend(
            shown_to, through, shown.frames, shown.labels, shown.targets, rate=self.chosen.rate * factor,
            rounds=self.budget.rounds, bound=BOUND, samples=samples, at_clean=at_clean,
            generator=torch.Generator().manual_seed(self.budget.seed + 2),
        )  # fmt: skip
        return Attacked(found.frames, np.stack((found.correct.mean(1), found.found.mean(1)), 1))
