"""Train the generator of one task and ship it: model, settings and training record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.aigan.continuing import shipped_weights
from lab.aigan.generator import Generator
from lab.aigan.measure import attack, bare, frames_of, targets_for, verdicts
from lab.aigan.opponents import Distilled, Opponent, WhiteBox, answers_of, differentiable
from lab.aigan.shipping import Attacker, GeneratorSettings, ship
from lab.aigan.tasks import Task, shape_of
from lab.aigan.training import Recipe, success, train
from lab.chance import seeded
from lab.data import LabelledPictures
from lab.repair.checkpoints import Checkpoint
from lab.training.bundle import write_training_record
from processors.bundle import Bundle, load_bundle

PrintLine = Callable[[str], None]


def generator_name(task: Task, black_box: bool) -> str:
    """Return the generator's shipped name."""
    return f"{task.name}-black-box" if black_box else task.name


def train_task(
    task: Task,
    recipe: Recipe,
    *,
    black_box: bool,
    data: Path | None,
    out: Path,
    runs: Path,
    print_line: PrintLine,
    start: Path | None = None,
) -> None:
    """Train by `recipe` and export to `out` after each cycle. Progress lines go to `print_line`.

    An interrupted run continues from its checkpoint in `runs`, if recipe, pictures and target are the same. A finished
    run continues in the same way if its number of steps is raised. The test pictures are used once, after the last
    step. `start` is the folder of a generator with whose weights the training starts.
    """
    first = None if start is None else Attacker(start)
    bundle = load_bundle(task.target(), torch.device("cpu"))
    pictures = task.pictures(data)
    name = generator_name(task, black_box)
    target = differentiable(bundle)
    opponent = _opponent(task, bundle, recipe, black_box)
    frames, labels = _tensors(pictures.train)
    valid = _tensors(pictures.valid)
    state = hashlib.blake2b(frames.numpy().tobytes(), digest_size=8).hexdigest()
    checkpoint = Checkpoint(
        runs / f"{name}.pt", f"{bundle.model_id} {state} {recipe.described} {black_box}{_begun(first)}"
    )
    shape = shape_of(len(bundle.settings.classes), pictures.train)
    started = time.monotonic()

    def watch(step: int, generator: Generator) -> None:
        share = success(generator, target, *valid, recipe.eps)
        minutes = (time.monotonic() - started) / 60
        print_line(f"{name}: step {step} of {recipe.steps}, {minutes:.1f} minutes, validation {share:.4f}")
        if recipe.ends_cycle(step):
            settings = GeneratorSettings(
                name=name,
                bundle=bundle.model_id,
                knowledge="black-box" if black_box else "white-box",
                classes=list(bundle.settings.classes),
                channels=shape.channels,
                height=shape.height,
                width=shape.width,
                eps=recipe.eps,
                command=_command(task, recipe, black_box, step, start),
            )
            ship(generator, settings, out)
            judges = (pictures.valid, pictures.test) if step == recipe.steps else (pictures.valid,)
            weights = sum(parameter.numel() for parameter in generator.parameters())
            lines = [
                f"{name}: {settings.knowledge} against {bundle.model_id}, {weights} weights, {step} steps",
                recipe.described + _begun(first),
                *(_judged(out, bundle, part) for part in judges),
            ]
            if isinstance(opponent, Distilled):
                lines.append(f"pictures that the target was asked about: {opponent.asked}")
            write_training_record(out, settings.command, lines)
            print_line("\n".join(lines))

    weights = None if start is None else shipped_weights(start)
    train(frames, labels, shape, opponent, recipe, checkpoint, watch, weights)


def _begun(first: Attacker | None) -> str:
    return "" if first is None else f", begun with {first.digest} of `{first.settings.command}`"


def _command(task: Task, recipe: Recipe, black_box: bool, step: int, start: Path | None) -> str:
    """Return the command that trains up to `step` without a checkpoint."""
    options = [f"--dataset {task.name}", *(["--black-box"] if black_box else []), f"--steps {step}"]
    options += [] if start is None else [f"--start {start}"]
    options += [f"--seed {recipe.seed}"] if recipe.seed else []
    return "pointillist lab aigan train " + " ".join(options)


def _opponent(task: Task, bundle: Bundle, recipe: Recipe, black_box: bool) -> Opponent:
    if not black_box:
        return WhiteBox(differentiable(bundle))
    assert task.local is not None
    with seeded(recipe.seed + 1):
        local = task.local()
    return Distilled(answers_of(differentiable(bundle)), local)


def _tensors(pictures: LabelledPictures) -> tuple[Tensor, Tensor]:
    frames = np.ascontiguousarray(pictures.images.transpose(0, 3, 1, 2))
    return torch.from_numpy(frames), torch.from_numpy(pictures.labels)


def _judged(folder: Path, bundle: Bundle, pictures: LabelledPictures) -> str:
    attacker = Attacker(folder)
    targets = targets_for(pictures.labels, len(bundle.settings.classes), 0)
    made = attack(attacker, frames_of(pictures), targets)
    share = float((verdicts(bare(bundle), made.frames) == targets).mean())
    return f"{len(pictures)} pictures, {pictures.name}: targeted success {share:.4f} at L∞ {made.l_inf:.5f}"
