"""Unlearning: the network learns the true class of stamped frames, and keeps its answers on clean ones.

If no trigger is known, it unlearns the label of the quarantined frames themselves. Their true class is not known, so
only the label is denied: the loss is −log(1 − p) for its probability p (complementary labels: Ishida et al. 2017; the
loss: Yu et al. 2018).

The paper retrains on G(D_valid) with the true labels and on D_valid. Two losses are added here. The first trains
quarantined frames with the backdoored model's verdicts on them after removal of the trigger. The second distils the
backdoored model's answers on clean frames. Dropout is off and batch norm frozen, because 500 frames are too few to
estimate its statistics. Gradients are clipped, because without batch norm the first steps may diverge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.repair.checkpoints import Checkpoint
from lab.repair.inputs import copied, verdicts
from lab.training.recipe import average_into
from processors.bundle import Bundle

Logits = Callable[[Tensor], Tensor]
DENIAL: Final = 2.0
"""Weight of the loss of denied labels."""


@dataclass(frozen=True)
class UnlearnSettings:
    """One schedule for every network: Adam, a cosine from `rate` to zero, averaged weights."""

    steps: int = 200
    batch: int = 32
    rate: float = 3e-4
    clip: float = 1.0
    true_labels: float = 0.5
    """Weight of the true label in a labelled frame's target. The rest is the backdoored model's verdict on it."""
    mixed: float = 0.5
    """Share of the frames that are mixed with another one. Their target is the backdoored model's verdict alone."""
    shift: int = 2
    seed: int = 0


@dataclass(frozen=True)
class UnlearnData:
    """The training data.

    `clean` (N, C, H, W) have `labels` (N,). `stamp` puts the recovered trigger on frames; None is fine-tuning alone.
    `weight` is the loss weight of stamped frames relative to clean ones. `quarantined` (M, C, H, W) are frames with the
    trigger, `cleansed` (M, C, H, W) the same without it. Both may be empty. Of `denied` frames (D, C, H, W), the label
    by the backdoored model is unlearned.
    """

    clean: Tensor
    labels: Tensor
    stamp: Callable[[Tensor, torch.Generator], Tensor] | None
    quarantined: Tensor
    cleansed: Tensor
    flip: bool
    denied: Tensor
    weight: float = 1.0


