"""The whole hardening: evaluation, training, and evaluation again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import nn

from lab.certificates.measure import measure as measure_certified
from lab.data import LabelledPictures, to_frames
from lab.hardening.measure import RESUBMISSIONS, Shares, measure
from lab.hardening.processes import Processes
from lab.hardening.settings import HardenSettings
from lab.hardening.train import Training
from lab.hardening.training_batches import TrainingBatches
from lab.repair.checkpoints import Checkpoints, digest
from lab.repair.inputs import frozen, trainable_copy
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from schemas.errors import ConfigError

GUARDED: Final = 128
"""Held-out pictures that the guard evaluates."""


class Progress(Protocol):
    """A receiver of progress reports."""

    def phase(self, name: str, steps: int) -> None:
        """Begin a phase of this many steps."""
        ...

    def advance(self, steps: int) -> None:
        """Count this many steps as done."""
        ...

    def print_line(self, line: str) -> None:
        """Report an event in one line."""
        ...


@dataclass(frozen=True)
class Hardened:
    """The network with its averaged weights, and the bundle's figures before and after."""

    network: nn.Module
    bundle: Bundle
    before: Shares
    after: Shares
    seconds: float
    eps: float
    drop: float
    sticker: int | None = None

    def lines(self) -> list[str]:
        """Return the figures in words."""
        against = f"EOT-PGD L∞ {self.eps:.4g} and {RESUBMISSIONS} resubmissions"
        dropped = f"{self.drop:.0%} dropped"
        if self.sticker is not None:
            against, dropped = f"certified against stickers of {self.sticker}×{self.sticker}", "double masking"
        return [
            f"{shares.count} held-out frames, {dropped}, {when}: clean {shares.clean:.4f}, {against} "
            f"{shares.robust:.4f}"
            for when, shares in (("before", self.before), ("after", self.after))
        ]

    def figures(self) -> dict[str, float]:
        """Return the keys of `pointillist lab harden --json`."""
        return {
            "clean_before": self.before.clean,
            "clean_after": self.after.clean,
            "robust_before": self.before.robust,
            "robust_after": self.after.robust,
            "held_out": self.after.count,
            "seconds": self.seconds,
        }


def split(pictures: LabelledPictures, held_out: int, batch: int) -> tuple[LabelledPictures, LabelledPictures]:
    """Return the training pictures, and the last `held_out` of the file for evaluation. Raises ConfigError."""
    if held_out < 1 or len(pictures) - held_out < batch:
        raise ConfigError(
            f"pictures: expected at least one batch of {batch} besides {held_out} held out, got {len(pictures)}"
        )
    cut = len(pictures) - held_out
    places = np.arange(len(pictures))
    return pictures.take(places[:cut]), pictures.take(places[cut:])


def certified_shares(
    bundle: Bundle, pictures: LabelledPictures, sticker: int, across: int, advance: Callable[[int], object]
) -> Shares:
    """Return the shares of `pictures` with the true label by double masking, and with a certified one."""
    found = measure_certified(Pipeline(bundle), pictures, (sticker, sticker), across=across, advance=advance)
    return Shares(float(found.clean.mean()), float(found.robust.mean()), len(pictures))


def harden(
    bundle: Bundle,
    batches: TrainingBatches,
    held_out: LabelledPictures,
    settings: HardenSettings,
    *,
    inputs: str,
    work: Path | None,
    processes: Processes,
    progress: Progress,
    measured: int = 256,
) -> Hardened:
    """Train a copy of the network of `bundle` through the defence.

    `batches` give batches of `settings.batch` frames. `held_out` pictures guard the training. The first `measured` of
    them give the figures before and after. `inputs` identifies the training's inputs: a checkpoint in `work` of other
    inputs is ignored. Raises BundleError for a network that cannot be trained.
    """
    started = time.monotonic()
    network = trainable_copy(bundle)
    own = bundle.settings.model_dump_json(exclude={"strip"})
    inputs = digest(inputs, json.dumps(asdict(settings)), bundle.model_id, own, held_out.images, held_out.labels)
    bundle = bundle.passable  # the attacks need gradients
    checkpoints = Checkpoints(work, inputs)
    seen = held_out.first(measured)

    def stands(name: str, some: Bundle) -> Shares:
        # Only these depend on the number of pictures; the training does not.
        kept = Checkpoints(work, digest(inputs, str(len(seen)))).of(name)
        found = kept.load()
        if found is None:
            progress.phase(f"clean and {'attacked' if settings.sticker is None else 'certified'}, {name}", len(seen))
            if settings.sticker is None:
                shares = measure(some, seen, eps=settings.eps, drop=settings.drops[0], advance=progress.advance)
            else:
                shares = certified_shares(some, seen, settings.sticker, settings.across, progress.advance)
            found = asdict(shares)
            kept.save(found)
        return Shares(**found)

    before = processes.of_the_first(stands("before", bundle) if processes.leads else None)
    spent = checkpoints.of("seconds")
    earlier = (spent.load() or {"seconds": 0.0})["seconds"] if processes.leads else 0.0
    progress.phase("training", settings.epochs * len(batches))
    guarded = held_out.first(GUARDED)

    def print_line(line: str) -> None:
        if processes.leads:
            progress.print_line(line)
            spent.save({"seconds": earlier + time.monotonic() - started})

    training = Training(
        bundle,
        network,
        batches,
        (to_frames(guarded.images, bundle.device), torch.from_numpy(guarded.labels)),
        settings,
        checkpoint=checkpoints.of("training"),
        processes=processes,
        report=print_line,
        advance=progress.advance,
    )
    trained = frozen(training.run())
    hardened = replace(bundle, network=trained)
    after = processes.of_the_first(stands("after", hardened) if processes.leads else None)
    seconds = earlier + time.monotonic() - started
    return Hardened(trained, hardened, before, after, seconds, settings.eps, settings.drops[0], settings.sticker)
