"""The paper's Tables 3, 4 and 5, in per cent as printed."""

from __future__ import annotations

from typing import Final, NamedTuple


class PublishedDetection(NamedTuple):
    """Table 3. The paper's FNR is STRIP's FRR, its FPR is STRIP's FAR."""

    data: str
    trigger: str
    frr: float
    far: float


TABLE_3: Final = (
    PublishedDetection("MNIST", "A", 0.1, 0.0),
    PublishedDetection("GTSRB", "B", 0.6, 0.0),
    PublishedDetection("CIFAR-10", "C", 0.38, 0.0),
    PublishedDetection("CIFAR-10", "D", 0.46, 0.0),
    PublishedDetection("CIFAR-100", "C", 1.2, 0.8),
    PublishedDetection("CIFAR-100", "D", 1.6, 1.2),
)
SENTINET: Final = PublishedDetection("CIFAR-10", "C", 5.74, 6.04)
"""The figures quoted below Table 3."""


class PublishedRepair(NamedTuple):
    """Table 4: clean accuracy and attack success before and after."""

    data: str
    trigger: str
    accuracy_before: float
    success_before: float
    accuracy_after: float
    success_after: float


TABLE_4: Final = (
    PublishedRepair("MNIST", "A", 98.70, 100, 98.62, 1.97),
    PublishedRepair("GTSRB", "B", 95.80, 100, 95.26, 2.06),
    PublishedRepair("CIFAR-10", "C", 88.27, 100, 87.18, 2.53),
    PublishedRepair("CIFAR-10", "D", 88.19, 100, 87.21, 1.66),
    PublishedRepair("CIFAR-100", "C", 70.46, 100, 69.35, 2.19),
    PublishedRepair("CIFAR-100", "D", 68.37, 100, 68.05, 3.47),
)

TABLE_5: Final = (
    ("Neural Cleanse", 89.18, 18.53),
    ("DeepInspect", 86.6, 9.4),
    ("GangSweep", 87.4, 3.9),
    ("Fine-pruning", 79.7, 12.8),
    ("NNoculation", 87.52, 9.31),
    ("CoDefend", 88.27, 2.53),
)
"""CIFAR-10, trigger C: clean accuracy and attack success.

Table 5's row of CoDefend has the accuracy before the repair. The one after is in Table 4.
"""
