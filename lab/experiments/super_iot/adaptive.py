"""PGD through fresh masks, for an attacker who knows the whole default except for the camera's key.

The rows are published next to the others for any result: they show the limit of the defence.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab.attacks import eot_pgd, to_8_bits
from lab.cache import Arrays, Cache, digest
from lab.data import batch_slices, to_frames, to_images
from lab.experiments.super_iot.defences import Defence, undefended
from lab.experiments.super_iot.judges import Adversarial, Judge
from lab.experiments.super_iot.outcomes import Outcome, Shown, outcome, summed_up
from lab.experiments.super_iot.plan import AttackRow, Budget
from lab.experiments.super_iot.rows import Row
from lab.masks import random_masks
from lab.provenance import made_by
from processors.pipeline import Pipeline
from processors.stages.drop import drop

EPS = 0.01
SCOPE = "eot"
WORST = "default, worst of all resubmissions"


def eot_rows(
    judge: Judge, pipeline: Pipeline, defence: Defence, plan: Budget, cache: Cache, targeted: bool
) -> list[Row]:
    """Return the accuracy under EOT-PGD through `pipeline` at the ratio of `defence`, which then sees the pictures.

    There are two rows: the mean over fresh masks, and the pictures that survive every mask. The second row is for an
    attacker who may show the same picture repeatedly.
    """
    assert defence.ratio is not None
    count = len(judge.pictures.first(plan.within(plan.eot_images)))
    label = f"EOT-PGD .01, {plan.eot_steps} steps, {plan.eot_samples} masks each, through r = {defence.ratio:g}"
    row = AttackRow("eot-pgd", label, "eot-pgd", EPS, targeted)
    made_from = digest(judge.made_from(), row, count, plan, made_by(__name__))
    name = f"{judge.name}/attacked/{row.id}-r{defence.ratio:g}"
    found = cache.get(name, made_from, lambda: _attack(judge, pipeline, row, defence.ratio or 0.0, count, plan))
    pictures = Adversarial(found["images"].astype(np.uint8, copy=False), np.zeros((0,), np.float32), made_from)
    shown = Shown(judge, row, pictures, count, rounded=True)
    bare = outcome(shown, undefended(), plan.seed, cache)
    answers = outcome(shown, defence, plan.seed, cache)
    worst = Outcome(np.logical_and.reduce(answers.correct, axis=0)[None], answers.psnr)
    every_time = Defence(WORST, defence.ratio, defence.repeats, defence.repair, defence.made_from)
    distances = shown.distances()
    return [
        summed_up(shown, defence, answers, bare, distances, SCOPE),
        summed_up(shown, every_time, worst, bare, distances, SCOPE),
    ]


def _attack(judge: Judge, pipeline: Pipeline, row: AttackRow, ratio: float, count: int, plan: Budget) -> Arrays:
    device = judge.bundle.device
    chance = torch.Generator().manual_seed(plan.seed + 2)
    images = []

    def defended(frames: Tensor, generator: torch.Generator) -> Tensor:
        height, width = frames.shape[2:]
        kept = random_masks(len(frames), height, width, ratio, generator).to(device)
        return pipeline.logits(drop(frames, kept), kept)

    for part in batch_slices(count, *judge.pictures.images.shape[1:3]):
        frames = eot_pgd(
            defended,
            to_frames(judge.pictures.images[part], device),
            torch.from_numpy(judge.pictures.labels[part]).to(device),
            torch.from_numpy(judge.targets[part]).to(device) if row.targeted else None,
            eps=EPS,
            steps=plan.eot_steps,
            samples=plan.eot_samples,
            generator=chance,
        )
        images.append(to_images(to_8_bits(frames)))
    return {"images": np.concatenate(images)}
