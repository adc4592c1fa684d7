"""The rows of the tables in `docs/results/hardening`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneRow:
    """Shares of usual scenes that are classified right: clean, at the first answer under attack, at each of ten."""

    model: str
    height: int
    width: int
    frames: int
    clean: float
    attacked: float
    resubmitted: float
    seconds: float


@dataclass(frozen=True)
class AdaptedRow(SceneRow):
    """The shares of `SceneRow` for scenes of a kind, usual, dim or hard, at a bound `eps`.

    `worst` is the share of scenes that are right at each of ten answers under every attack.
    """

    scenes: str
    eps: float
    worst: float


@dataclass(frozen=True)
class AloneRow:
    """The share `right` of scenes that are right at each of ten answers under one attack that meets all of them."""

    model: str
    height: int
    width: int
    scenes: str
    eps: float
    attack: str
    frames: int
    right: float
    seconds: float


@dataclass(frozen=True)
class HardRow:
    """Number of hard scenes that are classified right."""

    model: str
    height: int
    width: int
    drop: float
    frames: int
    right: int


@dataclass(frozen=True)
class StripRow:
    """STRIP on whole scenes: with the clean network `model`, and with `sick`, its version backdoored by an attacker.

    `accuracy`, `frr` and `passes` are of the clean network; `far` is of scenes with the sticker that reach the target.
    """

    name: str
    model: str
    sick: str
    scenes: int
    accuracy: float
    frr: float
    passes: float
    sick_accuracy: float
    attack_success: float
    sick_frr: float
    far: float


@dataclass(frozen=True)
class PairedRow:
    """One attack of `lab red-team`, shown to the bare network and to the chain behind the drop.

    `bare`, `once` and `always` hold a bit for each picture as hexadecimal digits: the bare network is right, the chain
    is right at the first submission, the chain is right at all `submissions`.
    """

    network: str
    eps: float
    made_on: str
    """The attacked side: `bare` or `fleet`."""
    attack: str
    pictures: int
    submissions: int
    bare: str
    once: str
    always: str
    seconds: float


@dataclass(frozen=True)
class CandidatesRow:
    """Several candidates of each attacked picture, shown to the chain behind the drop.

    The fields after `candidates` hold a bit for each picture as hexadecimal digits: the chain is right at 1, 10 and 100
    showings of the candidate that the attacker chose, at one showing of each candidate, and at ten of each.
    """

    network: str
    eps: float
    pictures: int
    candidates: int
    once: str
    ten: str
    hundred: str
    each_once: str
    each_ten: str
    seconds: float
