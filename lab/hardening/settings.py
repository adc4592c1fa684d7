"""The settings of a hardening, and their valid ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from lab.masks import check_drop_ratio
from processors.stages.certify import ACROSS
from schemas.errors import ConfigError

MARK: Final = "hardened"
"""Suffix of a hardened bundle's version."""

MOST_STEPS: Final = 16
"""Most steps of the attack in the training. More steps cost much and improve little."""


@dataclass(frozen=True)
class HardenSettings:
    """The settings of a hardening. The defaults train a small network for an hour on two cores.

    `eps` is the bound, L∞ on frames in [0, 1]. With one attack `steps`, frames get uniform noise of `start` · ε and one
    step of ε without projection (N-FGSM: de Jorge et al. 2022). With more steps, it is PGD from a random start. `drops`
    are the fleet's drop ratios; each batch has one of them. `trades` is β of TRADES (Zhang et al. 2019): cross-entropy
    of clean frames plus β times the divergence of attacked ones from them. None trains on attacked frames alone (Madry
    et al. 2018). A batch is split into `shards` with separate batch-norm statistics, so the result does not depend on
    the number of processes.

    With a `sticker`, the side of a square in pixels, nothing is attacked. Frames lose the pixels of two windows that
    cover such a sticker, at most `across` along a side. Of `steps` random pairs, the one with the largest loss counts.
    """

    epochs: int = 15
    batch: int = 128
    eps: float = 8 / 255
    steps: int = 1
    start: float = 2.0
    drops: tuple[float, ...] = (0.25,)
    trades: float | None = None
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    average_decay: float = 0.998
    bfloat16: bool = False
    shards: int = 1
    seed: int = 0
    sticker: int | None = None
    across: int = ACROSS

    def __post_init__(self) -> None:
        whole = {"epochs": self.epochs, "batch": self.batch, "steps": self.steps, "shards": self.shards}
        for name, value in whole.items():
            if value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        if self.steps > MOST_STEPS:
            raise ConfigError(f"steps: expected at most {MOST_STEPS}, got {self.steps}")
        if not 0 < self.eps <= 1:
            raise ConfigError(f"eps: expected a bound on frames in [0, 1], above 0 and at most 1, got {self.eps}")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ConfigError(f"rate: expected a learning rate above 0, got {self.rate}")
        if self.trades is not None and not (math.isfinite(self.trades) and self.trades > 0):
            raise ConfigError(f"trades: expected a weight above 0, got {self.trades}")
        if not self.drops:
            raise ConfigError("drop: expected at least one ratio, got none")
        for drop in self.drops:
            check_drop_ratio(drop)
        if self.sticker is not None and self.sticker < 1:
            raise ConfigError(f"sticker: expected a side of at least 1 pixel, got {self.sticker}")
        if self.sticker is not None and self.trades is not None:
            raise ConfigError("trades: expected none with a sticker, which is no attack, got a weight")
        if self.batch % self.shards:
            raise ConfigError(f"batch: expected a multiple of {self.shards}, the number of shards, got {self.batch}")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average: expected a decay of at least 0 and less than 1, got {self.average_decay}")
