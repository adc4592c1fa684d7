"""The training loop: attacked batches through the defence, a guard, and checkpoints from which it resumes exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from lab.chance import seeded
from lab.hardening.attack import attacked
from lab.hardening.chance import generator_at, number_at
from lab.hardening.guard import Look, milder, overfits
from lab.hardening.objective import adversarial_loss, trades_loss
from lab.hardening.processes import Processes
from lab.hardening.settings import MOST_STEPS, HardenSettings
from lab.hardening.stickers import hardest, window_masks
from lab.hardening.training_batches import TrainingBatches
from lab.masks import random_masks
from lab.repair.checkpoints import Checkpoint
from lab.training.recipe import Recipe, average_into, distinct_tensors, rate_at
from processors.bundle import Bundle
from processors.pipeline import Pipeline

LOOKS_PER_EPOCH: Final = 2
GUARD_STEPS: Final = 7
GUARD_PAIRS: Final = 24
_DRAWS, _SHARD, _LOOK = 2, 3, 4
"""Indices of the loop's seeds; the batches use others."""


class Training:
    """One training of `network`, a trainable copy of the network of `bundle`. It ends with the averaged weights."""

    def __init__(
        self,
        bundle: Bundle,
        network: nn.Module,
        batches: TrainingBatches,
        held_out: tuple[Tensor, Tensor],
        settings: HardenSettings,
        *,
        checkpoint: Checkpoint,
        processes: Processes,
        report: Callable[[str], object],
        advance: Callable[[int], object],
    ) -> None:
        """Prepare the training. `held_out` are frames (N, C, H, W) in [0, 1] and labels (N,) for the guard alone."""
        self.device = bundle.device
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs
        self.together = processes.together(self.network)
        with torch.no_grad():
            self.average: nn.Module = copy.deepcopy(self.network)
        self.attacked_bundle = Pipeline(replace(bundle, network=self.network))
        self.trained_bundle = Pipeline(replace(bundle, network=self.together))
        self.batches = batches
        self.held_out = held_out
        self.settings = settings
        self.recipe = Recipe(peak_rate=settings.rate)
        self.checkpoint = checkpoint
        self.processes = processes
        self.report = report
        self.advance = advance
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.SGD(
            [
                {"params": [w for w in weights if w.ndim > 1], "weight_decay": settings.weight_decay},
                {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.rate,
            momentum=settings.momentum,
            nesterov=True,
        )
        self.total = settings.epochs * len(batches)
        self.step = 0
        self.attack_steps = settings.steps
        self.best: Look | None = None
        self.good: dict[str, Any] | None = None

    def run(self) -> nn.Module:
        """Train to the end, resuming an earlier run, and return the averaged network in evaluation mode."""
        saved = self.processes.of_the_first(self.checkpoint.load() if self.processes.leads else None)
        if saved is not None:
            self._restore(saved["now"])
            self.attack_steps = saved["attack_steps"]
            self.best = None if saved["best"] is None else Look(*saved["best"])
            self.good = saved["good"]
            self.report(f"resumed after step {self.step} of {self.total}")
        elif self.processes.leads and self.checkpoint.file is not None and self.checkpoint.file.is_file():
            self.report(f"restarted: {self.checkpoint.file} is of other inputs, or damaged")
        self.advance(self.step)
        every = max(1, len(self.batches) // LOOKS_PER_EPOCH)
        while self.step < self.total:
            self._learn()
            self.step += 1
            self.advance(1)
            if self.step % every == 0 or self.step == self.total:
                self._look()
                if self.processes.leads:
                    self.checkpoint.save(self._saved())
        self.average.eval()
        return self.average

    def _learn(self) -> None:
        settings, step = self.settings, self.step
        frames, labels, strength = self.batches.batch(step)
        count, _, height, width = frames.shape
        chance = generator_at(settings.seed, _DRAWS, step)
        drop = settings.drops[int(torch.randint(len(settings.drops), (), generator=chance))]
        # Every process draws for the whole batch: the division into shards must not change a draw.
        masks = self._masks(count, height, width, drop, self.attack_steps + 1, chance)
        noise = (torch.rand(frames.shape, generator=chance) * 2 - 1).to(self.device)
        frames, labels = frames.to(self.device), labels.to(self.device)
        eps = settings.eps * strength.to(self.device)[:, None, None, None]
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(step, self.total, self.recipe)
        # Each shard starts from the same statistics, and their mean is kept. Counters count a step once.
        buffers = list(self.network.buffers())
        before = [b.clone() for b in buffers]
        sums = [torch.zeros_like(b) for b in buffers]
        own = self.processes.own(settings.shards)
        for shard in own:
            part = slice(shard * count // settings.shards, (shard + 1) * count // settings.shards)
            for buffer, value in zip(buffers, before, strict=True):
                buffer.data.copy_(value)
            with seeded(number_at(settings.seed, _SHARD, step, shard)):
                share = [mask[part] for mask in masks]
                loss = self._loss(frames[part], labels[part], eps[part], noise[part], share)
                # Gradients are averaged over the processes after the last shard.
                with nullcontext() if shard == own[-1] else self.processes.apart(self.together):
                    (loss / len(own)).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            for total, buffer in zip(sums, buffers, strict=True):
                total += buffer
        if settings.shards > 1:
            for buffer, total in zip(buffers, sums, strict=True):
                if buffer.is_floating_point():
                    self.processes.add_up(total)
                    buffer.data.copy_(total / settings.shards)
        self.optimiser.step()
        self.optimiser.zero_grad()
        average_into(self.average, self.network, min(settings.average_decay, (step + 1) / (step + 10)))

    def _masks(
        self, count: int, height: int, width: int, drop: float, draws: int, chance: torch.Generator
    ) -> list[Tensor]:
        masks = [random_masks(count, height, width, drop, chance) for _ in range(draws)]
        if (sticker := self.settings.sticker) is not None:
            masks = [window_masks(mask, sticker, self.settings.across, chance) for mask in masks]
        return [mask.to(self.device) for mask in masks]

    def _loss(self, frames: Tensor, labels: Tensor, eps: Tensor, noise: Tensor, masks: list[Tensor]) -> Tensor:
        settings = self.settings
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bfloat16):
            # Evaluation mode: intermediate attacked frames must not change batch-norm statistics (Pang et al. 2021).
            self.network.eval()
            if settings.sticker is not None:
                adversarial, mask = frames, hardest(self.attacked_bundle.logits, frames, labels, masks[:-1])
            else:
                adversarial, mask = (
                    attacked(
                        self.attacked_bundle.logits, frames, labels, noise, masks[:-1], eps=eps, start=settings.start
                    ),
                    masks[-1],
                )
            self.network.train()
            bundle = self.trained_bundle.bundle
            with torch.no_grad():
                seen = self.trained_bundle.network_input(adversarial, mask)[0]
                if settings.trades is not None:
                    seen = torch.cat((self.trained_bundle.network_input(frames, masks[-1])[0], seen))
            logits = bundle.logits(seen)
        if settings.trades is None:
            return adversarial_loss(logits.float(), labels)
        clean, other = logits.float().chunk(2)
        return trades_loss(clean, other, labels, settings.trades)

    def _look(self) -> None:
        """Evaluate the training with the guard, and go back to the last good state if it overfits."""
        now = Look(*self.processes.of_the_first(self._shares() if self.processes.leads else None))
        stickers = self.settings.sticker is not None
        one, many = ("one pair of windows", f"each of {GUARD_PAIRS}") if stickers else ("one step", "PGD")
        line = f"step {self.step} of {self.total}: held-out {now.one_step:.3f} under {one}, {now.pgd:.3f} under {many}"
        if not stickers and self.good is not None and self.attack_steps < MOST_STEPS and overfits(self.best, now):
            self.attack_steps = milder(self.attack_steps, MOST_STEPS)
            reached = self.step
            self._restore(self.good)
            self.advance(self.step - reached)
            self.report(f"{line}; overfits the attack: back to step {self.step}, with {self.attack_steps} attack steps")
            return
        self.report(line)
        if self.best is None or now.pgd >= self.best.pgd:
            self.best = now
        self.good = self._state()

    def _shares(self) -> tuple[float, float]:
        frames, labels = (each.to(self.device) for each in self.held_out)
        count, _, height, width = frames.shape
        chance = generator_at(self.settings.seed, _LOOK)
        draws = GUARD_STEPS + 1 if self.settings.sticker is None else GUARD_PAIRS
        masks = self._masks(count, height, width, self.settings.drops[0], draws, chance)
        noise = (torch.rand(frames.shape, generator=chance) * 2 - 1).to(self.device)
        eps = torch.full((count, 1, 1, 1), self.settings.eps, device=self.device)
        self.network.eval()
        found = []
        # A bundle's random stages draw from the global generators.
        with seeded(number_at(self.settings.seed, _LOOK)):
            if self.settings.sticker is not None:
                with torch.no_grad():
                    each = [self.attacked_bundle.logits(frames, mask).argmax(1) == labels for mask in masks]
                return float(each[0].float().mean()), float(torch.stack(each).all(0).float().mean())
            for some, start in ((masks[:1], 0.0), (masks[:-1], 1.0)):
                changed = attacked(self.attacked_bundle.logits, frames, labels, noise, some, eps=eps, start=start)
                with torch.no_grad():
                    right = self.attacked_bundle.logits(changed, masks[-1]).argmax(1) == labels
                found.append(float(right.float().mean()))
        return found[0], found[1]

    def _saved(self) -> dict[str, Any]:
        best = None if self.best is None else (self.best.one_step, self.best.pgd)
        # If the last evaluation was good, or restored the good state, the two states are identical and saved once.
        here = self.good if self.good is not None and self.good["step"] == self.step else self._state()
        return {"now": here, "attack_steps": self.attack_steps, "best": best, "good": self.good}

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": {name: value.detach().clone() for name, value in distinct_tensors(self.network)},
            "average": {name: value.detach().clone() for name, value in distinct_tensors(self.average)},
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for network, name in ((self.network, "network"), (self.average, "average")):
            network.load_state_dict(state[name], strict=False)
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
