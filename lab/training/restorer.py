"""Train the learned reconstruction: `python -m lab.training.restorer --out FILE [--attacked FOLDER --start FILE]`.

Without `--attacked` it learns to fill dropped pixels. With it, most pictures were attacked through surrogate networks
before the drop, some with twice the saved strength (up to 8/255). The target is the picture before the attack.
`--start` continues from earlier weights. The drop ratio is drawn per picture.

The loss is the mean logarithm of each picture's squared error, which is its PSNR. `--likeness` adds the distance
between a surrogate's logits on the restored and on the clean picture (Liao et al. 2018).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.chance import seeded
from lab.networks.families import SURROGATES
from lab.training.averaged import AveragedTraining
from lab.training.checkpoints import checkpoint_of
from lab.training.families import NETWORKS
from lab.training.pictures import cifar_pictures, crops_of_larger
from processors.bundle import Bundle, load_bundle
from processors.networks.restorer import Restorer
from processors.stages.plate import reconstruct_plate
from schemas.pixels.masks import ROWS, codebook
from schemas.runtime.user_errors import run_command

LARGER = 12_000
MOST_DROPPED = 40
CLEAN_SHARE = 0.25
DOUBLED_SHARE = 0.4
STRONGEST = 8
FEW_DROPPED = 10
ERROR_FLOOR = 1e-5
SAVED_EVERY = 1000
"""Steps between two checkpoints."""


@dataclass(frozen=True)
class Schedule:
    """The length and the learning rate: one cycle of AdamW, linear up, then down along a cosine."""

    steps: int
    batch: int = 64
    peak_rate: float = 2e-3
    warmup: int = 500
    until: int | None = None
    """Stop after this many steps of the cycle."""
    larger: float = 0.2
    """Share of each batch taken from larger pictures."""
    few: float = 0.0
    """Share of pictures with few dropped pixels. Half of their attacks are left out."""

    def rate(self, step: int) -> float:
        """Return the learning rate of one step."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak_rate * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * progress))))


