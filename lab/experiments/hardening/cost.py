"""The cost of a hardening batch, part by part, in float32 and in bf16.

    python -m lab.experiments.hardening.cost --out docs/results/hardening

The shipped CIFAR-10 network runs with the drop. Each figure is the least of several runs, because other load on the
machine only adds time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from lab.masks import random_masks
from lab.repair.inputs import trainable_copy
from lab.results.markdown import markdown
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline

BATCH = 128
DROP = 0.25
REPEATS = 15


def milliseconds(work: Callable[[], object]) -> float:
    """Return the least milliseconds of `REPEATS` runs, after a warm-up."""
    work()
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return 1000 * min(taken)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(shipped_bundle("cifar10"), torch.device("cpu"))
    network = trainable_copy(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs
    bundle = replace(bundle, network=network)
    pipeline = Pipeline(bundle)
    chance = torch.Generator().manual_seed(0)
    frames = torch.rand(BATCH, 3, 32, 32, generator=chance)
    labels = torch.randint(0, 10, (BATCH,), generator=chance)
    kept = random_masks(BATCH, 32, 32, DROP, chance)
    with torch.no_grad():
        seen = pipeline.see(frames, kept)[0]

    def rebuild() -> None:
        with torch.no_grad():
            pipeline.see(frames, kept)

    def rebuild_and_back() -> None:
        point = frames.clone().requires_grad_()
        torch.autograd.grad(pipeline.see(point, kept)[0].float().sum(), point)

    def to_the_input() -> None:
        network.eval()
        point = seen.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(bundle.logits(point).float(), labels), point)

    def to_the_weights() -> None:
        network.train()
        F.cross_entropy(bundle.logits(seen).float(), labels).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        network.zero_grad()

    parts = {
        "rebuilt": rebuild,
        "rebuilt, and its gradient": rebuild_and_back,
        "network, gradient of its input": to_the_input,
        "network, gradient of its weights": to_the_weights,
    }
    lines = []
    for name, work in parts.items():
        plain = milliseconds(work)
        with torch.autocast("cpu", torch.bfloat16):
            half = milliseconds(work)
        lines.append([name, f"{plain:.0f}", f"{half:.0f}", f"{plain / half:.2f}"])
        print(*lines[-1], flush=True)
    page = [
        "# What a batch of the hardening costs",
        f"Made by `python -m lab.experiments.hardening.cost --out docs/results/hardening "
        f"--threads {arguments.threads}`: "
        f"{BATCH} pictures of 32×32, the ResNet-20, milliseconds on {arguments.threads} thread(s) of this processor.",
        markdown(("part", "float32", "bf16", "float32 ÷ bf16"), lines),
        "A step of the training is the sum: attack (the second and the third), then training (the first and the last).",
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "cost.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
