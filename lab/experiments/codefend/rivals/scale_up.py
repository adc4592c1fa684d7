"""SCALE-UP (Guo et al. 2023): a label that an attacker planted holds while the pixels are multiplied.

The paper counts how often the label holds. With five factors, ties hide all differences at few false alarms. Therefore
the log-odds of the label are averaged here, as for scaled batch norms.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.strip.calibrate import whole_input
from processors.pipeline import Pipeline
from processors.stages.scaled_norms import doubt, label_odds

FACTORS: Final = (3, 5, 7, 9, 11)


@torch.inference_mode()
def scaled_doubts(pipeline: Pipeline, pictures: LabelledPictures) -> NDArray[np.float64]:
    """Return the doubt (n,) in the labels of whole pictures: low for a label that holds on brighter pictures."""
    bundle, found = pipeline.bundle, []
    for frames, _ in pictures.batches(bundle.device):
        inputs = whole_input(pipeline, frames)
        labels = bundle.logits(inputs).argmax(1)
        odds = [label_odds(bundle.logits((each * inputs).clamp_max(1)).double(), labels) for each in FACTORS]
        found.append(doubt(torch.stack(odds).mean(0)))
    return torch.cat(found).cpu().numpy()
