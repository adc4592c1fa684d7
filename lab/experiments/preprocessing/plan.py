"""What is measured: the attacks of the paper's tables, then those that know the defence, and the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.experiments.preprocessing.defences import NONE, OURS
from lab.experiments.preprocessing.published import TABLE_6

BOUND: Final = 0.05
"""Root mean square, the paper's bound in l2; on 32×32 pictures 2.77 in L2."""
EPS: Final = 8 / 255
"""L∞; the paper's 0.031."""


@dataclass(frozen=True)
class Standard:
    """An attack on the bare network, shown to a defence that the attacker does not know; `name` as `make_attack`."""

    key: str
    label: str
    name: str
    eps: float | None = None
    slow: bool = False


STANDARD: Final = (
    Standard("clean", "clean", "clean"),
    Standard("fgsm-01", "FGSM .01", "fgsm", 0.01),
    Standard("fgsm-03", "FGSM .03", "fgsm", 0.03),
    Standard("ifgsm-01", "I-FGSM .01", "ifgsm", 0.01),
    Standard("ifgsm-03", "I-FGSM .03", "ifgsm", 0.03),
    Standard("lbfgs", "L-BFGS", "lbfgs", slow=True),
    Standard("cw", "C&W", "cw", slow=True),
    Standard("pgd-50", "PGD, 50 rounds", "descent"),
)
"""Tables 2 and 3. PGD-1000 is left out: on small pictures 50 rounds already find every target."""
TABLE_3_DEFENCES: Final = (
    NONE,
    OURS,
    "our quantisation",
    "our distortion",
    "Rand",
    "FD",
    "SHIELD",
    "JPEG",
    "BdR",
    "PD",
)
BPDA_DEFENCES: Final = (NONE, OURS, "our quantisation", "our distortion", "Rand", "FD", "SHIELD", "JPEG", "BdR", "PD")
COMBINED: Final = tuple(name for name in TABLE_6 if name != OURS)
EOT_DEFENCES: Final = (OURS, "Rand")
RATE_FACTORS: Final = (3.0,)
"""The paper's BPDA on our defence once more, with rounds that go so much further."""


@dataclass(frozen=True)
class Adaptive:
    """PGD through the defence with the gradient of `samples` draws at the current picture; untargeted unless said."""

    key: str
    label: str
    samples: int
    targeted: bool = False
    norm: str = "linf"


ADAPTIVE: Final = (
    Adaptive("eot-1", "EOT(1)-PGD, L∞ 8/255", 1),
    Adaptive("eot-3", "EOT(3)-PGD, L∞ 8/255", 3),
    Adaptive("eot-10", "EOT(10)-PGD, L∞ 8/255", 10),
    Adaptive("eot-30", "EOT(30)-PGD, L∞ 8/255", 30),
    Adaptive("eot-10", "EOT(10)-PGD, L∞ 8/255", 10, targeted=True),
    Adaptive("eot-10-l2", "EOT(10)-PGD, l2 .05", 10, norm="l2"),
)
CURVE_EPS: Final = (1 / 255, 2 / 255, 4 / 255)
"""EOT(10)-PGD at smaller bounds: where the defence still holds."""
OTHERS_SAMPLES: Final = 3
"""Draws a step against the other random defences of Table 5; one against those that draw nothing."""


@dataclass(frozen=True)
class Budget:
    """How much of everything. Pictures are the first ones of the test split that the bare network gets right."""

    images: int = 100
    """Of attacks on the bare network, shown to every defence."""
    variance_images: int = 900
    """Of the clean accuracy; 100 of them are compared."""
    slow_images: int = 30
    """Of L-BFGS and C&W."""
    bpda_images: int = 60
    """Of BPDA on our function."""
    other_images: int = 20
    """Of BPDA on other defences than ours."""
    eot_images: int = 16
    """Of everything that takes the mean over draws."""
    rounds: int = 50
    samples: int = 30
    steps: int = 20
    surrogate_steps: int = 300
    draws: int = 10
    """That judge each attacked picture."""
    seed: int = 0

    def at_most(self, count: int) -> Budget:
        """The same on no more than `count` pictures."""
        names = ("images", "variance_images", "slow_images", "bpda_images", "other_images", "eot_images")
        return replace(self, **{name: min(count, getattr(self, name)) for name in names})

    def quick(self) -> Budget:
        """Enough to see that it runs."""
        return replace(
            self, images=10, variance_images=20, slow_images=4, bpda_images=6, other_images=4, eot_images=4,
            rounds=4, samples=3, steps=3, surrogate_steps=20, draws=2,
        )  # fmt: skip
