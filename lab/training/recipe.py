"""One training recipe for small picture classifiers: SGD with Nesterov momentum, one cycle, averaged weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.runtime.atomic_file import replacing

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Batches = Callable[[Tensor, Tensor, "Recipe", torch.Generator], Iterator[tuple[Tensor, Tensor]]]
"""A function from pictures (N, C, H, W) uint8 and targets (N,) to one epoch's batches of both."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run. The defaults train a ResNet-20 on CIFAR-10."""

    epochs: int = 42
    batch: int = 128
    peak_rate: float = 0.2
    warmup_share: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 5e-4
    average_decay: float = 0.998
    pad: int = 4
    flip: bool = True
    bfloat16: bool = False
    """Layers in bfloat16, weights and loss in float32: faster on processors with bfloat16 multiplication."""
    seed: int = 0


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Return the learning rate of one step: linear up over the warm-up share, then linear down to zero."""
    warmup = max(1, int(steps * recipe.warmup_share))
    if step < warmup:
        return recipe.peak_rate * (step + 1) / warmup
    return recipe.peak_rate * max(0.0, (steps - step) / (steps - warmup))


def channel_statistics(images: Images) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel of (N, H, W, C) uint8 pictures, on the scale [0, 1]."""
    scaled = images.reshape(-1, images.shape[-1]) / 255.0
    return scaled.mean(0).round(4).tolist(), scaled.std(0).round(4).tolist()


def augmented_batches(
    images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches of one epoch, each picture shifted by up to `pad` pixels and flipped half the time.

    `images` is (N, C, H, W) uint8. Batches are uint8, and the last incomplete one is left out.
    """
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(images) - recipe.batch + 1, recipe.batch):
        index = order[start : start + recipe.batch]
        yield shifted(images[index], recipe.pad, recipe.flip, generator), labels[index]


def shifted(images: Tensor, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Return pictures (B, C, H, W), each shifted by up to `pad` pixels with zero padding and flipped half the time."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pad,) * 4)
    rows = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator) + torch.arange(width)
    if flip:
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def fit(
    network: nn.Module,
    images: Images,
    labels: Labels,
    normalise: Callable[[Tensor], Tensor],
    recipe: Recipe,
    checkpoint: Path | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    batches: Batches = augmented_batches,
    cost: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> nn.Module:
    """Train `network` in place, and return it with the averaged weights, in evaluation mode.

    `images` is (N, H, W, C) uint8. `normalise` and `augment` take frames (B, C, H, W) in [0, 1]. `batches` may
    transform pictures and `labels` in any way. `cost` takes logits (B, classes) and labels (B,). With `checkpoint`, the
    state is saved after each epoch and an interrupted run resumes from it. If the run was killed while saving, it
    resumes from the epoch before.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    device = next(network.parameters()).device
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from the stubs
    average = copy.deepcopy(network)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    stacked = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    targets = torch.from_numpy(labels.astype(np.int64))
    steps_per_epoch = len(images) // recipe.batch
    steps = recipe.epochs * steps_per_epoch
    first_epoch = 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        generator.set_state(saved["generator"])
        first_epoch = saved["epoch"] + 1
    for epoch in range(first_epoch, recipe.epochs):
        network.train()
        started = time.monotonic()
        correct = torch.zeros((), device=device)
        for number, (batch, target) in enumerate(batches(stacked, targets, recipe, generator)):
            step = epoch * steps_per_epoch + number
            for group in optimiser.param_groups:
                group["lr"] = rate_at(step, steps, recipe)
            frames = batch.to(device).float().div_(255)
            if augment is not None:
                frames = augment(frames, generator)
            inputs = normalise(frames).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
                logits = network(inputs)
            target = target.to(device)
            loss = cost(logits.float(), target)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
            optimiser.zero_grad()
            correct += (logits.argmax(1) == target).sum()
            average_into(average, network, min(recipe.average_decay, (step + 1) / (step + 10)))
        share = correct.item() / (steps_per_epoch * recipe.batch)
        print(
            f"epoch {epoch + 1}/{recipe.epochs}: train accuracy {share:.4f}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if checkpoint is not None:
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "generator": generator.get_state(),
                "epoch": epoch,
            }
            with replacing(checkpoint) as fresh:
                torch.save(state, fresh)
    return average.eval()


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move `average` towards `network` by 1 − `decay`, in place. Counters are copied."""
    state = network.state_dict()
    for name, mean in distinct_tensors(average):
        if mean.is_floating_point():
            mean.lerp_(state[name], 1 - decay)
        else:
            mean.copy_(state[name])


def distinct_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield weights and buffers, each under the first of its names: tied ones have several."""
    seen = set[int]()
    for name, value in network.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            yield name, value
