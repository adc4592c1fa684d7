"""Candidates of an attacked picture for each goal of the attacker, and what showing them again adds.

For each picture the attacker makes a candidate away from its class, and one towards each other class, by EOT-PGD on
margins between logits with momentum. Made through the drop, the candidates are compared before they are shown: the
attacker knows all but the key, so it estimates by draws of its own how often each one succeeds.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks.contract import Defended, margins
from lab.attacks.eot import eot_pgd
from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening.paired import BARE, BEHIND, CHUNK, DROP, SEED, Setting, packed
from lab.experiments.hardening.rows import CandidatesRow, PairedRow
from lab.provenance import made_by
from lab.red_team.defences import Defence, sample_size
from lab.red_team.measure import answers
from lab.red_team.plan import RESUBMISSIONS
from processors.bundle import Bundle

ATTACK: Final = "candidates"
"""The name of the attack in the paired table."""
STEPS: Final = 50
STEP: Final = 0.25
"""Length of a step in ε. Of the lengths that the red team tries, this one left the fewest pictures."""
SAMPLES: Final = {BARE: 1, BEHIND: 4}
"""Draws for each step, by the attacked side."""
MOMENTUM: Final = 0.75
ESTIMATES: Final = 20
"""Draws of the attacker's own, by which it chooses among its candidates."""
SHOWINGS: Final = 100
"""Most showings of the chosen candidate."""


def measured(
    setting: Setting, bundle: Bundle, pictures: LabelledPictures, cache: Cache
) -> tuple[PairedRow, CandidatesRow]:
    """Attack the pictures on one side, chunk by chunk; return the row of both sides, and that of further showings.

    In the first row, a picture withstands if both sides are right at each candidate; behind the drop, at one showing or
    at all of `RESUBMISSIONS`. The second row is of the chain behind the drop.
    """
    parts = []
    for start in range(0, len(pictures), CHUNK):
        part = pictures.take(np.arange(start, min(len(pictures), start + CHUNK)))
        state = digest(setting, bundle.model_id, part.images.tobytes(), part.labels.tobytes(), made_by(__name__))

        def attack(part: LabelledPictures = part, start: int = start) -> Arrays:
            return judged(setting, bundle, part, SEED + start)

        parts.append(cache.get(f"{setting.name}/{start:05}", state, attack))
    bare, each, chosen = (_joined(parts, name) for name in ("bare", "each", "chosen"))
    seconds = sum(float(part["seconds"]) for part in parts)
    count, once, always = len(pictures), _every(each[:, 0]), _every(each.reshape(-1, len(pictures)))
    paired = PairedRow(
        bundle.model_id, setting.eps, setting.made_on, setting.attack, count, each.shape[1], packed(_every(bare)),
        packed(once), packed(always), seconds,
    )  # fmt: skip
    again = CandidatesRow(
        bundle.model_id, setting.eps, count, len(each), packed(chosen[0]), packed(_every(chosen[:RESUBMISSIONS])),
        packed(_every(chosen)), packed(once), packed(always), seconds,
    )  # fmt: skip
    return paired, again


def judged(setting: Setting, bundle: Bundle, pictures: LabelledPictures, seed: int) -> Arrays:
    """Return whether the sides are right (…, n): `bare` at each candidate, and behind the drop at each showing.

    These are the showings of `each` candidate (k, times, n), and of the `chosen` one (showings, n). Pictures that the
    attacked side never gets right without an attack are not attacked, and count as wrong.
    """
    begun = time.monotonic()
    frames, labels = to_frames(pictures.images, bundle.device), torch.from_numpy(pictures.labels).to(bundle.device)
    sample = frames[: sample_size(*frames.shape[2:])]
    facing = {name: Defence(name, bundle, DROP, sample).facing("defence", seed) for name in (BARE, BEHIND)}
    attacked = facing[setting.made_on]
    chance = torch.Generator().manual_seed(seed)
    wanted = (answers(attacked.judged, frames, RESUBMISSIONS, chance) == labels).any(0)
    classes, samples = len(bundle.settings.classes), SAMPLES[setting.made_on]
    made = frames.repeat(classes, 1, 1, 1, 1)
    made[:, wanted] = candidates(
        attacked.attacked, frames[wanted], labels[wanted], classes, setting.eps, samples, chance
    )
    best = made[promising(attacked.attacked, made, labels, chance), torch.arange(len(labels))]

    def right(side: str, shown: Tensor, times: int) -> Tensor:
        return (answers(facing[side].judged, shown, times, chance) == labels) & wanted

    return {
        "bare": torch.cat([right(BARE, one, 1) for one in made]).cpu().numpy(),
        "each": torch.stack([right(BEHIND, one, RESUBMISSIONS) for one in made]).cpu().numpy(),
        "chosen": right(BEHIND, best, SHOWINGS).cpu().numpy(),
        "seconds": np.array(time.monotonic() - begun),
    }


def candidates(
    attacked: Defended, frames: Tensor, labels: Tensor, classes: int, eps: float, samples: int, chance: torch.Generator
) -> Tensor:
    """Return the candidates (classes, B, C, H, W): away from the label, then towards each other class."""
    goals = [None, *((labels + step) % classes for step in range(1, classes))]
    return torch.stack(
        [
            eot_pgd(
                attacked, frames, labels, goal, eps=eps, steps=STEPS, samples=samples, generator=chance, step=STEP,
                momentum=MOMENTUM, margin=True,
            )
            for goal in goals
        ]
    )  # fmt: skip


@torch.inference_mode()
def promising(attacked: Defended, made: Tensor, labels: Tensor, chance: torch.Generator) -> Tensor:
    """Return the candidate (B,) that succeeds most often under the attacker's own draws; of equals, by the margin."""
    scores = []
    for one in made:
        drawn = torch.stack([margins(attacked(one, chance), labels, None) for _ in range(ESTIMATES)])
        scores.append((drawn > 0).float().mean(0) + 1e-3 * drawn.mean(0).tanh())
    return torch.stack(scores).argmax(0)


def _joined(parts: list[Arrays], name: str) -> NDArray[np.bool_]:
    return np.concatenate([part[name] for part in parts], -1).astype(np.bool_)


def _every(right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether all answers (…, n) to a picture are right (n,)."""
    return np.asarray(right.all(0), np.bool_)
