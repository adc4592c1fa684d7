"""Measurements of the fleet's hardened network next to the plain one.

Held-out scenes of 32 to 1,080 lines go through the pixel drop. Usual scenes are attacked by EOT-PGD that knows all but
the key, at the frame's own size, and sent ten times. Scenes of three kinds meet several attacks at several bounds, and
count only if they withstand all of them. Hard scenes (dark, noisy, blurred and small, as in
`lab.experiments.scale.measure`) only go through the drop. STRIP gets whole scenes, clean and with the sticker of the
drills. For each network, the attacker fine-tunes the network itself on scenes with the sticker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lab.attacks import to_8_bits
from lab.attacks.contract import Defended
from lab.attacks.defences import defended
from lab.attacks.eot import eot_pgd
from lab.attacks.resubmission import resubmitted, shown
from lab.backdoor.catalogue import sticker_patch
from lab.backdoor.files import stamped_pictures
from lab.backdoor.poison import Poisoning
from lab.backdoor.scene import RATE, TARGET
from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening.rows import AdaptedRow, HardRow, SceneRow, StripRow
from lab.experiments.scale.measure import CONDITIONS, RATIOS, scenes
from lab.strip.measure import check, strip_figures
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from producers.scene.simulator import Conditions

EPS: Final = 0.03
DROP: Final = 0.25
STEPS: Final = 20
SAMPLES: Final = 4
TIMES: Final = 10
PIXELS: Final = 2**18
"""Pixels of a batch, unless one frame has more."""
SIZES: Final = {(32, 32): 500, (64, 64): 500, (240, 320): 150, (480, 640): 60, (1080, 1920): 20}
"""Height and width, and how many frames are attacked."""
KINDS: Final = {
    "usual": CONDITIONS["usual"], "dim": Conditions(light=0.4, noise=2), "hard": CONDITIONS["hard"],
}  # fmt: skip
"""Kinds of scenes that meet every attack. `dim` has less light than the hard ones, but sharp and near signs."""
_BOUNDS: Final = (
    ("hard", 0.03), ("dim", 0.03), ("usual", 0.0627), ("usual", 0.03), ("hard", 0.0627), ("dim", 0.0627),
    ("usual", 0.02), ("usual", 0.04), ("usual", 0.08), ("hard", 0.02), ("dim", 0.02),
)  # fmt: skip
ADAPTED: Final = tuple((kind, eps, size) for size in ((96, 128), (32, 32), (480, 640)) for kind, eps in _BOUNDS)
"""Kinds of scenes, bounds and sizes that meet every attack, the most telling first."""
ADAPTED_FRAMES: Final = 300
MOMENTUM: Final = 0.75
LONG_STEPS: Final = 50
RUNNERS_UP: Final = 3
"""Targets of a frame: the classes with the highest logits besides its own."""
HARD_SIZES: Final = {(32, 32): 1000, (64, 64): 1000, (240, 320): 300, (480, 640): 120, (1080, 1920): 30}
STRIP_SCENES: Final = 3_000
FIRST_TEST_CAMERA: Final = 900_000
"""First camera of the scenes for STRIP, beyond those of every training."""


Attack = Callable[[Tensor, Tensor], Tensor]
"""Frames and their labels to adversarial frames."""


def attacked(bundle: Bundle, size: tuple[int, int], count: int) -> SceneRow:
    """Usual scenes of one size, clean and under EOT-PGD."""
    begun = time.monotonic()
    clean, answers, _ = _judged(bundle, size, count, "usual", EPS, further=False)
    return SceneRow(bundle.model_id, *size, count, clean, *answers, time.monotonic() - begun)


def withstood(bundle: Bundle, size: tuple[int, int], count: int, kind: str, eps: float) -> AdaptedRow:
    """Scenes of one size and kind, clean, under EOT-PGD, and under every attack."""
    begun = time.monotonic()
    clean, answers, worst = _judged(bundle, size, count, kind, eps, further=True)
    seconds = time.monotonic() - begun
    return AdaptedRow(bundle.model_id, *size, count, clean, *answers, seconds, scenes=kind, eps=eps, worst=worst)


def _judged(
    bundle: Bundle, size: tuple[int, int], count: int, kind: str, eps: float, *, further: bool
) -> tuple[float, tuple[float, float], float]:
    """Shares of scenes: right when clean; under EOT-PGD, at once and ten times of ten; the latter under all attacks.

    The `further` attacks meet only the scenes that still stand.
    """
    pictures = scenes(count, size, KINDS[kind])
    chain = defended(Pipeline(bundle), DROP)
    chance = torch.Generator().manual_seed(0)
    first, *others = scene_attacks(chain, eps, chance)
    clean, once, stands, every = 0, 0, 0, 0
    for part in _parts(count, size):
        frames, labels = to_frames(pictures.images[part], bundle.device), torch.from_numpy(pictures.labels[part])
        clean += int(shown(chain, frames, labels, times=1, generator=chance).sum())
        answers = shown(chain, to_8_bits(first(frames, labels)), labels, times=TIMES, generator=chance)
        standing = answers.all(0).nonzero()[:, 0]
        once, stands = once + int(answers[0].sum()), stands + len(standing)
        for attack in others if further else ():
            if len(standing):
                changed = to_8_bits(attack(frames[standing], labels[standing]))
                right = resubmitted(chain, changed, labels[standing], times=TIMES, generator=chance)
                standing = standing[right]
        every += len(standing)
    return clean / count, (once / count, stands / count), every / count


def scene_attacks(chain: Defended, eps: float, chance: torch.Generator) -> list[Attack]:
    """Return the attacks of a row, EOT-PGD first. The others ascend margins, towards any class and single ones."""
    usual = partial(eot_pgd, chain, eps=eps, samples=SAMPLES, generator=chance)
    margin = partial(usual, margin=True, momentum=MOMENTUM)

    def towards(rank: int, frames: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            logits = chain(frames, chance).scatter(1, labels[:, None], -torch.inf)
        return margin(frames, labels, logits.topk(rank + 1).indices[:, rank], steps=STEPS)

    return [
        lambda frames, labels: usual(frames, labels, None, steps=STEPS),
        lambda frames, labels: margin(frames, labels, None, steps=LONG_STEPS),
        *(partial(towards, rank) for rank in range(RUNNERS_UP)),
    ]


@torch.inference_mode()
def hard(bundle: Bundle, size: tuple[int, int], count: int) -> Iterator[HardRow]:
    """Hard scenes of one size at each drop ratio, and how often the network is right on them."""
    pictures = scenes(count, size, CONDITIONS["hard"])
    for drop in RATIOS:
        chain = defended(Pipeline(bundle), drop)
        chance = torch.Generator().manual_seed(0)
        right = 0
        for part in _parts(count, size):
            frames, labels = to_frames(pictures.images[part], bundle.device), torch.from_numpy(pictures.labels[part])
            right += int((chain(frames, chance).argmax(1) == labels).sum())
        yield HardRow(bundle.model_id, *size, drop, count, right)


def judged(name: str, sick: Bundle, clean: Bundle, test: LabelledPictures) -> StripRow:
    """STRIP's errors: false rejections by both networks, false acceptances by the backdoored one."""
    poisoning = Poisoning(sticker_patch(), TARGET, RATE)
    stamped = stamped_pictures(test.take(np.flatnonzero(poisoning.attacks(test.labels))), poisoning)
    own = check(Pipeline(clean), test)
    honest = check(Pipeline(sick), test)
    figures: dict[str, Any] = strip_figures(honest, check(Pipeline(sick), stamped))
    return StripRow(
        name, clean.model_id, sick.model_id, len(test), float((own.verdict == own.label).mean()),
        float(own.flagged.mean()), float(own.passes.mean()), float((honest.verdict == honest.label).mean()),
        figures["attack_success"], figures["frr"], figures["far_effective"],
    )  # fmt: skip


def _parts(count: int, size: tuple[int, int]) -> list[slice]:
    step = max(1, min(256, PIXELS // (size[0] * size[1])))
    return [slice(start, start + step) for start in range(0, count, step)]
