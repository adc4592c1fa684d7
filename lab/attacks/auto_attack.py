"""AutoAttack (Croce and Hein 2020), by pyautoattack: an ensemble of attacks without parameters to choose.

`standard` is for deterministic defences: APGD-CE, targeted APGD-DLR, targeted FAB and Square. Each attack runs on the
frames on which the earlier ones failed. `rand` is for random defences: APGD-CE and APGD-DLR with gradients over 20
draws per step.

For `rand`, the package counts one lucky draw as a success, and returns that frame, which may fail on a second draw.
Here every frame passes through both attacks. Of all candidates, the one that fools the defence on most fresh draws is
kept.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor

from lab.attacks.contract import (
    Defended,
    Logits,
    Norm,
    check_classes,
    check_request,
    in_batches,
    margins,
    require_gradients,
)
from lab.chance import seeded
from schemas.errors import ConfigError

Version = Literal["standard", "rand"]

_NORMS = {"linf": "Linf", "l2": "L2"}
_TARGET_CLASSES = 9
_LOG = logging.getLogger("lab.attacks.auto_attack")
_LOG.propagate = False
_LOG.addHandler(logging.NullHandler())


def auto_attack(
    defended: Defended,
    frames: Tensor,
    labels: Tensor,
    *,
    eps: float,
    generator: torch.Generator,
    version: Version = "standard",
    norm: Norm = "linf",
    steps: int = 100,
    samples: int = 20,
    queries: int = 5000,
    draws: int = 10,
) -> Tensor:
    """Return adversarial frames (B, C, H, W) in [0, 1], not rounded, within `eps`; untargeted, `steps` of each APGD.

    `rand` uses `samples` draws for a gradient and `draws` for judging the candidates. `standard` uses `queries` for
    Square. The defaults are the package's. Torch's global generators keep their state. Raises ConfigError for invalid
    input, and for `standard` on a random defence. Raises BundleError without gradients.
    """
    if version not in ("standard", "rand"):
        raise ConfigError(f"auto-attack: expected the version standard or rand, got {version!r}")
    if min(steps, samples, queries, draws) < 1:
        got = f"{steps}, {samples}, {queries} and {draws}"
        raise ConfigError(f"auto-attack: expected at least one step, sample, query and draw, got {got}")
    check_request(frames, labels, None, eps, norm)
    if not len(frames):
        return frames.clone()

    def logits(pictures: Tensor) -> Tensor:
        return defended(pictures, generator)

    require_gradients(logits, frames)
    with torch.no_grad():
        first = logits(frames[:1])
        check_classes(first, labels)
        if version == "standard" and not torch.equal(first, logits(frames[:1])):
            raise ConfigError("auto-attack: expected the version rand for a defence that draws at random, got standard")
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    with seeded(seed), _trace_kept():
        if version == "standard":
            attack = _standard(logits, frames.device, eps, norm, first.shape[1], steps, queries, seed)
            parts = [attack.run_standard_evaluation(part, y)[0] for part, y, _ in in_batches(frames, labels, None)]
        else:
            losses = ("ce", "dlr") if first.shape[1] > 2 else ("ce",)
            parts = [
                _rand(logits, part, y, eps=eps, norm=norm, steps=steps, samples=samples, draws=draws, losses=losses)
                for part, y, _ in in_batches(frames, labels, None)
            ]
    return torch.cat(parts)


def _standard(
    logits: Logits, device: torch.device, eps: float, norm: Norm, classes: int, steps: int, queries: int, seed: int
) -> AutoAttack:
    # The targeted DLR loss needs four classes.
    names = ["apgd-ce", *(["apgd-t"] if classes > 3 else []), "fab-t", "square"]
    attack = AutoAttack(logits, attacks=names, device=device, eps=eps, norm=_NORMS[norm], seed=seed, version="custom")
    attack.logger = attack.apgd.logger = attack.apgd_targeted.logger = _LOG
    attack.apgd.n_restarts = attack.fab.n_restarts = attack.apgd_targeted.n_restarts = 1
    attack.apgd = _apgd(logits, device, eps, norm, steps, 1, "ce", seed)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(_TARGET_CLASSES, classes - 1)
    attack.square.n_queries = queries
    return attack


def _apgd(
    logits: Logits, device: torch.device, eps: float, norm: Norm, steps: int, samples: int, loss: str, seed: int | None
) -> APGDAttack:
    return APGDAttack(
        logits, n_iter=steps, norm=_NORMS[norm], n_restarts=1, eps=eps, seed=seed, loss=loss, eot_iter=samples,
        device=device, logger=_LOG,
    )  # fmt: skip


def _rand(
    logits: Logits,
    frames: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm,
    steps: int,
    samples: int,
    draws: int,
    losses: tuple[str, ...],
) -> Tensor:
    best, best_rank = frames, _rank(logits, frames, labels, draws)
    for loss in losses:
        apgd = _apgd(logits, frames.device, eps, norm, steps, samples, loss, None)
        apgd.init_hyperparam(frames)
        highest_loss, _, _, last_error = apgd.attack_single_run(frames, labels)
        for candidates in (highest_loss.detach(), last_error.detach()):
            rank = _rank(logits, candidates, labels, draws)
            better = rank > best_rank
            best_rank = torch.where(better, rank, best_rank)
            best = torch.where(better[:, None, None, None], candidates, best)
    return best


@torch.no_grad()
def _rank(logits: Logits, frames: Tensor, labels: Tensor, draws: int) -> Tensor:
    """Return the rank (B,): the number of draws with an error, with the mean margin as the fraction."""
    margin = torch.stack([margins(logits(frames), labels, None) for _ in range(draws)])
    return (margin > 0).sum(0) + margin.mean(0).sigmoid() * 0.99


@contextmanager
def _trace_kept() -> Iterator[None]:
    # The package counts calls by a trace function, and then removes any trace function, even a debugger's.
    tracer = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(tracer)
