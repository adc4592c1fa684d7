"""The cells of the plan: each a defence under one attack, with the pictures that both are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from lab.experiments.cache import Arrays, Cache, digest
from lab.experiments.cells import Cell, Scores, score
from lab.experiments.preprocessing.choose import Choice, chosen
from lab.experiments.preprocessing.defences import NONE, OURS, Function, Settings, functions
from lab.experiments.preprocessing.plan import (
    ADAPTIVE,
    BOUND,
    BPDA_DEFENCES,
    COMBINED,
    CURVE_EPS,
    EOT_DEFENCES,
    EPS,
    OTHERS_SAMPLES,
    RATE_FACTORS,
    STANDARD,
    TABLE_3_DEFENCES,
    Adaptive,
    Plan,
    Standard,
)  # fmt: skip
from lab.experiments.preprocessing.published import DELTAS
from lab.experiments.preprocessing.released import descend
from lab.experiments.preprocessing.subjects import Shown, Subject
from lab.experiments.provenance import made_by


class Attacked(NamedTuple):
    """What an attack leaves: `frames` (n, C, H, W), and its `curve`, see `Scores`, where it goes in rounds."""

    frames: Tensor
    curve: NDArray[np.float64] = np.zeros((0, 2))


Kind = Literal["bpda", "bpda-surrogate", "eot-clean", "eot-current"]


@dataclass(frozen=True)
class Laboratory:
    """One subject with its defences under the plan."""

    subject: Subject
    plan: Plan
    cache: Cache

    @cached_property
    def functions(self) -> dict[str, Function]:
        """With the chosen settings."""
        return functions(self.settings)

    @cached_property
    def chosen(self) -> Choice:
        """On the validation pictures."""
        return chosen(self.subject, self.plan.rounds, BOUND, self.cache)

    @property
    def settings(self) -> Settings:
        """Of our function."""
        return self.chosen.settings

    @property
    def rate(self) -> float:
        """η of the paper's descent."""
        return self.chosen.rate

    def cells(self) -> Iterator[Cell]:
        """All that the plan has; what takes a share of the others' time and says most comes first."""
        work: dict[str, Callable[[], Iterator[Cell]]] = {
            "bpda": self._bpda,
            "adaptive": self._adaptive,
            "eot": self._eot,
            "standard": self._standard,
            "combined": self._combined,
            "others": self._others,
            "delta": self._deltas,
        }
        for part, make in work.items():
            if part in self.plan.parts:
                yield from make()

    def _standard(self) -> Iterator[Cell]:
        for each in STANDARD:
            for name in TABLE_3_DEFENCES:
                yield self._blind(each, self.functions[name])

    def _deltas(self) -> Iterator[Cell]:
        for each in STANDARD[:-1]:
            for limit in DELTAS:
                ours = functions(replace(self.settings, limit=limit))[OURS]
                yield self._blind(each, replace(ours, name=f"ours, δ = {limit:.2f}"))

    def _bpda(self) -> Iterator[Cell]:
        ours = self.functions[OURS]
        yield self._released("bpda", ours)
        for factor in RATE_FACTORS:
            yield self._released("bpda", ours, factor)
        for name in BPDA_DEFENCES:
            if name != OURS:
                yield self._released("bpda", self.functions[name])

    def _combined(self) -> Iterator[Cell]:
        for name in COMBINED:
            yield self._released("bpda", self.functions[name])

    def _eot(self) -> Iterator[Cell]:
        for name in EOT_DEFENCES:
            yield self._released("eot-clean", self.functions[name])
            yield self._released("eot-current", self.functions[name])

    def _adaptive(self) -> Iterator[Cell]:
        ours = self.functions[OURS]
        for each in ADAPTIVE:
            yield self._pgd(each, ours, EPS if each.norm == "linf" else BOUND)
        for eps in CURVE_EPS:
            key = f"eot-10-{round(eps * 255)}"
            yield self._pgd(Adaptive(key, f"EOT(10)-PGD, L∞ {round(eps * 255)}/255", 10), ours, eps)
        yield self._released("bpda-surrogate", ours)
        yield self._pgd(Adaptive("surrogate", "PGD, BPDA by the auto-encoder, L∞ 8/255", 1), ours, EPS, surrogate=True)

    def _others(self) -> Iterator[Cell]:
        for name in BPDA_DEFENCES:
            function = self.functions[name]
            if name != OURS:
                samples = OTHERS_SAMPLES if function.random else 1
                for norm, bound in (("linf", EPS), ("l2", BOUND)):
                    label = f"EOT({samples})-PGD, " + ("L∞ 8/255" if norm == "linf" else "l2 .05")
                    yield self._pgd(Adaptive(f"known-{norm}", label, samples, norm=norm), function, bound)

    def _shown(self, count: int) -> Shown:
        return self.subject.judged.part(slice(count))

    def _draws(self, function: Function) -> int:
        return self.plan.draws if function.random else 1

    def _cell(
        self, function: Function, key: str, label: str, targeted: bool, eps: float | None, state: object,
        attack: Callable[[Shown], Attacked], count: int,
    ) -> Cell:  # fmt: skip
        made_from = digest(
            self.subject.made_from(), function.made_from, state, targeted, eps, count, self.plan.draws, self.plan.seed,
            made_by(__name__),
        )  # fmt: skip

        def run() -> Scores:
            shown = self._shown(count)
            chance = torch.Generator().manual_seed(self.plan.seed + 7)
            found = attack(shown)
            answers = score(
                function.before(self.subject.logits), found.frames, shown.frames, shown.labels,
                shown.targets if targeted else None, self._draws(function), chance,
            )  # fmt: skip
            return replace(answers, curve=found.curve)

        return Cell(self.subject.name, function.name, key, label, targeted, eps, made_from, run)

    def _blind(self, each: Standard, function: Function) -> Cell:
        count = self.plan.slow_images if each.slow else self.plan.images
        return self._cell(
            function, each.key, each.label, each.key != "clean", each.eps, each,
            lambda shown: Attacked(self._on_bare(each, shown)), count,
        )  # fmt: skip

    def _on_bare(self, each: Standard, shown: Shown) -> Tensor:
        """Kept as well: every defence is shown the same pictures."""
        if each.key == "clean":
            return shown.frames
        made_from = digest(
            self.subject.made_from(), each, len(shown), self.plan.seed, self.plan.rounds, made_by(__name__)
        )

        def make() -> Arrays:
            chance = torch.Generator().manual_seed(self.plan.seed + 1)
            if each.name == "descent":
                bare = self.functions[NONE].before(self.subject.logits)
                return {"frames": self._descended(bare, bare, shown, 1.0, 1, at_clean=False).frames.numpy()}
            attack = make_attack(each.name, each.eps)
            found = attack(self.subject.logits, shown.frames, shown.labels, shown.targets, chance).detach()
            return {"frames": found.numpy()}

        found = self.cache.get(f"{self.subject.name}/attacked/{each.key}", made_from, make)
        return torch.from_numpy(found["frames"].astype("float32", copy=False))

    def _descended(
        self, shown_to: Defended, through: Defended, shown: Shown, factor: float, samples: int, *, at_clean: bool
    ) -> Attacked:
        found = descend(
            shown_to, through, shown.frames, shown.labels, shown.targets, rate=self.rate * factor,
            rounds=self.plan.rounds, bound=BOUND, samples=samples, at_clean=at_clean,
            generator=torch.Generator().manual_seed(self.plan.seed + 2),
        )  # fmt: skip
        return Attacked(found.frames, np.stack((found.correct.mean(1), found.found.mean(1)), 1))

    def _released(self, kind: Kind, function: Function, factor: float = 1.0) -> Cell:
        plan, logits = self.plan, self.subject.logits
        eot = kind.startswith("eot")
        samples = plan.samples if eot else 1
        label = {
            "bpda": "BPDA", "bpda-surrogate": "BPDA by the auto-encoder",
            "eot-clean": f"BPDA + EOT({samples}) at the clean picture",
            "eot-current": f"BPDA + EOT({samples}) at the current picture",
        }[kind] + f", {plan.rounds} rounds"  # fmt: skip

        def attack(shown: Shown) -> Attacked:
            if eot:
                through = function.known(logits)
            elif kind == "bpda":
                through = function.by_identity(logits)
            else:
                through = function.by(self.surrogate, logits)
            before = function.before(logits)
            return self._descended(before, through, shown, factor, samples, at_clean=kind == "eot-clean")

        key = kind if factor == 1 else f"{kind}-{factor:g}"
        label += "" if factor == 1 else f", η × {factor:g}"
        most = plan.bpda_images if function.name == OURS else plan.other_images
        count = plan.eot_images if eot else most
        state = (kind, factor, samples, plan.rounds, self.rate, plan.surrogate_steps)
        return self._cell(function, key, label, True, BOUND, state, attack, count)

    def _pgd(self, each: Adaptive, function: Function, bound: float, surrogate: bool = False) -> Cell:
        plan, logits = self.plan, self.subject.logits

        def attack(shown: Shown) -> Attacked:
            through = function.by(self.surrogate, logits) if surrogate else function.known(logits)
            length = bound * shown.frames[0].numel() ** 0.5 if each.norm == "l2" else bound
            frames = eot_pgd(
                through, shown.frames, shown.labels, shown.targets if each.targeted else None, eps=length,
                steps=plan.steps, samples=each.samples, norm="l2" if each.norm == "l2" else "linf",
                generator=torch.Generator().manual_seed(plan.seed + 3),
            )  # fmt: skip
            return Attacked(frames)

        state = (each, plan.steps, surrogate and plan.surrogate_steps)
        return self._cell(function, each.key, each.label, each.targeted, bound, state, attack, plan.eot_images)

    @cached_property
    def surrogate(self) -> Baseline:
        """The 6-layer auto-encoder, trained on validation pictures and what our function makes of them."""
        pictures = self.subject.chosen_on.frames
        return learn_surrogate(
            self.functions[OURS].forward, pictures, seed=self.plan.seed, steps=self.plan.surrogate_steps
        )
