"""Algorithm 1 of Bai et al. (2023): a generator, and a two-headed discriminator trained against PGD.

Every draw depends on the seed and the step number alone, so an interrupted run continues with identical results.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import cached

from lab.aigan.continuing import adopt
from lab.aigan.discriminator import Discriminator
from lab.aigan.generator import Generator, Shape, perturbed
from lab.aigan.losses import class_loss, clean_loss, deceit_loss, margin_loss, miss_loss
from lab.aigan.opponents import Opponent
from lab.aigan.pretraining import mirrored, pretrain, teach_gate
from lab.aigan.universal import templates
from lab.attacks import random_targets
from lab.attacks.eot import eot_pgd
from lab.chance import seeded
from lab.repair.checkpoints import Checkpoint
from lab.training.recipe import average_into
from schemas.errors import ConfigError

SAVE_EVERY: Final = 250
"""Steps between checkpoints."""
ADOPTED: Final = 2000
"""Pictures for the batch norms of a shipped generator."""
_PRETRAINED: Final = -1


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run, chosen on validation pictures. The paper's own values are in brackets."""

    steps: int
    eps: float
    batch: int = 128
    """[256]"""
    rate: float = 2e-3
    """Learning rate of Adam, with half-cosine decay to zero [.002]."""
    cycle: int = 1000
    """Steps of each decay cycle. After each cycle the generator can ship, and training can continue."""
    confidence: float = 5.0
    """κ of the margin loss [0]. With κ above 0, pictures with a narrow success still contribute."""
    softness: float = 0.0
    """Softness of the miss loss, which takes the place of the margin loss; 0 keeps the margin loss."""
    clean_weight: float = 0.05
    """Weight of being classified as clean [1]."""
    class_weight: float = 0.1
    """Weight of being classified as the target by the discriminator [1]."""
    discriminate_every: int = 4
    """Steps of the generator per step of the discriminator [1]."""
    attacker_steps: int = 7
    pretrain_steps: int = 100
    gate_steps: int = 600
    warmup_steps: int = 0
    """Steps in which only the opponent is trained, on pictures with random changes."""
    average_decay: float = 0.998
    flip: bool = False
    narrow: int = 32
    wide: int = 96
    blocks: int = 2
    bf16: bool = False
    """Compute generator and target in bfloat16, which CPUs with AVX-512 BF16 do about twice as fast."""
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Return the share of the full rate: each cycle warms up, then decays by a half cosine to zero.

        Later cycles begin with lower rates, which keeps a good generator close to its optimum.
        """
        number, here = divmod(step, self.cycle)
        up = min(1.0, (here + 1) / min(100, 1 + self.cycle // 10))
        return up * 0.5 * (1 + math.cos(math.pi * here / self.cycle)) / math.sqrt(1 + number)

    def ends_cycle(self, step: int) -> bool:
        """Return whether a cycle ends after `step` steps, so that the generator can ship."""
        return step > 0 and (step % self.cycle == 0 or step == self.steps)

    @property
    def described(self) -> str:
        """Return the recipe in one line, without the number of steps: longer runs begin like shorter ones."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if name != "steps")


class Players:
    """The networks and their optimisers."""

    def __init__(self, shape: Shape, recipe: Recipe, opponent: Opponent) -> None:
        with seeded(recipe.seed):
            self.generator = Generator(shape, recipe.narrow, recipe.wide, recipe.blocks)
            self.discriminator = Discriminator(shape.classes, shape.channels)
        self.average = copy.deepcopy(self.generator)
        self.opponent = opponent
        self.generating = torch.optim.Adam(self.generator.parameters(), recipe.rate, (0.5, 0.999))
        self.discriminating = torch.optim.Adam(self.discriminator.parameters(), recipe.rate, (0.5, 0.999))

    @property
    def _parts(self) -> tuple[nn.Module | torch.optim.Optimizer, ...]:
        return self.generator, self.average, self.discriminator, self.generating, self.discriminating

    def state(self, step: int) -> dict[str, Any]:
        """Return the state for a checkpoint after `step`."""
        parts = [part.state_dict() for part in self._parts]
        return {"step": step, "parts": parts, "opponent": self.opponent.state()}

    def restore(self, state: dict[str, Any]) -> int:
        """Restore the state of a checkpoint, and return its step."""
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        self.opponent.restore(state["opponent"])
        last: int = state["step"]
        return last


def train(
    pictures: Tensor,
    labels: Tensor,
    shape: Shape,
    opponent: Opponent,
    recipe: Recipe,
    checkpoint: Checkpoint,
    watch: Callable[[int, Generator], None] = lambda step, generator: None,
    start: Mapping[str, Tensor] | None = None,
) -> Generator:
    """Return the trained generator in evaluation mode, with weights averaged over the last steps.

    `pictures` (N, C, H, W) uint8 and `labels` (N,) int64 are the training split. `watch` receives the averaged
    generator after each checkpoint. `start`, the result of `shipped_weights`, takes the place of the pre-training.
    Raises ConfigError if the checkpoint is of more steps than the recipe's.
    """
    players = Players(shape, recipe, opponent)
    saved = checkpoint.load()
    first = players.restore(saved) + 1 if saved is not None else _PRETRAINED
    if first > recipe.steps:
        raise ConfigError(
            f"--steps: expected at least {first}, those of the checkpoint {checkpoint.file}, got {recipe.steps}. Give "
            "more, or remove the checkpoint to begin again."
        )
    if first == recipe.steps:
        watch(first, players.average.eval())
    for step in range(first, recipe.steps):
        if step == _PRETRAINED:
            if start is None:
                _prepare(players, pictures, labels, shape, recipe)
            else:
                adopt(players.generator, start, pictures[:ADOPTED].float() / 255)
                players.average.load_state_dict(players.generator.state_dict())
        else:
            frames, truth, generator = draw(pictures, labels, recipe, step)
            _step(players, frames, truth, recipe, step, generator)
        if (step + 1) % SAVE_EVERY == 0 or recipe.ends_cycle(step + 1):
            checkpoint.save(players.state(step))
            watch(step + 1, players.average.eval())
    return players.average.eval()


