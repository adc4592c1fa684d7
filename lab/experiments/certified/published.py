"""Published certificates against one patch at any place, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Published:
    """A published pair of figures: certified and clean accuracy, the pictures and the patch, and the source.

    `checked` is whether the figures were compared with the source's own text.
    """

    method: str
    network: str
    pictures: str
    certified: str
    clean: str
    source: str
    checked: bool = True


_PATCHCLEANSER: Final = "Xiang et al., USENIX Security 2022"
PUBLISHED: Final = (
    Published(
        "de-randomised smoothing",
        "ResNet",
        "CIFAR-10, 5×5",
        ".576",
        ".838",
        "Levine and Feizi, NeurIPS 2020",
        checked=False,
    ),
    Published("PatchCleanser", "ViT-B/16", "ImageNet, 2 %", ".621", ".839", _PATCHCLEANSER),
    Published("PatchCleanser", "ViT-B/16", "CIFAR-10, 2.4 %", "about .89", "about .98", _PATCHCLEANSER, checked=False),
    Published(
        "PatchCleanser", "BiT-ResNet-50", "CIFAR-10, 2.4 %", "about .78", "about .98", _PATCHCLEANSER, checked=False
    ),
)
