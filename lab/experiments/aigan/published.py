"""Figures of Bai et al. (2023): success rates of targeted attacks on similar networks."""

from __future__ import annotations

from typing import Final

WHITE_BOX: Final = {"mnist": "99.14 % (A), 98.50 % (B)", "cifar10": "95.39 % (ResNet-32), 95.84 % (WRN-34)"}
"""Table II."""
BLACK_BOX: Final = {"mnist": "96.04 % (A), 94.95 % (B)", "cifar10": "79.65 % (ResNet-32), 75.94 % (WRN-34)"}
"""Table IV."""
DEFENDED: Final = {"mnist": "10.90 % (A) and 13.12 % (B)", "cifar10": "9.57 % (ResNet-32) and 9.91 % (WRN-34)"}
"""Table V, AI-GAN against networks trained by PGD (Iter. Adv.)."""
TIMES: Final = {"FGSM": "0.06 s", "PGD-40": "0.7 s (20 steps)", "AI-GAN": "< 0.01 s"}
"""Table VI, for 1,000 attacks."""
