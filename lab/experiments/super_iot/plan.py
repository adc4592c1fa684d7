"""The budget of the experiment: attacks, drop ratios, and numbers of pictures and repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.attacks import Attack, make_attack

RATIOS: Final = (0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50)
"""The paper's drop ratios. An 8×8 block loses whole pixels: .01 is 1/64 and .05 is 3/64."""
KEY_RATIOS: Final = (0.25, 0.50)
"""Drop ratios of the requirements. Rows outside the paper are measured at these alone."""


@dataclass(frozen=True)
class AttackRow:
    """A row of the tables: an attack with its bound. A `targeted` attack aims at a random other class."""

    key: str
    label: str
    name: str
    eps: float | None
    targeted: bool
    gradient: bool = False
    """True if the attack is cheap enough for every correctly classified picture."""
    outside: bool = False
    """True if the attack is not in the paper and unlike all attacks in the training of the reconstruction."""

    @property
    def minimises(self) -> bool:
        """True if the attack searches for the smallest change, with hundreds of passes per picture."""
        return self.name.startswith(("deepfool", "lbfgs", "cw"))

    @property
    def id(self) -> str:
        """A name for files: `pgd-targeted`."""
        return self.key if self.key == "clean" else f"{self.key}-{'targeted' if self.targeted else 'untargeted'}"

    def attack(self) -> Attack | None:
        """Return the attack, or None for the clean row."""
        return None if self.key == "clean" else make_attack(self.name, self.eps)


def _both(row: AttackRow) -> list[AttackRow]:
    return [row, replace(row, targeted=False)]


CLEAN: Final = AttackRow("clean", "clean", "clean", None, False, gradient=True)
PAPER_ROWS: Final = (
    CLEAN,
    *_both(AttackRow("fgsm", "FGSM .005", "fgsm", 0.005, True, gradient=True)),
    *_both(AttackRow("ifgsm", "I-FGSM .005", "ifgsm", 0.005, True, gradient=True)),
    *_both(AttackRow("pgd", "PGD .01", "pgd", 0.01, True, gradient=True)),
    AttackRow("deepfool", "DeepFool", "deepfool", None, False),
    *_both(AttackRow("lbfgs", "L-BFGS", "lbfgs", None, True)),
    *_both(AttackRow("cw", "C&W", "cw", None, True)),
)
"""The rows of Tables I and II. The paper's attacks are targeted, except for DeepFool, which has no targeted form."""
OUTSIDE_ROWS: Final = (
    *_both(AttackRow("pgd8", "PGD 8/255", "pgd", 8 / 255, True, outside=True)),
    *_both(AttackRow("l2pgd", "L2-PGD .5", "l2pgd", 0.5, True, outside=True)),
    *_both(AttackRow("lbfgs10", "L-BFGS κ=10", "lbfgs10", 0.5, True, outside=True)),
    *_both(AttackRow("cw10", "C&W κ=10", "cw10", 0.5, True, outside=True)),
    *_both(AttackRow("rotation", "rotation 15°", "rotation", 15.0, True, outside=True)),
)


@dataclass(frozen=True)
class Budget:
    """Numbers of pictures and repeats. Pictures are the first ones that the judge classifies correctly."""

    images: int | None = None
    """Number of pictures for the gradient attacks at the key ratios, with one mask each. None means all."""
    slow_images: int = 1000
    """Number of pictures for the attacks that minimise, in the paper's form.

    Pictures beyond `sweep_images` are measured only at the key ratios, with one mask each. The other form gets at most
    `sweep_images` pictures. Attacks outside the paper get at most a fifth of `slow_images`.
    """
    sweep_images: int = 1000
    """Number of pictures of every row at all ratios with all repeats. Also the limit of the rows outside the paper."""
    repeats: int = 10
    """Number of fresh masks, or fresh draws of a random baseline, for every picture of the sweep."""
    paper_repeats: int = 3
    """The same for paper mode, which costs several times as much."""
    eot_images: int = 1000
    eot_steps: int = 10
    eot_samples: int = 10
    ratios: tuple[float, ...] = RATIOS
    attacks: tuple[str, ...] | None = None
    """Keys of the measured rows; None means all. The clean row is always included."""
    seed: int = 0

    def rows(self) -> tuple[AttackRow, ...]:
        """Return the rows in the order of the tables."""
        every = (*PAPER_ROWS, *OUTSIDE_ROWS)
        return tuple(row for row in every if self.attacks is None or row.key in (*self.attacks, "clean"))

    def pictures_of(self, row: AttackRow) -> int | None:
        """Return the number of attacked pictures of a row; None means all."""
        if row.gradient:
            return self.images
        if not row.minimises:
            return self.within(self.sweep_images)
        if row.outside:
            return self.within(min(self.sweep_images, max(1, self.slow_images // 5)))
        paper = row.targeted or row.name == "deepfool"
        return self.within(self.slow_images if paper else min(self.sweep_images, self.slow_images))

    def within(self, count: int) -> int:
        """Return `count`, or `images` if that is less."""
        return count if self.images is None else min(count, self.images)

    def ratios_of(self, row: AttackRow) -> tuple[float, ...]:
        """Return the drop ratios at which a row is measured."""
        return tuple(ratio for ratio in self.ratios if ratio in KEY_RATIOS) if row.outside else self.ratios

    def smaller(self, images: int, repeats: int, slow_images: int) -> Budget:
        """Return a smaller budget for the judges after the first: fewer pictures and repeats."""
        return replace(
            self,
            images=self.within(images),
            slow_images=min(self.slow_images, slow_images),
            repeats=min(self.repeats, repeats),
            paper_repeats=min(self.paper_repeats, repeats),
        )