def draw(pictures: Tensor, labels: Tensor, recipe: Recipe, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Return the frames (B, C, H, W) in [0, 1] and labels (B,) of one step, and a random generator for other draws."""
    per_epoch = max(1, len(pictures) // recipe.batch)
    epoch, number = divmod(step, per_epoch)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(recipe.seed * 100_003 + epoch))
    index = order[number * recipe.batch : (number + 1) * recipe.batch]
    generator = torch.Generator().manual_seed((recipe.seed + 1) * 1_000_003 + step)
    frames = pictures[index].float() / 255
    return mirrored(frames, generator) if recipe.flip else frames, labels[index], generator


def _prepare(players: Players, pictures: Tensor, labels: Tensor, shape: Shape, recipe: Recipe) -> None:
    """Prepare the first step: train the encoder and the gate, warm up the opponent, and compute the templates."""
    generator = torch.Generator().manual_seed(recipe.seed)
    with seeded(recipe.seed):
        pretrain(players.generator.encoder, pictures, recipe.pretrain_steps, generator)
        teach_gate(players.generator, pictures, labels, recipe.gate_steps, recipe.flip, generator)
        for step in range(-recipe.warmup_steps, 0):
            frames, _, chance = draw(pictures, labels, recipe, step)
            noise = torch.randn(frames.shape, generator=chance).sign()
            players.opponent.learn(frames, perturbed(frames, noise, recipe.eps), 1.0)
        begin = templates(pictures, labels, shape, players.opponent, recipe.eps, recipe.confidence, recipe.seed)
    with torch.no_grad():
        players.generator.templates.weight.copy_(begin.flatten(1))
    players.average.load_state_dict(players.generator.state_dict())


def _step(
    players: Players, frames: Tensor, labels: Tensor, recipe: Recipe, step: int, generator: torch.Generator
) -> None:
    rate = recipe.rate_at(step)
    targets = random_targets(labels, players.generator.shape.classes, generator)
    players.generator.train()
    players.discriminator.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
        direction = players.generator(frames, targets)
    attacked = perturbed(frames, direction.float(), recipe.eps)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
        logits = players.opponent.logits(attacked)
    if recipe.softness:
        loss = miss_loss(logits.float(), targets, recipe.softness)
    else:
        loss = margin_loss(logits.float(), targets, recipe.confidence)
    if recipe.clean_weight or recipe.class_weight:
        clean, classes = players.discriminator(attacked)
        loss = loss + deceit_loss(clean, classes, targets, recipe.clean_weight, recipe.class_weight)
    _descend(players.generating, loss, recipe.rate * rate)
    average_into(players.average, players.generator, min(recipe.average_decay, (step + 1) / (step + 10)))
    attacked = attacked.detach()
    if step % recipe.discriminate_every == 0 and (recipe.clean_weight or recipe.class_weight):
        discriminate(players.discriminator, players.discriminating, frames, attacked, labels, recipe, rate, generator)
    players.opponent.learn(frames, attacked, rate)


def discriminate(
    discriminator: Discriminator,
    optimiser: torch.optim.Optimizer,
    frames: Tensor,
    attacked: Tensor,
    labels: Tensor,
    recipe: Recipe,
    rate: float,
    generator: torch.Generator,
) -> None:
    """Take one step of the discriminator: clean or not, and the original class, also of PGD's pictures."""
    discriminator.requires_grad_(False).eval()
    with cached():  # caches the spectral norms, which are constant here
        by_pgd = eot_pgd(
            lambda x, _: discriminator(x)[1],
            frames,
            labels,
            None,
            eps=recipe.eps,
            steps=recipe.attacker_steps,
            samples=1,
            generator=generator,
        )
    discriminator.requires_grad_(True).train()
    count = len(frames)
    clean, classes = discriminator(torch.cat((frames, attacked, by_pgd)))
    loss = clean_loss(clean[:count], clean[count : 2 * count])
    loss = loss + class_loss(classes[2 * count :], classes[count : 2 * count], labels)
    _descend(optimiser, loss, recipe.rate * rate / 2)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    optimiser.step()


@torch.inference_mode()
def success(
    generator: Generator, logits: Callable[[Tensor], Tensor], pictures: Tensor, labels: Tensor, eps: float
) -> float:
    """Return the share of `pictures` (N, C, H, W) uint8 classified as a random target other than `labels` (N,)."""
    targets = random_targets(labels, generator.shape.classes, torch.Generator().manual_seed(0))
    hits = 0
    for start in range(0, len(pictures), 250):
        part = slice(start, start + 250)
        frames = pictures[part].float() / 255
        attacked = perturbed(frames, generator(frames, targets[part]), eps)
        hits += int((logits(attacked).argmax(1) == targets[part]).sum())
    return hits / len(pictures)