class MaskBank:
    """Spread masks (B, 1, 32, 32) bool for training, with a separate number of dropped pixels for each picture."""

    def __init__(self) -> None:
        books = [codebook((11, 13), dropped).copy().view(np.uint8) for dropped in range(MOST_DROPPED + 1)]
        bits = np.unpackbits(np.stack(books), axis=1, bitorder="little")
        self._patterns = torch.from_numpy(bits.reshape(MOST_DROPPED + 1, ROWS, 8, 8)).bool()

    def draw(self, count: int, generator: torch.Generator, few: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return masks, and which (B,) have fewer than `FEW_DROPPED` dropped pixels per block.

        A third has 25 %, a third 50 %, and the others any share up to 62 %. A share `few` of all is replaced by masks
        with few dropped pixels.
        """
        usual = torch.tensor([16, 32])[torch.randint(2, (count,), generator=generator)]
        other = torch.randint(MOST_DROPPED + 1, (count,), generator=generator)
        dropped = torch.where(torch.rand(count, generator=generator) < 2 / 3, usual, other)
        if few:
            low = torch.randint(FEW_DROPPED, (count,), generator=generator)
            dropped = torch.where(torch.rand(count, generator=generator) < few, low, dropped)
        rows = torch.randint(ROWS, (count, 4, 4), generator=generator)
        chosen = self._patterns[dropped[:, None, None], rows]
        return chosen.permute(0, 1, 3, 2, 4).reshape(count, 1, 32, 32), dropped < FEW_DROPPED


class Examples:
    """Endless batches of camera pictures and their targets, (B, 3, 32, 32) in [0, 1]."""

    def __init__(self, clean: Tensor, larger: Tensor, attacked: list[Tensor], generator: torch.Generator) -> None:
        self._clean, self._larger, self._attacked = clean, larger, attacked
        self._generator = generator

    def batches(self, size: int, larger: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled pictures, a share `larger` of each batch from larger ones, mirrored half the time."""
        few = int(size * larger)
        while True:
            order = torch.randperm(len(self._clean), generator=self._generator)
            for part in torch.split(order, size - few)[:-1]:
                other = torch.randint(len(self._larger), (few,), generator=self._generator)
                wanted = torch.cat((self._clean[part], self._larger[other]))
                seen = torch.cat((self._seen(part), self._larger[other]))
                mirrored = torch.rand(size, 1, 1, 1, generator=self._generator) < 0.5
                yield tuple(torch.where(mirrored, x.flip(3), x).float().div_(255) for x in (seen, wanted))  # type: ignore[misc]  # a pair

    def _seen(self, part: Tensor) -> Tensor:
        if not self._attacked:
            return self._clean[part]
        version = int(torch.randint(len(self._attacked), (1,), generator=self._generator))
        clean = self._clean[part].short()
        change = self._attacked[version][part].short() - clean
        draw = torch.rand(len(part), 1, 1, 1, generator=self._generator)
        doubled = torch.where(draw < DOUBLED_SHARE, 2 * change, change).clamp(-STRONGEST, STRONGEST)
        return (clean + torch.where(draw < 1 - CLEAN_SHARE, doubled, 0)).clamp_(0, 255).byte()


def disagreement(surrogate: Bundle, restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean absolute difference between the surrogate's logits on both."""
    with torch.no_grad():
        wanted = surrogate.logits(clean)
    return (surrogate.logits(restored.clamp(0, 1)) - wanted).abs().mean()


def fit(
    network: Restorer,
    examples: Examples,
    schedule: Schedule,
    surrogates: list[Bundle],
    likeness: float,
    checkpoint: Path,
) -> Restorer:
    """Train in place and return the averaged weights. An interrupted run resumes from `checkpoint`."""
    generator = torch.Generator().manual_seed(1)
    masks = MaskBank()
    training = AveragedTraining(network, schedule.peak_rate, checkpoint, generator)
    if training.first:
        print(f"resuming at step {training.first}: the pictures of the earlier ones are drawn again first", flush=True)
    started, shown, psnr, distance = time.monotonic(), training.first, 0.0, 0.0
    for step, (seen, clean) in zip(
        range(training.first, schedule.until or schedule.steps),
        # Their draws are those of the first steps again: an interrupted run sees the batches of a whole one.
        islice(examples.batches(schedule.batch, schedule.larger), training.first, None),
        strict=False,
    ):
        kept, few = masks.draw(len(seen), generator, schedule.few)
        if schedule.few:
            spared = few & (torch.rand(len(seen), generator=generator) < 0.5)
            seen = torch.where(spared[:, None, None, None], clean, seen)
        restored = network(reconstruct_plate(seen, kept), kept)
        errors = (restored - clean).square().mean((1, 2, 3))
        loss = (errors + ERROR_FLOOR).log().mean()
        psnr -= 10 * float(errors.detach().log10().mean())
        if likeness:
            half = len(seen) // 2
            unlike = disagreement(surrogates[step % len(surrogates)], restored[:half], clean[:half])
            distance += float(unlike.detach())
            loss = loss + likeness * unlike
        training.descend(loss, step, schedule.rate(step))
        if (step + 1) % SAVED_EVERY == 0:
            count = step + 1 - shown
            print(
                f"step {step + 1}/{schedule.steps}: PSNR {psnr / count:.2f} dB, logits off by {distance / count:.3f},"
                f" {time.monotonic() - started:.0f} s",
                flush=True,
            )
            started, shown, psnr, distance = time.monotonic(), step + 1, 0.0, 0.0
            training.save(step)
    return training.average.eval()


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--out", type=Path, required=True, help="weights (safetensors)")
    parser.add_argument("--attacked", type=Path, help="folder of lab.training.surrogate_attacks")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=Schedule.batch)
    parser.add_argument("--rate", type=float, default=Schedule.peak_rate)
    parser.add_argument("--until", type=int, help="stop after this many steps of the cycle")
    parser.add_argument("--larger", type=float, default=Schedule.larger, help="share of crops of larger pictures")
    parser.add_argument("--few", type=float, default=0.0, help="share of pictures with few dropped pixels")
    parser.add_argument("--likeness", type=float, default=0.0, help="weight of the difference in surrogates' logits")
    parser.add_argument("--work", type=Path, default=Path("runs/restorer"), help="folder of the checkpoint")
    arguments = parser.parse_args()

    with seeded(0):
        network = Restorer().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from the stubs
    if arguments.start:
        network.load_state_dict(load_file(arguments.start))
    attacked = (
        [_tensor(np.load(file)) for file in sorted(arguments.attacked.glob("*.npy"))] if arguments.attacked else []
    )
    clean, larger = _tensor(cifar_pictures(arguments.data)), _tensor(crops_of_larger(arguments.data, LARGER, seed=0))
    examples = Examples(clean, larger, attacked, torch.Generator().manual_seed(2))
    surrogates = (
        [load_bundle(NETWORKS / name, torch.device("cpu")) for name in SURROGATES] if arguments.likeness else []
    )
    schedule = Schedule(
        arguments.steps,
        arguments.batch,
        arguments.rate,
        until=arguments.until,
        larger=arguments.larger,
        few=arguments.few,
    )
    given = [each.numpy() for each in (clean, larger, *attacked, *network.state_dict().values())]
    settings = f"{replace(schedule, until=None)} {arguments.likeness} {[each.model_id for each in surrogates]}"
    checkpoint = checkpoint_of(arguments.work, arguments.out.stem, settings, *given)
    trained = fit(network, examples, schedule, surrogates, arguments.likeness, checkpoint)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, arguments.out)
    arguments.out.chmod(0o644)


def _tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


if __name__ == "__main__":
    run_command(main)
