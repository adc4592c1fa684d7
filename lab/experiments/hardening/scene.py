"""Measurements of the fleet's hardened network next to the plain one.

Held-out scenes of 32 to 1,080 lines go through the pixel drop. Usual scenes are attacked by EOT-PGD that knows all but
the key, at the frame's own size, and sent ten times. Hard scenes (dark, noisy, blurred and small, as in
`lab.experiments.scale.measure`) only go through the drop. STRIP gets whole scenes, clean and with the sticker of the
drills. For each network, the attacker fine-tunes the network itself on scenes with the sticker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch

from lab.attacks import to_8_bits
from lab.attacks.defences import defended
from lab.attacks.eot import eot_pgd
from lab.attacks.resubmission import shown
from lab.backdoor.catalogue import sticker_patch
from lab.backdoor.files import stamped_pictures
from lab.backdoor.poison import Poisoning
from lab.backdoor.scene import RATE, TARGET
from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening.rows import HardRow, SceneRow, StripRow
from lab.experiments.scale.measure import CONDITIONS, RATIOS, scenes
from lab.strip.measure import check, strip_figures
from processors.bundle import Bundle
from processors.pipeline import Pipeline

EPS: Final = 0.03
DROP: Final = 0.25
STEPS: Final = 20
SAMPLES: Final = 4
TIMES: Final = 10
PIXELS: Final = 2**18
"""Pixels of a batch, unless one frame has more."""
SIZES: Final = {(32, 32): 500, (64, 64): 500, (240, 320): 150, (480, 640): 60, (1080, 1920): 20}
"""Height and width, and how many frames are attacked."""
ADAPTED: Final = tuple(
    (kind, eps, size)
    for size in ((32, 32), (480, 640))
    for kind, eps in (
        ("hard", 0.03), ("dim", 0.03), ("usual", 0.0627), ("hard", 0.0627), ("dim", 0.0627), ("usual", 0.02),
        ("usual", 0.04), ("usual", 0.08), ("hard", 0.02), ("dim", 0.02),
    )
)  # fmt: skip
"""Kinds of scenes, bounds and sizes beyond the usual scenes at `EPS`, the most telling first."""
ADAPTED_FRAMES: Final = 300
HARD_SIZES: Final = {(32, 32): 1000, (64, 64): 1000, (240, 320): 300, (480, 640): 120, (1080, 1920): 30}
STRIP_SCENES: Final = 3_000
FIRST_TEST_CAMERA: Final = 900_000
"""First camera of the scenes for STRIP, beyond those of every training."""


def attacked(bundle: Bundle, size: tuple[int, int], count: int, kind: str = "usual", eps: float = EPS) -> SceneRow:
    """Scenes of one size and kind, clean and under the attack."""
    begun = time.monotonic()
    pictures = scenes(count, size, CONDITIONS[kind])
    chain = defended(Pipeline(bundle), DROP)
    chance = torch.Generator().manual_seed(0)
    clean, answers = [], []
    for part in _parts(count, size):
        frames, labels = to_frames(pictures.images[part], bundle.device), torch.from_numpy(pictures.labels[part])
        clean.append(shown(chain, frames, labels, times=1, generator=chance)[0])
        changed = eot_pgd(chain, frames, labels, None, eps=eps, steps=STEPS, samples=SAMPLES, generator=chance)
        answers.append(shown(chain, to_8_bits(changed), labels, times=TIMES, generator=chance))
    every = torch.cat(answers, 1)
    return SceneRow(
        bundle.model_id, *size, count, float(torch.cat(clean).float().mean()), float(every[0].float().mean()),
        float(every.all(0).float().mean()), time.monotonic() - begun,
    )  # fmt: skip


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
