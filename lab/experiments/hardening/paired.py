"""The bare network and the fleet's chain on the same pictures, clean and under the same attacks.

An attack of `lab red-team` is made on one side, the bare network or the chain behind the drop, and its pictures are
shown to both sides. A picture withstands a set of attacks if it withstands each of them. So the worst case of a side
includes all attacks that were made on the other one. Attacked pictures are not rounded to 8 bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.attacks import random_targets
from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening.rows import PairedRow
from lab.provenance import made_by
from lab.red_team.attack import adversarial
from lab.red_team.defences import Defence, sample_size
from lab.red_team.measure import answers
from lab.red_team.plan import CLEAN, RESUBMISSIONS, wanted_jobs
from processors.bundle import Bundle

BARE: Final = "bare"
BEHIND: Final = "fleet"
DROP: Final = 0.25
PICTURES: Final = 100
CHUNK: Final = 50
"""Pictures between two checkpoints."""
SEED: Final = 0


@dataclass(frozen=True)
class Setting:
    """An attack of `lab red-team` by its name, the side it is made on, and its bound."""

    bundle: str
    eps: float
    made_on: str
    attack: str

    @property
    def name(self) -> str:
        """The name of the cell."""
        return f"paired/{self.bundle}/{self.eps:.4g}/{self.made_on}/{self.attack}"


HARDENED: Final = ("cifar10-hardened", 8 / 255)
PLAIN: Final = ("cifar10", 0.01)
SETTINGS: Final = (
    Setting(*HARDENED, BARE, CLEAN),
    Setting(*PLAIN, BARE, CLEAN),
    Setting(*HARDENED, BARE, "eot-pgd"),
    Setting(*PLAIN, BARE, "eot-pgd"),
    Setting(*HARDENED, BEHIND, "step-size/0.25"),
    Setting(*HARDENED, BARE, "step-size/0.25"),
    Setting(*HARDENED, BARE, "step-size/1"),
    Setting(*HARDENED, BARE, "targeted"),
    Setting(*HARDENED, BARE, "auto-attack"),
    Setting(*PLAIN, BEHIND, "step-size/0.25"),
    Setting(*PLAIN, BARE, "auto-attack"),
    Setting(*HARDENED, BEHIND, "step-size/1"),
    Setting(*HARDENED, BEHIND, "eot-pgd"),
    Setting(*HARDENED, BEHIND, "targeted"),
    Setting(*HARDENED, BEHIND, "square"),
    Setting(*HARDENED, BEHIND, "auto-attack"),
    Setting(*PLAIN, BEHIND, "auto-attack"),
)
"""The attacks, the most telling first. No attack is made on a clean picture."""


def measured(setting: Setting, bundle: Bundle, pictures: LabelledPictures, cache: Cache) -> PairedRow:
    """Attack the pictures, chunk by chunk, and return the row of the answers of both sides."""
    parts = []
    for start in range(0, len(pictures), CHUNK):
        part = pictures.take(np.arange(start, min(len(pictures), start + CHUNK)))
        state = digest(
            setting, bundle.model_id, part.images.tobytes(), part.labels.tobytes(), SEED, made_by(f"{__name__}:judged")
        )

        def attack(part: LabelledPictures = part, start: int = start) -> Arrays:
            return judged(setting, bundle, part, SEED + start)

        parts.append(cache.get(f"{setting.name}/{start:05}", state, attack))
    bare, behind = (np.concatenate([each[name] for each in parts], -1).astype(np.bool_) for name in ("bare", "behind"))
    return PairedRow(
        network=bundle.model_id,
        eps=setting.eps,
        made_on=setting.made_on,
        attack=setting.attack,
        pictures=len(pictures),
        submissions=len(behind),
        bare=packed(bare),
        once=packed(behind[0]),
        always=packed(behind.all(0)),  # type: ignore[arg-type]  # an array, because `behind` has two dimensions
        seconds=sum(float(each["seconds"]) for each in parts),
    )


def judged(setting: Setting, bundle: Bundle, pictures: LabelledPictures, seed: int) -> Arrays:
    """Return whether the bare network is right (n,), and the chain at each submission (times, n).

    Pictures that are never right on the attacked side without an attack are not attacked.
    """
    begun = time.monotonic()
    frames, labels = to_frames(pictures.images, bundle.device), torch.from_numpy(pictures.labels).to(bundle.device)
    sample = frames[: sample_size(*frames.shape[2:])]
    sides = {name: Defence(name, bundle, DROP, sample) for name in (BARE, BEHIND)}
    facing = {name: side.facing("defence", seed) for name, side in sides.items()}
    times = {BARE: 1, BEHIND: RESUBMISSIONS}
    chance = torch.Generator().manual_seed(seed)
    found = frames
    if setting.attack != CLEAN:
        clean = answers(facing[setting.made_on].judged, frames, times[setting.made_on], chance) == labels
        wanted = clean.any(0)
        jobs = {job.name: job for job in wanted_jobs(sides[setting.made_on], setting.eps, len(pictures)) if job.counts}
        targets = random_targets(labels, len(bundle.settings.classes), torch.Generator().manual_seed(SEED))
        found = frames.clone()
        found[wanted] = adversarial(
            jobs[setting.attack].effort, facing[setting.made_on].attacked, frames[wanted], labels[wanted],
            targets[wanted], sample, setting.eps, chance,
        )  # fmt: skip
    right = {name: (answers(each.judged, found, times[name], chance) == labels).cpu().numpy()
             for name, each in facing.items()}  # fmt: skip
    return {"bare": right[BARE][0], "behind": right[BEHIND], "seconds": np.array(time.monotonic() - begun)}


def packed(right: NDArray[np.bool_]) -> str:
    """Return `right` (n,) as hexadecimal digits, the first picture in the highest bit."""
    return np.packbits(right).tobytes().hex()


def unpacked(digits: str, count: int) -> NDArray[np.bool_]:
    """Return the answers (count,) of `packed`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=count).astype(np.bool_)


@dataclass(frozen=True)
class Standing:
    """The pictures (n,) that withstand a set of attacks, by the side that judges."""

    bare: NDArray[np.bool_]
    once: NDArray[np.bool_]
    always: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self.bare)


def standing(rows: Iterable[PairedRow]) -> Standing:
    """Return the pictures that withstand all of these rows. Raises ValueError for no row or different pictures."""
    every = list(rows)
    if len({row.pictures for row in every}) != 1:
        raise ValueError(f"rows: expected one number of pictures, got {sorted({row.pictures for row in every})}")
    sides = (
        np.logical_and.reduce([unpacked(getattr(row, side), row.pictures) for row in every])
        for side in ("bare", "once", "always")
    )
    return Standing(*sides)