def unlearn(
    network: nn.Module,
    logits: Logits,
    sick_logits: Logits,
    data: UnlearnData,
    settings: UnlearnSettings,
    checkpoint: Checkpoint,
    advance: Callable[[int], object],
) -> nn.Module:
    """Train `network` in place, and return the average of its weights during training, in evaluation mode.

    `logits` maps frames (B, C, H, W) in [0, 1] through `network` to (B, classes), `sick_logits` through the backdoored
    model.
    """
    network.eval()
    average = copied(network)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=settings.rate)
    generator = torch.Generator().manual_seed(settings.seed)
    state = checkpoint.load() or {}
    if state:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
    first = state.get("step", 0)
    advance(first)
    for step in range(first, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        loss = _loss(logits, sick_logits, data, settings, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        nn.utils.clip_grad_norm_(weights, settings.clip)
        optimiser.step()
        average_into(average, network, min(0.97, (step + 1) / (step + 10)))
        advance(1)
        if (step + 1) % 20 == 0:
            checkpoint.save(
                {
                    "network": network.state_dict(), "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(), "generator": generator.get_state(), "step": step + 1,
                }
            )  # fmt: skip
    return average.eval()


def _loss(
    logits: Logits, sick_logits: Logits, data: UnlearnData, settings: UnlearnSettings, generator: torch.Generator
) -> Tensor:
    batch = settings.batch
    chosen = torch.randint(len(data.clean), (batch,), generator=generator)
    frames, marks = data.clean[chosen], F.one_hot(data.labels[chosen], _classes(sick_logits, data))
    share = torch.full((batch, 1), settings.true_labels)
    below = torch.zeros(0, dtype=torch.long)
    if len(data.cleansed):
        below = torch.randint(len(data.cleansed), (batch // 2,), generator=generator)
        frames = torch.cat((frames, data.cleansed[below]))
        marks = torch.cat((marks, torch.zeros(len(below), marks.shape[1], dtype=marks.dtype)))
        share = torch.cat((share, torch.zeros(len(below), 1)))
    frames = augmented(frames, settings.shift, data.flip, generator)
    # Mixed pictures query the backdoored model at points between the 500 frames.
    partner = torch.randperm(len(frames), generator=generator)
    own = 1 - 0.5 * torch.rand(len(frames), 1, generator=generator)
    own = torch.where(torch.rand(len(frames), 1, generator=generator) < settings.mixed, own, torch.ones(()))
    frames = own[..., None, None] * frames + (1 - own[..., None, None]) * frames[partner]
    marks, share = own * marks + (1 - own) * marks[partner], torch.where(own < 1, 0.0, share)
    views, weights = [frames], [1.0]
    with torch.no_grad():
        wanted = (1 - share) * sick_logits(frames).softmax(1) + share * marks
        aims = [wanted]
        if data.stamp is not None:
            views.append(data.stamp(frames, generator))
            aims.append(wanted)
            weights.append(data.weight)
        if len(below):
            # Unchanged: the trigger stays in its place, so there is no augmentation.
            views.append(data.quarantined[below])
            aims.append(sick_logits(data.cleansed[below]).softmax(1))
            weights.append(0.5)
        if len(data.denied):
            some = data.denied[torch.randint(len(data.denied), (batch,), generator=generator)]
            wrong = sick_logits(some).argmax(1)
            views.append(some)
    found = logits(torch.cat(views)).log_softmax(1)
    ends = np.cumsum([len(view) for view in views]).tolist()
    parts = [
        weight * F.kl_div(found[end - len(aim) : end], aim, reduction="batchmean")
        for end, aim, weight in zip(ends[: len(aims)], aims, weights, strict=True)
    ]
    if len(data.denied):
        parts.append(DENIAL * denial(found[-batch:], wrong))
    return torch.stack(parts).sum()


def denial(logarithms: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of −log(1 − p) for the probabilities p of `labels` (B,), given `logarithms` (B, classes)."""
    return -logarithms.scatter(1, labels[:, None], -torch.inf).logsumexp(1).mean()


def _classes(sick_logits: Logits, data: UnlearnData) -> int:
    with torch.no_grad():
        return sick_logits(data.clean[:1]).shape[1]


def augmented(frames: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Return frames (B, C, H, W), each shifted by up to `shift` pixels with repeated borders, half of them flipped."""
    count, _, height, width = frames.shape
    padded = F.pad(frames, (shift,) * 4, mode="replicate")
    rows = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator) + torch.arange(width)
    if flip:
        turned = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(turned, columns.flip(1), columns)
    picture = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def views(frames: Tensor, shift: int, flip: bool) -> Tensor:
    """Return frames (B, C, H, W) and their views (V, B, C, H, W): shifted by `shift` pixels to each side, and flipped.

    The first view is the frame itself.
    """
    height, width = frames.shape[2:]
    padded = F.pad(frames, (shift,) * 4, mode="replicate")
    steps = (0, -shift, shift) if shift else (0,)
    moved = [
        padded[..., shift + down : shift + down + height, shift + right : shift + right + width]
        for down, right in itertools.product(steps, steps)
    ]
    return torch.stack([*moved, *(each.flip(3) for each in moved)] if flip else moved)


def harmless(sick: Bundle, frames: Tensor, labels: Tensor) -> tuple[bool, int]:
    """Return whether flipping, and by how many pixels (0 to 2) shifting, costs the model at most two points."""

    def right(view: Tensor) -> float:
        return float((verdicts(sick, view).argmax(1) == labels).float().mean())

    least = right(frames) - 0.02
    flip = right(frames.flip(3)) >= least
    for shift in (2, 1):
        moved = augmented(frames, shift, False, torch.Generator().manual_seed(3))
        if right(moved) >= least:
            return flip, shift
    return flip, 0
