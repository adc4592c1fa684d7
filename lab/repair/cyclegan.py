"""CycleGAN between clean and quarantined frames (CoDefend, section 2.2 and eqs. 5 to 7).

G maps clean frames to poisoned ones, and F maps back. D_Y judges poisoned frames, D_X clean ones. The loss of eq. 7 is
λ·L_cyc(G, F) + L_GAN(G, D_Y) + L_GAN(F, D_X). Following Goodfellow et al. 2014, a generator maximises log D of its
output instead of minimising log(1 − D), which has no gradient while the discriminator wins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.chance import seeded
from lab.repair.checkpoints import Checkpoint
from lab.repair.generators import Generator, PatchDiscriminator


@dataclass(frozen=True)
class CycleGanSettings:
    """The settings: epochs and rates of the paper, which does not give batch size, λ and networks."""

    epochs: int = 200
    decay_from: int = 100
    rate: float = 2e-4
    batch: int = 25
    cycle: float = 10.0


PAPER = CycleGanSettings()


@seeded(0)
def train_cyclegan(
    clean: Tensor,
    poisoned: Tensor,
    settings: CycleGanSettings,
    checkpoint: Checkpoint,
    advance: Callable[[int], object],
) -> tuple[Generator, Generator]:
    """Return G and F, trained on clean frames (N, C, H, W) and poisoned ones (M, C, H, W).

    An epoch takes max(N, M) frames of each. `advance` is called for each epoch.
    """
    channels = clean.shape[1]
    forth, back = Generator(channels), Generator(channels)
    judge_poisoned, judge_clean = PatchDiscriminator(channels), PatchDiscriminator(channels)
    nets: list[nn.Module] = [forth, back, judge_poisoned, judge_clean]
    makers = torch.optim.Adam(itertools.chain(forth.parameters(), back.parameters()), settings.rate, (0.5, 0.999))
    judges = torch.optim.Adam(
        itertools.chain(judge_poisoned.parameters(), judge_clean.parameters()), settings.rate, (0.5, 0.999)
    )
    generator = torch.Generator().manual_seed(0)
    state = checkpoint.load() or {}
    if state:
        for net, saved in zip(nets, state["nets"], strict=True):
            net.load_state_dict(saved)
        makers.load_state_dict(state["makers"])
        judges.load_state_dict(state["judges"])
        generator.set_state(state["generator"])
    first = state.get("epoch", 0)
    advance(first)
    steps = max(1, max(len(clean), len(poisoned)) // settings.batch)
    for epoch in range(first, settings.epochs):
        rate = settings.rate * min(1.0, (settings.epochs - epoch) / (settings.epochs - settings.decay_from))
        for group in (*makers.param_groups, *judges.param_groups):
            group["lr"] = rate
        for _ in range(steps):
            x, y = (
                pool[torch.randint(len(pool), (settings.batch,), generator=generator)] for pool in (clean, poisoned)
            )
            _require_grad(judge_poisoned, judge_clean, wanted=False)
            made, freed = forth(x), back(y)
            cycle = (back(made) - x).abs().mean() + (forth(freed) - y).abs().mean()
            loss = settings.cycle * cycle + _log_loss(judge_poisoned(made), 1.0) + _log_loss(judge_clean(freed), 1.0)
            _step(makers, loss)
            _require_grad(judge_poisoned, judge_clean, wanted=True)
            pairs = ((judge_poisoned, y, made.detach()), (judge_clean, x, freed.detach()))
            verdict = torch.stack([_log_loss(d(real), 1.0) + _log_loss(d(fake), 0.0) for d, real, fake in pairs])
            _step(judges, verdict.sum())
        advance(1)
        checkpoint.save(
            {
                "nets": [net.state_dict() for net in nets], "makers": makers.state_dict(),
                "judges": judges.state_dict(), "generator": generator.get_state(), "epoch": epoch + 1,
            }
        )  # fmt: skip
    return forth.requires_grad_(False), back.requires_grad_(False)


def _log_loss(logits: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    optimiser.step()


def _require_grad(*nets: nn.Module, wanted: bool) -> None:
    for net in nets:
        net.requires_grad_(wanted)
