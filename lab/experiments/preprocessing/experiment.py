"""The plan of the experiment on preprocessing against adaptive attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from lab.experiments import cells
from lab.experiments.cells import Attack, Scored, Scores
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.preprocessing.attacked import Attacker, Kind
from lab.experiments.preprocessing.defences import NONE, OURS, Settings, functions
from lab.experiments.preprocessing.papers_steps import PAPERS_STEPS
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
    Budget,
    Standard,
)
from lab.experiments.preprocessing.published import DELTAS
from lab.experiments.preprocessing.random_crop import RANDOM_CROP, RandomCrop
from lab.experiments.preprocessing.report import Chosen, write_report
from lab.experiments.preprocessing.subjects import SUBJECTS, Subject, load_subject
from lab.experiments.preprocessing.variance import VarianceRow, variance_row
from lab.training import scene128
from processors.bundle import shipped_bundle

NAME: Final = "preprocessing"
COMMAND: Final = f"pointillist lab stale --only {NAME} --run"
TABLES: Final = {**cells.TABLES, "variance": VarianceRow, "chosen": Chosen}
RANDOM: Final = frozenset(name for name, each in functions(Settings(((1.0,) * 8,) * 8, 0.1, 8)).items() if each.random)
"""Names of the random defences."""
RELEASED: Final[tuple[Kind, ...]] = ("bpda", "eot-clean", "eot-current")
"""The paper's attacks through the function, without its auto-encoder."""
_CODE: Final = "lab.experiments.preprocessing"
_LARGER: Final = {"cifar10": 1.0, "scene128": 12.0}
"""Cost of a picture of each subject, in pictures of 32×32."""
_EOT_IMAGES: Final = {"cifar10": 100}
"""Number of pictures under EOT, for subjects with cheaper pictures than the budget assumes."""


def plan(place: Workplace, budget: Budget | None = None) -> Plan:
    """Return the plan for both subjects. Cheap attacks that know the defence come first."""
    store = place.store(NAME)

    def laboratory(name: str) -> Laboratory:
        usual = budget or Budget()
        eot_images = usual.eot_images if budget else _EOT_IMAGES.get(name, usual.eot_images)
        return Laboratory(name, place, usual, replace(usual, eot_images=eot_images))

    every = [cell for name in SUBJECTS for cell in laboratory(name).cells()]
    return Plan(NAME, TABLES, tuple(every), store, lambda: write_report(store))


