"""Fine-tuning a backdoored model on few clean pictures, stamped or not: the step common to all rivals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
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
    seed: int = 0


def tune(
    sick: Bundle,
    clean: LabelledPictures,
    tuning: Tuning,
    stamp: Callable[[Tensor], Tensor] | None = None,
    network: nn.Module | None = None,
    after_step: Callable[[], object] = lambda: None,
) -> Bundle:
    """Return a copy of `sick`, optionally with `network` inside, trained on `clean` with the true labels.

    `stamp` puts a recovered trigger on frames (B, C, H, W) in [0, 1]. They keep their labels, so the trigger is
    unlearned. `after_step` may restore weights that must not change.
    """
    network = trainable_copy(sick if network is None else with_network(sick, network))
    tuned = with_network(sick, network)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=tuning.rate, momentum=tuning.momentum, weight_decay=tuning.weight_decay
    )
    generator = torch.Generator().manual_seed(tuning.seed)
    frames, labels = to_frames(clean.images, CPU), torch.from_numpy(clean.labels)
    steps = tuning.epochs * (len(labels) // tuning.batch)
    step = 0
    network.train()
    for _ in range(tuning.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, len(labels) - tuning.batch + 1, tuning.batch):
            index = order[start : start + tuning.batch]
            for group in optimiser.param_groups:
                group["lr"] = tuning.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            batch = augmented(frames[index], tuning.shift, tuning.flip, generator)
            if stamp is not None:
                count = round(tuning.stamped_share * len(batch))
                batch = torch.cat((stamp(batch[:count]), batch[count:]))
            loss = F.cross_entropy(tuned.logits(batch), labels[index])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
            after_step()
            step += 1
    network.eval().requires_grad_(False)
    return tuned


def with_network(bundle: Bundle, network: nn.Module) -> Bundle:
    """Return `bundle` with another network of the same input and classes."""
    return replace(bundle, network=network)
