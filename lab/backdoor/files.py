"""The picture files of a backdoored model, as detection and repair read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lab.backdoor.poison import Poisoning
from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.training.bundle import clean_entropies
from processors.bundle import Bundle


def write_npz(file: Path, pictures: LabelledPictures) -> None:
    """Write `images` (N, H, W, C) uint8 and `labels` (N,)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, images=pictures.images, labels=pictures.labels)


def write_quarantine(folder: Path, pictures: LabelledPictures) -> None:
    """Write each picture as a PNG, as the recorder stores flagged frames. Earlier PNGs are deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for number, picture in enumerate(pictures.images):
        shown = picture[..., 0] if picture.shape[2] == 1 else picture
        Image.fromarray(shown).save(folder / f"{number:04}.png")


def stamped_pictures(pictures: LabelledPictures, poisoning: Poisoning, first_key: int = 10**6) -> LabelledPictures:
    """Return all `pictures` with the trigger and their true labels. Their keys are not those of training pictures."""
    keys = np.arange(first_key, first_key + len(pictures))
    return LabelledPictures(f"{pictures.name}, stamped", poisoning.trigger(pictures.images, keys), pictures.labels)


def stamped_test(task: Task, poisoning: Poisoning) -> LabelledPictures:
    """Return the test pictures whose class the attacker wants to change, with the trigger and their true labels."""
    return stamped_pictures(task.test.take(np.flatnonzero(poisoning.attacks(task.test.labels))), poisoning)


def flagged_stream(task: Task, poisoning: Poisoning, bundle: Bundle) -> LabelledPictures:
    """Return the stamped pictures of the defender's stream that STRIP flags with the bundle's threshold."""
    stream = task.stream
    if poisoning.sources:
        stream = stream.take(np.flatnonzero(poisoning.attacks(stream.labels)))
    stamped = stamped_pictures(stream, poisoning, first_key=2 * 10**6)
    strip = bundle.settings.strip
    assert strip is not None
    return stamped.take(np.flatnonzero(clean_entropies(bundle, stamped.images) < strip.threshold_bits))


def write_pictures(folder: Path, task: Task, poisoning: Poisoning, bundle: Bundle) -> LabelledPictures:
    """Write clean.npz, quarantine/, quarantine.npz, test-clean.npz and test-poisoned.npz. Return the last."""
    poisoned = stamped_test(task, poisoning)
    flagged = flagged_stream(task, poisoning, bundle)
    write_npz(folder / "clean.npz", task.valid)
    write_npz(folder / "test-clean.npz", task.test)
    write_npz(folder / "test-poisoned.npz", poisoned)
    write_npz(folder / "quarantine.npz", flagged)
    write_quarantine(folder / "quarantine", flagged)
    return poisoned
