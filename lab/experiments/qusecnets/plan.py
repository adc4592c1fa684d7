"""The budget of the experiment: its attacks, networks and numbers of pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

WHITE, BLACK, HONEST = "white-box, as the paper", "black-box, as the paper", "honest"


@dataclass(frozen=True)
class AttackRow:
    """An attack with its bound ε (L∞).

    `steps` marks attacks with tens of passes per picture, `slow` those with hundreds, `main` those on few networks.
    """

    key: str
    label: str
    knowledge: str
    eps: float | None = None
    targeted: bool = False
    steps: bool = False
    slow: bool = False
    main: bool = False


def _rows(paper_eps: float, eps: float, curve: tuple[float, ...]) -> tuple[AttackRow, ...]:
    """Return the rows: `paper_eps` is the bound of the paper's FGSM, `eps` the main bound of the `HONEST` ones."""
    return (
        AttackRow("clean", "clean", HONEST),
        AttackRow("noise", f"random signs {eps:.3g}", HONEST, eps),
        AttackRow("fgsm", f"FGSM {paper_eps:g}", WHITE, paper_eps),
        AttackRow("fgsm-black", f"FGSM {paper_eps:g} on a substitute", BLACK, paper_eps),
        AttackRow("cw", "C&W, L∞ .1", WHITE, 0.1, slow=True),
        AttackRow("cw", "C&W, L∞ .1", WHITE, 0.1, targeted=True, slow=True),
        AttackRow("cw-black", "C&W on a substitute, L∞ .1", BLACK, 0.1, slow=True, main=True),
        AttackRow("jsma", "JSMA", WHITE, None, targeted=True, slow=True, main=True),
        *(
            AttackRow(f"pgd-{each:.3g}", f"PGD, exact gradients, {each:.3g}", HONEST, each, steps=True)
            for each in curve
        ),
        AttackRow("pgd-long", f"PGD of 100 steps, exact gradients, {eps:.3g}", HONEST, eps, slow=True, main=True),
        AttackRow("bpda-identity", f"PGD, BPDA by the identity, {eps:.3g}", HONEST, eps, steps=True),
        AttackRow("bpda-soft", f"PGD, BPDA by a soft layer, {eps:.3g}", HONEST, eps, steps=True),
        AttackRow("box", f"PGD in the output box of the layer, {eps:.3g}", HONEST, eps, steps=True),
        AttackRow("square", f"Square, {eps:.3g}", HONEST, eps, slow=True, main=True),
        AttackRow("transfer", f"transfer from the plain network, {eps:.3g}", HONEST, eps, steps=True),
        AttackRow("cw-free", "C&W, no bound", HONEST, None, slow=True, main=True),
        AttackRow("worst", f"worst of all within {eps:.3g}", HONEST, eps, slow=True, main=True),
    )


ROWS: Final = {
    "mnist": _rows(0.3, 0.3, (0.1, 0.2, 0.3, 0.4)),
    "cifar10": _rows(0.1, 8 / 255, (2 / 255, 4 / 255, 8 / 255, 0.1)),
}
WHOLE_SUFFIX: Final = "-whole"
WHOLE_ROWS: Final = (
    AttackRow(f"fgsm{WHOLE_SUFFIX}", "FGSM 0.3, all test pictures", WHITE, 0.3),
    AttackRow(
        f"box{WHOLE_SUFFIX}", "PGD in the output box of the layer, 0.3, all test pictures", HONEST, 0.3, steps=True
    ),
)
"""Attacks on the whole test split of MNIST: its first pictures are harder than the rest. Keys end in `WHOLE_SUFFIX`."""
WHOLE: Final = ("mnist-cq2-attacked", "mnist-cq2")
"""Networks that also meet `WHOLE_ROWS`."""
GRID_ROWS: Final = (
    AttackRow("fgsm-0.1", "FGSM 0.1", WHITE, 0.1),
    AttackRow("fgsm-0.2", "FGSM 0.2", WHITE, 0.2),
    AttackRow("fgsm-0.4", "FGSM 0.4", WHITE, 0.4),
)
"""The bounds of the paper's Figures 5 and 6 besides that of `ROWS`."""
GRID: Final = ("mnist-plain", "mnist-cq2", "mnist-tq2", "mnist-cq4", "mnist-tq4", "mnist-cq6", "mnist-tq6")
"""Networks of the paper's Figures 5 and 6."""
MAINS: Final = (
    "mnist-cq2-attacked",
    "mnist-cq2",
    "mnist-plain",
    "mnist-tq2",
    "mnist-tq2-printed",
    "cifar10-cq4",
    "cifar10-plain",
)
"""Networks that meet every attack. The others, with more levels, meet only cheap attacks and the paper's."""


@dataclass(frozen=True)
class Budget:
    """Numbers of pictures and steps. Pictures are the first of the test split, classified correctly or not."""

    images: int = 1000
    """Number of pictures for attacks in one step."""
    step_images: int = 200
    slow_images: int = 50
    steps: int = 40
    queries: int = 1000
    seed: int = 0

    def quick(self) -> Budget:
        """Return a minimal budget for a trial run."""
        return replace(self, images=50, step_images=20, slow_images=5, steps=10, queries=100)

    def at_most(self, count: int) -> Budget:
        """Return this budget with at most `count` pictures."""
        names = ("images", "step_images", "slow_images")
        return replace(self, **{name: min(count, getattr(self, name)) for name in names})

    def rows(self, network: str) -> tuple[AttackRow, ...]:
        """Return the attacks on a network."""
        every = ROWS[network.partition("-")[0]]
        return tuple(row for row in every if network in MAINS or not row.main)

    def pictures(self, row: AttackRow) -> int:
        """Return the number of attacked pictures of a row."""
        return self.slow_images if row.slow else self.step_images if row.steps else self.images