class Laboratory:
    """The cells of one subject. It is loaded when the first cell is measured."""

    def __init__(self, name: str, place: Workplace, budget: Budget, eot_budget: Budget) -> None:
        """`eot_budget` is that of attacks through the mean over draws."""
        self.name = name
        self.place = place
        self.budget = budget
        self.eot_budget = eot_budget
        self.cache = place.cache(NAME)

    @cached_property
    def subject(self) -> Subject:
        """The network and its pictures."""
        return load_subject(self.name, self.place.needed_data(), self.budget.seed)

    @cached_property
    def attacker(self) -> Attacker:
        """The attacks on the network."""
        return RandomCrop(self.subject, self.budget, self.cache)

    @cached_property
    def eot_attacker(self) -> Attacker:
        """The attacks on the network through the mean over draws."""
        return RandomCrop(self.subject, self.eot_budget, self.cache)

    def cells(self) -> Iterator[Cell]:
        """Yield all cells of the subject, the most important first."""
        yield self._chosen()
        yield from self._bpda()
        yield from self._adaptive()
        for name in EOT_DEFENCES:
            yield self._released("eot-clean", name)
            yield self._released("eot-current", name)
        for each in STANDARD:
            yield from (self._blind(each, name) for name in TABLE_3_DEFENCES)
        yield from (self._released("bpda", name) for name in COMBINED)
        yield from self._others()
        for each in STANDARD[:-1]:
            yield from (self._blind(each, f"{OURS}, δ = {limit:.2f}") for limit in DELTAS)
        yield from (self._variance(name, imitated=False) for name in TABLE_3_DEFENCES if name != NONE)
        yield self._variance(OURS, imitated=True)
        yield from self._papers_steps()
        yield self._variance(RANDOM_CROP, imitated=False)
        yield self._released("eot-clean", RANDOM_CROP)
        yield self._released("eot-current", RANDOM_CROP)

    def _chosen(self) -> Cell:
        def measure() -> Tables:
            subject, found = self.subject, self.attacker.chosen
            judged, settings = subject.judged, found.settings
            steps = [list(line) for line in settings.steps]
            size = list(judged.frames.shape[1:])
            return {
                "chosen": [
                    Chosen(
                        self.name, subject.bundle.model_id, size, judged.total, len(judged), steps, settings.limit,
                        settings.cell, found.rate, found.kept, found.left, [COMMAND],
                    )
                ]
            }  # fmt: skip

        return Cell(
            f"{self.name}/chosen", (f"{_CODE}.choose:chosen",), measure, self.budget.rounds, self._files(),
            120 * _LARGER.get(self.name, 1.0), self.budget.seed,
        )  # fmt: skip

    def _bpda(self) -> Iterator[Cell]:
        yield self._released("bpda", OURS)
        yield from (self._released("bpda", OURS, factor) for factor in RATE_FACTORS)
        yield from (self._released("bpda", name) for name in BPDA_DEFENCES if name != OURS)

    def _adaptive(self) -> Iterator[Cell]:
        yield from (self._pgd(each, OURS, EPS if each.norm == "linf" else BOUND) for each in ADAPTIVE)
        for eps in CURVE_EPS:
            key = f"eot-10-{round(eps * 255)}"
            yield self._pgd(Adaptive(key, f"EOT(10)-PGD, L∞ {round(eps * 255)}/255", 10), OURS, eps)
        yield self._released("bpda-surrogate", OURS)
        surrogate = Adaptive("surrogate", "PGD, BPDA by the auto-encoder, L∞ 8/255", 1)
        yield self._pgd(surrogate, OURS, EPS, surrogate=True)

    def _papers_steps(self) -> Iterator[Cell]:
        yield from (self._blind(each, PAPERS_STEPS) for each in STANDARD)
        yield from (self._released(kind, PAPERS_STEPS) for kind in RELEASED)
        yield self._pgd(ADAPTIVE[0], PAPERS_STEPS, EPS)
        yield self._variance(PAPERS_STEPS, imitated=False)

    def _others(self) -> Iterator[Cell]:
        for name in BPDA_DEFENCES:
            samples = OTHERS_SAMPLES if name in RANDOM else 1
            for norm, bound in (("linf", EPS), ("l2", BOUND)):
                label = f"EOT({samples})-PGD, " + ("L∞ 8/255" if norm == "linf" else "l2 .05")
                if name != OURS:
                    yield self._pgd(Adaptive(f"known-{norm}", label, samples, norm=norm), name, bound)

    def _blind(self, each: Standard, name: str) -> Cell:
        def run() -> Scores:
            return self.attacker.score(self.attacker.function(name), self.attacker.blind(each), each.key != "clean")

        attack = Attack(self.name, name, each.key, each.label, each.key != "clean", each.eps)
        return self._cell(attack, run, 20 if each.slow else 4)

    def _released(self, kind: Kind, name: str, factor: float = 1.0) -> Cell:
        eot = kind.startswith("eot")
        budget = self.eot_budget if eot else self.budget
        samples = budget.samples if eot else 1
        label = {
            "bpda": "BPDA", "bpda-surrogate": "BPDA by the auto-encoder",
            "eot-clean": f"BPDA + EOT({samples}) at the clean picture",
            "eot-current": f"BPDA + EOT({samples}) at the current picture",
        }[kind] + f", {budget.rounds} rounds"  # fmt: skip
        most = budget.bpda_images if name in (OURS, PAPERS_STEPS) else budget.other_images
        count = budget.eot_images if eot else most

        def run() -> Scores:
            attacker = self.eot_attacker if eot else self.attacker
            function = attacker.function(name)
            return attacker.score(function, attacker.released(kind, function, factor, count), targeted=True)

        key = kind if factor == 1 else f"{kind}-{factor:g}"
        label += "" if factor == 1 else f", η × {factor:g}"
        return self._cell(Attack(self.name, name, key, label, True, BOUND), run, count * samples / 4, budget)

    def _pgd(self, each: Adaptive, name: str, bound: float, surrogate: bool = False) -> Cell:
        def run() -> Scores:
            attacker = self.eot_attacker
            function = attacker.function(name)
            found = attacker.pgd(each, function, bound, surrogate=surrogate)
            return attacker.score(function, found, each.targeted)

        attack = Attack(self.name, name, each.key, each.label, each.targeted, bound)
        return self._cell(attack, run, self.eot_budget.eot_images * (3 + 2 * each.samples) / 16, self.eot_budget)

    def _cell(self, attack: Attack, run: Callable[[], Scores], seconds: float, budget: Budget | None = None) -> Cell:
        code, files = (f"{_CODE}.attacked:Attacker", *self._own_code(attack.defence)), self._files()
        cost = seconds * _LARGER.get(self.name, 1.0)
        return Scored(attack, code, run, budget or self.budget, files, cost, self.budget.seed, self.cache).cell

    def _variance(self, name: str, *, imitated: bool) -> Cell:
        def measure() -> Tables:
            shown = self.subject.judged.part(slice(self.budget.variance_images))
            imitation = self.attacker.surrogate if imitated else None
            return {
                "variance": [variance_row(self.subject, self.attacker.function(name), shown, self.cache, imitation)]
            }

        code = (
            f"{_CODE}.variance:variance_row", f"{_CODE}.choose:chosen", f"{_CODE}.defences:functions",
            *self._own_code(name),
        )  # fmt: skip
        settings = (name, imitated, self.budget.variance_images, self.budget.surrogate_steps)
        cell = f"{self.name}/{name}/variance{'-imitated' if imitated else ''}"
        return Cell(cell, code, measure, settings, self._files(), 15 * _LARGER.get(self.name, 1.0), self.budget.seed)

    @staticmethod
    def _own_code(defence: str) -> tuple[str, ...]:
        own = {PAPERS_STEPS: "papers_steps:PapersSteps", RANDOM_CROP: "random_crop:RandomCrop"}
        return (f"{_CODE}.{own[defence]}",) if defence in own else ()

    def _files(self) -> tuple[Path, ...]:
        if self.name == "cifar10":
            return shipped_bundle("cifar10"), self.place.data_set("cifar10")
        return (scene128.FOLDER,)
