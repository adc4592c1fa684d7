"""A model's results on clean and on stamped pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lab.backdoor.poison import Poisoning
from lab.data import LabelledPictures
from processors.bundle import Bundle


class Outcome(NamedTuple):
    """Clean accuracy; share of stamped pictures that get the attacker's class; accuracy on these."""

    clean_accuracy: float
    attack_success: float
    recovered_accuracy: float


@torch.inference_mode()
def class_ids(bundle: Bundle, pictures: LabelledPictures) -> NDArray[np.int64]:
    """Return the class (N,) of each picture by the bundle alone."""
    found = [bundle.logits(bundle.prepare(frames)).argmax(1) for frames, _ in pictures.batches(bundle.device)]
    return torch.cat(found).cpu().numpy()


def outcome(bundle: Bundle, clean: LabelledPictures, stamped: LabelledPictures, poisoning: Poisoning) -> Outcome:
    """Return the outcome of `bundle` on clean test pictures and on stamped ones, whose labels are the true classes."""
    on_clean, on_stamped = class_ids(bundle, clean), class_ids(bundle, stamped)
    return Outcome(
        float((on_clean == clean.labels).mean()),
        float((on_stamped == poisoning.aims(stamped.labels)).mean()),
        float((on_stamped == stamped.labels).mean()),
    )
