"""Fine-tuning of a backdoored model on few clean pictures, stamped or not: the step common to all rivals.

With a `radius` it is FT-SAM (Zhu et al. 2023, "Enhancing fine-tuning based backdoor defense with sharpness-aware
minimization", section 4.2). Neurons of a backdoor have large weights, which plain fine-tuning hardly moves. So each
step takes the gradient at the worst weights of a neighbourhood that is wider for larger weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from lab.repair.checkpoints import Checkpoint
from lab.repair.inputs import trainable_copy
from lab.repair.unlearn import augmented
from processors.bundle import Bundle

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Tuning:
    """SGD with momentum, a cosine from `rate` to zero. Batch norm keeps learning, as in training."""

    rate: float
    epochs: int = 20
    batch: int = 50
    shift: int = 2
    flip: bool = True
    stamped_share: float = 0.5
    """Stamped share of each batch, if there is a stamp."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    radius: float = 0.0
    """Radius of the neighbourhood of weights, relative to each weight; 0 is plain fine-tuning."""
    seed: int = 0


FALLBACK: Final = "ft-sam"
"""Name of the repair from clean pictures alone."""
FT_SAM: Final = Tuning(0.01, radius=2.0)


def tune(
    sick: Bundle,
    clean: LabelledPictures,
    tuning: Tuning,
    stamp: Callable[[Tensor], Tensor] | None = None,
    network: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[int], object] = lambda steps: None,
) -> Bundle:
    """Return a copy of `sick`, optionally with `network` inside, trained on `clean` with the true labels.

    `stamp` puts a recovered trigger on frames (B, C, H, W) in [0, 1]. They keep their labels, so the trigger is
    unlearned. `advance` counts epochs. With a `checkpoint`, an interrupted run resumes from its last epoch.
    """
    network = trainable_copy(sick if network is None else with_network(sick, network))
    tuned = with_network(sick, network)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(
        weights, lr=tuning.rate, momentum=tuning.momentum, weight_decay=tuning.weight_decay
    )  # fmt: skip
    generator = torch.Generator().manual_seed(tuning.seed)
    frames, labels = to_frames(clean.images, CPU), torch.from_numpy(clean.labels)
    size = min(tuning.batch, len(labels))
    batches = len(labels) // size
    state = None if checkpoint is None else checkpoint.load()
    first = 0
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        first = state["epoch"]

    def find_slopes(batch: Tensor, wanted: Tensor) -> None:
        optimiser.zero_grad()
        loss = F.cross_entropy(tuned.logits(batch), wanted)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it

    advance(first)
    network.train()
    for epoch in range(first, tuning.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for number in range(batches):
            index = order[number * size : (number + 1) * size]
            done = (epoch * batches + number) / (tuning.epochs * batches)
            for group in optimiser.param_groups:
                group["lr"] = tuning.rate * 0.5 * (1 + math.cos(math.pi * done))
            batch = augmented(frames[index], tuning.shift, tuning.flip, generator)
            if stamp is not None:
                count = round(tuning.stamped_share * len(batch))
                batch = torch.cat((stamp(batch[:count]), batch[count:]))
            find_slopes(batch, labels[index])
            if tuning.radius:
                with at_worst_weights(weights, tuning.radius), unchanged(network.buffers()):
                    find_slopes(batch, labels[index])
            optimiser.step()
        if checkpoint is not None:
            trained = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            checkpoint.save(trained | {"generator": generator.get_state(), "epoch": epoch + 1})
        advance(1)
    network.eval().requires_grad_(False)
    return tuned


@contextmanager
def at_worst_weights(weights: Sequence[Tensor], radius: float) -> Iterator[None]:
    """Move `weights` w along their gradients g by radius · w² g ÷ ‖w g‖, and restore them on exit.

    It is the step of largest first-order loss whose length, relative to each weight, is `radius` (equation 5).
    """
    slopes = [(weight, weight.grad) for weight in weights if weight.grad is not None]
    with torch.no_grad():
        length = torch.stack([(weight * slope).norm() for weight, slope in slopes]).norm().clamp_min(1e-12)
        before = [weight.clone() for weight, _ in slopes]
        for weight, slope in slopes:
            weight.add_(weight.square() * slope * (radius / length))
    yield
    with torch.no_grad():
        for (weight, _), value in zip(slopes, before, strict=True):
            weight.copy_(value)


@contextmanager
def unchanged(tensors: Iterator[Tensor]) -> Iterator[None]:
    """Restore `tensors` on exit: the worst weights take no part in the statistics of batch norm."""
    before = [(tensor, tensor.clone()) for tensor in tensors]
    yield
    for tensor, value in before:
        tensor.copy_(value)


def with_network(bundle: Bundle, network: nn.Module) -> Bundle:
    """Return `bundle` with another network of the same input and classes."""
    return replace(bundle, network=network)
