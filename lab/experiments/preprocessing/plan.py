"""The plan: the attacks of the paper's tables, the attacks that know the defence, and the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.experiments.preprocessing.defences import NONE, OURS
from lab.experiments.preprocessing.published import TABLE_6

BOUND: Final = 0.05
"""The paper's l2 bound, a root mean square. On 32×32 pictures it is 2.77 in L2."""
EPS: Final = 8 / 255
"""L∞; the paper's 0.031."""


@dataclass(frozen=True)
class Standard:
    """An attack on the bare network, unaware of any defence. `name` is the name in `make_attack`."""

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
"""Attacks of Tables 2 and 3. PGD-1000 is left out: on small pictures 50 rounds already find every target."""
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
"""Factors of the step size in further runs of the paper's BPDA on our defence."""


@dataclass(frozen=True)
class Adaptive:
    """PGD through the defence: mean gradient of `samples` draws at the current picture, untargeted by default."""

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
"""Smaller bounds for EOT(10)-PGD, which show the range in which the defence holds."""
OTHERS_SAMPLES: Final = 3
"""Draws per step against the other random defences of Table 5. Deterministic defences need one."""


@dataclass(frozen=True)
class Budget:
    """Numbers of pictures and steps. Pictures are the first of the test split that are correct on the bare network."""

    images: int = 100
    """Number of pictures for the attacks on the bare network; every defence gets them."""
    variance_images: int = 900
    """Number of pictures for the clean accuracy. The outputs for 100 of them are compared."""
    slow_images: int = 30
    """Number of pictures for L-BFGS and C&W."""
    bpda_images: int = 60
    """Number of pictures for BPDA on our function."""
    other_images: int = 20
    """Number of pictures for BPDA on the other defences."""
    eot_images: int = 16
    """Number of pictures for attacks through the mean over draws."""
    rounds: int = 50
    samples: int = 30
    steps: int = 20
    surrogate_steps: int = 300
    draws: int = 10
    """Number of draws for each attacked picture."""
    seed: int = 0

    def at_most(self, count: int) -> Budget:
        """Return this budget with at most `count` pictures."""
        names = ("images", "variance_images", "slow_images", "bpda_images", "other_images", "eot_images")
        return replace(self, **{name: min(count, getattr(self, name)) for name in names})

    def quick(self) -> Budget:
        """Return a minimal budget for a trial run."""
        return replace(
            self, images=10, variance_images=20, slow_images=4, bpda_images=6, other_images=4, eot_images=4,
            rounds=4, samples=3, steps=3, surrogate_steps=20, draws=2,
        )  # fmt: skip
