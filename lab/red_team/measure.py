"""Jobs on batches of pictures. Finished batches are kept, so an interrupted run resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import random_targets
from lab.attacks.contract import Defended
from lab.cache import Arrays, Cache, Step, digest
from lab.data import BATCH_PIXELS, LabelledPictures, to_frames
from lab.provenance import made_by
from lab.red_team.attack import adversarial, usable_gradients
from lab.red_team.defences import Defence, Facing
from lab.red_team.jobs import Job
from lab.red_team.outcomes import Outcome, worst_case
from lab.red_team.plan import CLEAN, Speeds
from processors.device.precision import Precision, arithmetic

GROUP: Final = 100
"""Most pictures of a batch. Those of one group share the draw if the randomness is fixed."""
_ON_GPU: Final = 10
"""Factor of the most pictures and pixels of a batch on a GPU, which small batches do not fill."""
_PASSES: Final = 400_000
"""Most passes of a batch on a CPU, so that an interruption costs less than half an hour: costly attacks have smaller
batches. Of most batches, only the pictures that still stand are attacked, and a pass of few pictures is slow."""
_SIZES: Final = (100, 50, 25, 20, 10, 5, 4, 2, 1)


class Progress(Protocol):
    """A receiver of progress reports."""

    def batch(self, job: Job, pictures: int, seconds: float, kept: bool) -> None:
        """Report another batch, which was expected to take `seconds`. `kept` is True for a batch of an earlier run."""
        ...


@dataclass
class Measurement:
    """A runner of jobs against one defence that keeps their outcomes in the order of the runs."""

    defence: Defence
    pictures: LabelledPictures
    seed: int
    times: int
    """Submissions of every picture if the defence is random."""
    cache: Cache
    gradient_precision: Precision = "float32"
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @cached_property
    def made_from(self) -> str:
        """Return a digest of everything on which all outcomes depend: code, network, settings, seed.

        The pictures are not part of it: each batch has its own digest.
        """
        settings = self.defence.bundle.settings.model_dump(exclude={"strip"})
        surrogate = None if self.defence.surrogate is None else self.defence.surrogate.model_id
        return digest(
            self.defence.bundle.model_id, settings, self.defence.name, self.defence.ratio, surrogate, self.seed,
            self.times, self.gradient_precision, self._device.type, made_by(__name__),
        )  # fmt: skip

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """Return a random other class for every picture, the same one for every attack."""
        generator = torch.Generator().manual_seed(self.seed)
        classes = len(self.defence.bundle.settings.classes)
        targets: NDArray[np.int64] = random_targets(torch.from_numpy(self.pictures.labels), classes, generator).numpy()
        return targets

    @property
    def _device(self) -> torch.device:
        return self.defence.bundle.device

    def speeds(self) -> Speeds:
        """Return the speeds, measured on one batch, once for all runs with these settings.

        They are kept, because a resumed run must make the same plan.
        """
        found = self.cache.get("speeds", self.made_from, self._measure_speeds)
        return Speeds(*map(float, found["seconds"]))

    def _measure_speeds(self) -> Arrays:
        frames, labels = self._batch(np.arange(min(len(self.pictures), self._most)))
        seconds = []
        for variant in ("defence", "bare"):
            attacked = self._facing(variant, self.seed).attacked
            backward = partial(usable_gradients, attacked, frames, labels)
            forward = partial(torch.no_grad()(attacked), frames)
            chance = torch.Generator().manual_seed(0)
            both = _timed(backward, chance, self._device) if self.gives_gradients else 0.0
            seconds += [both / len(frames), _timed(forward, chance, self._device) / len(frames)]
        return {"seconds": np.array(seconds)}

    @cached_property
    def gives_gradients(self) -> bool:
        """Return whether the network can be differentiated with respect to its input."""
        return has_graph(self.defence)

    def standing(self) -> float:
        """Return the share of the pictures that no attack has broken so far."""
        clean = self.outcomes.get(CLEAN)
        return 1.0 if clean is None else float(worst_case(self.outcomes.values(), clean.pictures).mean())

    def run(self, job: Job, seconds: float, progress: Progress, may_begin: Callable[[float], bool]) -> bool:
        """Run a job of expected `seconds`, while `may_begin` allows its batches. Return whether all of it was done.

        Its outcome is added to `outcomes`, even that of a part. If no batch was run, there is no outcome.
        """
        parts: list[Arrays] = []
        reached = 0
        for start, stop in self._batches(job):
            expected = seconds * (stop - start) / job.pictures
            positions = self._attacked(job, start, stop)
            known = self._sample if job.effort.kind == "hop-skip-jump" or job.variant == "bpda-surrogate" else ""
            settings = digest(self.made_from, job.settings(), self._pixels(start, stop), positions.tolist(), known)
            name = f"{job.name.replace(', ', '-')}/{start:05}-{stop:05}"
            kept = self.cache.has(Step(name, settings))
            # Without the clean pictures no result is possible.
            if not kept and job.name != CLEAN and not may_begin(expected):
                break
            parts.append(self.cache.get(name, settings, partial(self._measure, job, start, positions)))
            reached = stop
            progress.batch(job, stop - start, expected, kept)
        if reached:
            self.outcomes[job.name] = self._outcome(job, parts, reached)
        return reached == job.pictures

    def _batches(self, job: Job) -> Iterator[tuple[int, int]]:
        size = self._most
        if self._device.type == "cpu":
            backward, forward = job.cost
            affordable = max(1.0, _PASSES / max(1.0, backward + forward / 6))
            size = next(each for each in _SIZES if each <= min(size, affordable))
        for start in range(0, job.pictures, size):
            yield start, min(start + size, job.pictures)

    @property
    def _factor(self) -> int:
        return 1 if self._device.type == "cpu" else _ON_GPU

    @property
    def _most(self) -> int:
        height, width = self.pictures.images.shape[1:3]
        return self._factor * max(1, min(GROUP, BATCH_PIXELS // int(height * width)))

    def _attacked(self, job: Job, start: int, stop: int) -> NDArray[np.intp]:
        """Return the positions of a batch to attack: correct at least once when clean, and not yet excluded."""
        positions = np.arange(start, stop)
        clean = self.outcomes.get(CLEAN)
        if clean is None or job.effort.kind == "clean":
            return positions
        wanted = clean.right[start:stop] > 0
        if job.compared is not None and stop > job.compared:
            standing = worst_case(self.outcomes.values(), stop)[start:stop]
            wanted &= standing | (positions < job.compared)
        return positions[wanted]

    def _batch(self, positions: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        frames = to_frames(self.pictures.images[positions], self._device)
        return frames, torch.from_numpy(self.pictures.labels[positions]).to(self._device)

    def _pixels(self, start: int, stop: int) -> str:
        chosen = self.pictures.images[start:stop]
        return digest(chosen.shape, chosen.tobytes(), self.pictures.labels[start:stop].tobytes())

    @cached_property
    def _sample(self) -> str:
        return digest(self.defence.sample.shape, self.defence.sample.cpu().numpy().tobytes())

    def _seed(self, *parts: object) -> int:
        return int(digest(self.seed, *parts)[:15], 16)

    def _facing(self, variant: str, seed: int) -> Facing:
        facing = self.defence.facing(variant, seed)
        return facing._replace(attacked=with_gradients_in(facing.attacked, self.gradient_precision))

    def _measure(self, job: Job, start: int, positions: NDArray[np.intp]) -> Arrays:
        began = time.monotonic()
        times = self.times if self.defence.draws(job.variant) else 1
        right = np.zeros((times, len(positions)), np.bool_)
        reached = np.zeros_like(right)
        largest = np.zeros(len(positions), np.float32)
        if len(positions):
            frames, labels = self._batch(positions)
            facing = self._facing(job.variant, self._seed("draw", start // (self._factor * GROUP)))
            chance = torch.Generator().manual_seed(self._seed(job.name, start))
            if job.effort.kind == "gradients":
                usable = usable_gradients(facing.attacked, frames, labels, chance).cpu().numpy()
                right[:], reached[:] = usable, False
            else:
                targets = torch.from_numpy(self.targets[positions]).to(self._device)
                found = adversarial(
                    job.effort, facing.attacked, frames, labels, targets, self.defence.sample, job.eps, chance
                )
                given = answers(
                    facing.judged, found, times, torch.Generator().manual_seed(self._seed("judge", job.name, start))
                )
                right[:], reached[:] = (given == labels).cpu().numpy(), (given == targets).cpu().numpy()
                largest[:] = (found - frames).abs().flatten(1).amax(1).cpu().numpy()
        return {
            "positions": positions, "right": right, "reached": reached, "linf": largest,
            "seconds": np.array(time.monotonic() - began),
        }  # fmt: skip

    def _outcome(self, job: Job, parts: list[Arrays], count: int) -> Outcome:
        clean = self.outcomes.get(CLEAN)
        right, reached = np.zeros(count), np.zeros(count)
        survived = np.zeros(count, np.bool_)
        # A picture that is never correct when clean needs no attack.
        met = np.zeros(count, np.bool_) if clean is None else clean.right[:count] == 0
        linf = 0.0
        for part in parts:
            positions = part["positions"].astype(np.intp)
            if not len(positions):
                continue
            right[positions], reached[positions] = part["right"].mean(0), part["reached"].mean(0)
            survived[positions], met[positions] = part["right"].all(0), True
            linf = max(linf, float(part["linf"].max()))
        seconds = sum(float(part["seconds"]) for part in parts)
        compared = None if job.compared is None else min(job.compared, count)
        done = replace(job, pictures=count, compared=compared)
        return Outcome(done, right, survived, met, reached, linf, seconds)


def with_gradients_in(attacked: Defended, precision: Precision) -> Defended:
    """Return `attacked` with passes for gradients computed in `precision`. Passes for answers stay in float32.

    Rounded answers would hide small improvements from an attack that only compares answers, such as Square.
    """
    if precision == "float32":
        return attacked

    def computed(frames: Tensor, generator: torch.Generator) -> Tensor:
        if not (torch.is_grad_enabled() and frames.requires_grad):
            return attacked(frames, generator)
        with arithmetic(frames.device, precision):
            return attacked(frames, generator).float()

    return computed


def has_graph(defence: Defence, variant: str = "bare") -> bool:
    """Return whether the attacked side of a variant is differentiable with respect to its input."""
    wanted = defence.bundle.settings.input
    frames = torch.full((1, wanted.channels, wanted.height, wanted.width), 0.5, device=defence.bundle.device)
    with torch.enable_grad():
        logits = defence.facing(variant, 0).attacked(frames.requires_grad_(), torch.Generator().manual_seed(0))
    return logits.requires_grad


@torch.no_grad()
def answers(judged: Defended, frames: Tensor, times: int, generator: torch.Generator) -> Tensor:
    """Return the classes (times, B) of the frames, each shown `times` times."""
    return torch.stack([judged(frames, generator).argmax(1) for _ in range(times)])


def _timed(work: Callable[[torch.Generator], Tensor], chance: torch.Generator, device: torch.device) -> float:
    """Return the seconds of the fastest of three runs after a warm-up: other programs only add time."""
    seconds = []
    for _ in range(4):
        began = time.monotonic()
        work(chance)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - began)
    return min(seconds[1:])
