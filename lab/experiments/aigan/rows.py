"""Rows of the experiment's tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SuccessRow:
    """Targeted attacks on one network behind one defence, towards one class or, with `target` −1, all of them."""

    task: str
    knowledge: str
    """`white-box` or `black-box`."""
    attack: str
    eps: float
    defence: str
    target: int
    hits: int
    images: int
    share: float
    low: float
    high: float
    """Wilson's interval of 95 %."""
    accuracy: float
    """Accuracy of the network on the attacked pictures."""
    clean: float
    """Accuracy of the network on the same pictures before the attack."""


@dataclass(frozen=True)
class TimeRow:
    """The time of `images` attacks. All attacks are timed in one run, with equal batches and threads."""

    task: str
    attack: str
    images: int
    seconds: float
    threads: int


@dataclass(frozen=True)
class Generator:
    """A generator: the attacker's knowledge, the network and the command of its training."""

    name: str
    knowledge: str
    bundle: str
    command: str
