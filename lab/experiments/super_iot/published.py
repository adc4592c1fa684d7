"""The paper's own figures (Qiu et al. 2021, Tables I and II: ResNet-29, 100 images, targeted), and our requirements.

Requirements concern relative accuracy: over the pictures that the bare network classifies correctly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

TABLE_1: Final[dict[str, tuple[float, ...]]] = {
    # bare, then r = .01, .05, .10, .15, .20, .25, .30, .40, .50
    "clean": (1.00, 1.00, 0.99, 0.99, 0.93, 0.94, 0.88, 0.86, 0.60, 0.43),
    "fgsm": (0.39, 0.60, 0.65, 0.70, 0.72, 0.75, 0.81, 0.79, 0.59, 0.41),
    "ifgsm": (0.21, 0.45, 0.54, 0.65, 0.78, 0.79, 0.79, 0.71, 0.64, 0.42),
    "pgd": (0.05, 0.30, 0.39, 0.51, 0.67, 0.69, 0.72, 0.72, 0.56, 0.51),
    "deepfool": (0.00, 0.99, 0.98, 0.97, 0.92, 0.89, 0.85, 0.83, 0.60, 0.44),
    "lbfgs": (0.00, 0.95, 0.99, 0.97, 0.92, 0.89, 0.85, 0.82, 0.59, 0.37),
    "cw": (0.00, 0.98, 0.97, 0.96, 0.93, 0.89, 0.88, 0.80, 0.62, 0.43),
}
TABLE_2_COLUMNS: Final = ("L∞", "L2", "bare", "Shield", "FD", "PD", "SUPER-IoT r = .10")
TABLE_2: Final[dict[str, tuple[float, ...]]] = {
    "clean": (0.0, 0.0, 1.00, 0.85, 0.94, 0.98, 0.99),
    "fgsm": (0.005, 0.28, 0.39, 0.78, 0.85, 0.57, 0.70),
    "ifgsm": (0.005, 0.21, 0.21, 0.79, 0.83, 0.44, 0.65),
    "pgd": (0.010, 0.39, 0.05, 0.79, 0.70, 0.29, 0.51),
    "deepfool": (0.015, 0.12, 0.00, 0.82, 0.91, 0.87, 0.97),
    "lbfgs": (0.017, 0.15, 0.00, 0.82, 0.92, 0.97, 0.97),
    "cw": (0.115, 0.09, 0.00, 0.82, 0.93, 0.94, 0.96),
}

What = Literal["accuracy", "restored", "psnr"]


@dataclass(frozen=True)
class Requirement:
    """One required figure: of `what`, in a row at a drop ratio. `paper` is the paper's figure, or None."""

    what: What
    attack: str
    targeted: bool
    r: float
    paper: float | None
    must: float
    aim: float


def _accuracy(attack: str, quarter: tuple[float, float, float], half: tuple[float, float, float]) -> list[Requirement]:
    targeted = attack not in ("clean", "deepfool")
    return [
        Requirement("accuracy", attack, targeted, 0.25, *quarter),
        Requirement("accuracy", attack, targeted, 0.50, *half),
    ]


REQUIREMENTS: Final = (
    *_accuracy("clean", (0.88, 0.965, 0.98), (0.43, 0.90, 0.94)),
    *_accuracy("fgsm", (0.81, 0.80, 0.90), (0.41, 0.82, 0.87)),
    *_accuracy("ifgsm", (0.79, 0.88, 0.94), (0.42, 0.84, 0.88)),
    *_accuracy("pgd", (0.72, 0.78, 0.88), (0.51, 0.81, 0.85)),
    *_accuracy("lbfgs", (0.85, 0.94, 0.97), (0.37, 0.88, 0.93)),
    *_accuracy("cw", (0.88, 0.94, 0.97), (0.43, 0.88, 0.93)),
    *_accuracy("deepfool", (0.85, 0.94, 0.97), (0.44, 0.88, 0.93)),
    Requirement("restored", "fgsm", True, 0.25, None, 0.57, 0.69),
    Requirement("restored", "ifgsm", True, 0.25, None, 0.82, 0.90),
    Requirement("restored", "pgd", True, 0.25, None, 0.76, 0.88),
    Requirement("accuracy", "ifgsm", False, 0.25, None, 0.70, 0.85),
    Requirement("accuracy", "pgd", False, 0.25, None, 0.43, 0.65),
)
PSNR_REQUIREMENTS: Final = (
    Requirement("psnr", "clean", False, 0.25, None, 35.3, 37.0),
    Requirement("psnr", "clean", False, 0.50, None, 30.4, 32.0),
)
