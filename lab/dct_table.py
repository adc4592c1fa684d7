"""Algorithm 2 of Qiu et al., "An Efficient Preprocessing-based Approach": larger steps where attacks change most.

In every 8×8 block of a channel, the DCT coefficient that an attack has changed most is counted. The table is Q = 80 ·
counts / max + 20, on the scale 0–255. The attack is C&W's, as in the paper. Pictures on which it fails are not
adversarial and are excluded. Unchanged blocks are excluded as well: a tie would count for the first coefficient.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lab.attacks import Attack, random_targets
from lab.cache import digest
from lab.data import LabelledPictures, read_last_training, read_pictures, to_frames
from lab.repair.inputs import at_network_size
from lab.strip.order import shuffled
from processors.bundle import Bundle
from processors.stages.preprocess.blocks import SIDE, coefficients
from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing

LEAST: Final = 20.0
SPAN: Final = 80.0
AT_ONCE: Final = 50
"""Pictures that are attacked together. An interrupted run continues after the last complete group."""
HELD_OUT: Final = 1000
"""The last training pictures of CIFAR-10, on which no network here is trained."""


@dataclass(frozen=True)
class LearnedTable:
    """The result: `steps` (8, 8), `counts` (8, 8) of the most changed coefficients, and the number of `examples`."""

    steps: Tensor
    counts: Tensor
    examples: int


def read_clean(file: Path, classes: int, limit: int | None) -> LabelledPictures:
    """Return `limit` pictures to attack: random ones of `images` with `labels`, or a data set's first held-out ones.

    The first pictures of a file that is sorted by class have one class.

    Raises ConfigError like `read_pictures`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            is_data_set = {"train_x.npy", "train_y.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        is_data_set = False
    if not is_data_set:
        return shuffled(read_pictures(file, classes)).first(limit)
    return read_last_training(file, classes, HELD_OUT).first(limit)


def most_changed(clean: Tensor, attacked: Tensor) -> Tensor:
    """Return how often each coefficient of the blocks of pictures (B, C, H, W) is changed most: (8, 8) int64."""
    change = (coefficients(clean) - coefficients(attacked)).abs().flatten(0, 2)
    touched = change[change.amax(1) > 0]
    return touched.argmax(1).bincount(minlength=SIDE * SIDE).view(SIDE, SIDE).cpu()


def steps_of(counts: Tensor) -> Tensor:
    """Return the table Q (8, 8) from 20 to 100 for these counts. Raises ConfigError if all counts are 0."""
    most = int(counts.max())
    if not most:
        raise ConfigError(
            "learn-table: expected adversarial examples, got none. Try a stronger attack or more pictures."
        )
    return SPAN * counts.double() / most + LEAST


def learn_table(
    bundle: Bundle,
    pictures: LabelledPictures,
    attack: Attack,
    progress: Path,
    *,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> LearnedTable:
    """Attack the bare network on clean pictures, each with a random other class as target, and count.

    Progress is kept in the file `progress`: the same call continues an interrupted run, and no picture counts twice.
    Raises ConfigError if the file holds another run's progress, or if no example was found.
    """
    images = at_network_size(pictures.images, bundle, "pictures")
    made_from = digest(
        bundle.model_id, attack.name, attack.eps, seed, images.shape, images.tobytes(), pictures.labels.tobytes()
    )
    done, examples, counts = _resumed(progress, made_from)
    advance(done)
    bare = bundle.bare
    for start in range(done, len(images), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        frames = to_frames(images[part], bundle.device)
        labels = torch.from_numpy(pictures.labels[part]).to(bundle.device)
        generator = torch.Generator().manual_seed(seed * len(images) + start)
        targets = random_targets(labels, len(bundle.settings.classes), generator)
        attacked = attack(bare.logits, frames, labels, targets, generator).detach()
        with torch.inference_mode():
            found = bare.logits(attacked).argmax(1) == targets
            counts += most_changed(frames[found], attacked[found])
        examples += int(found.sum())
        _keep(progress, made_from, start + len(frames), examples, counts)
        advance(len(frames))
    return LearnedTable(steps_of(counts), counts, examples)


def _resumed(progress: Path, made_from: str) -> tuple[int, int, Tensor]:
    try:
        kept = json.loads(progress.read_text(encoding="utf-8"))
        if kept["made_from"] != made_from:
            raise ConfigError(
                f"{progress}: expected the progress of the same run, got another's. Remove it to begin again."
            )
        return int(kept["done"]), int(kept["examples"]), torch.tensor(kept["counts"])
    except FileNotFoundError:
        return 0, 0, torch.zeros(SIDE, SIDE, dtype=torch.int64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{progress}: expected the progress of an earlier run, got: {error}") from None


def _keep(progress: Path, made_from: str, done: int, examples: int, counts: Tensor) -> None:
    state = {"made_from": made_from, "done": done, "examples": examples, "counts": counts.tolist()}
    with replacing(progress) as fresh:
        fresh.write_text(json.dumps(state), encoding="utf-8")
