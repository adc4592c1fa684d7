"""Train the generator of one task and ship it: model, settings and the record of how it was made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.aigan.generator import Generator
from lab.aigan.measure import attack, bare, frames_of, targets_for, verdicts
from lab.aigan.opponents import Distilled, Opponent, WhiteBox, answers_of, differentiable
from lab.aigan.shipping import Attacker, GeneratorSettings, ship
from lab.aigan.tasks import Task, shape_of
from lab.aigan.training import Recipe, described, success, train
from lab.chance import seeded
from lab.data import LabelledPictures
from lab.repair.checkpoints import Checkpoint
from lab.training.bundle import write_training_record
from processors.bundle import Bundle, load_bundle

Say = Callable[[str], None]


def generator_name(task: Task, black_box: bool) -> str:
    """As it ships."""
    return f"{task.name}-black-box" if black_box else task.name


def train_task(
    task: Task, recipe: Recipe, *, black_box: bool, data: Path | None, out: Path, runs: Path, command: str, say: Say
) -> list[str]:
    """Train by `recipe`, ship into `out`, and judge what was shipped; the lines of the record, which `say` also gets.

    A run that was stopped goes on from its checkpoint in `runs`, when recipe, pictures and target are the same.
    """
    bundle = load_bundle(task.target(), torch.device("cpu"))
    pictures = task.pictures(data)
    name = generator_name(task, black_box)
    target = differentiable(bundle)
    opponent = _opponent(task, bundle, recipe, black_box)
    frames, labels = _tensors(pictures.train)
    valid = _tensors(pictures.valid)
    state = hashlib.blake2b(frames.numpy().tobytes(), digest_size=8).hexdigest()
    checkpoint = Checkpoint(runs / f"{name}.pt", f"{bundle.model_id} {state} {described(recipe)} {black_box}")
    started = time.monotonic()

    def watch(step: int, generator: Generator) -> None:
        share = success(generator, target, *valid, recipe.eps)
        left = (time.monotonic() - started) / 60
        say(f"{name}: step {step} of {recipe.steps}, {left:.1f} minutes, validation {share:.4f}")

    shape = shape_of(len(bundle.settings.classes), pictures.train)
    generator = train(frames, labels, shape, opponent, recipe, checkpoint, watch)
    settings = GeneratorSettings(
        name=name,
        bundle=bundle.model_id,
        knowledge="black-box" if black_box else "white-box",
        classes=list(bundle.settings.classes),
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        eps=recipe.eps,
        command=command,
    )
    ship(generator, settings, out)
    weights = sum(parameter.numel() for parameter in generator.parameters())
    lines = [
        f"{name}: {settings.knowledge} against {bundle.model_id}, {weights} weights",
        described(recipe),
        *(_judged(out, bundle, part) for part in (pictures.valid, pictures.test)),
    ]
    if isinstance(opponent, Distilled):
        lines.append(f"pictures that the target was asked about: {opponent.asked}")
    write_training_record(out, command, lines)
    for line in lines:
        say(line)
    return lines


def _opponent(task: Task, bundle: Bundle, recipe: Recipe, black_box: bool) -> Opponent:
    if not black_box:
        return WhiteBox(differentiable(bundle))
    assert task.local is not None
    with seeded(recipe.seed + 1):
        local = task.local()
    return Distilled(answers_of(differentiable(bundle)), local)


def _tensors(pictures: LabelledPictures) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(pictures.images.transpose(0, 3, 1, 2))), torch.from_numpy(
        pictures.labels
    )


def _judged(folder: Path, bundle: Bundle, pictures: LabelledPictures) -> str:
    attacker = Attacker(folder)
    targets = targets_for(pictures.labels, len(bundle.settings.classes), 0)
    made = attack(attacker, frames_of(pictures), targets)
    share = float((verdicts(bare(bundle), made.frames) == targets).mean())
    return f"{len(pictures)} pictures, {pictures.name}: targeted success {share:.4f} at L∞ {made.l_inf:.5f}"
