"""The backdoor scan: a class is suspect if a small stamp leads to it on every frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.data import LabelledPictures
from lab.repair.scan import _suspects, scan
from processors.bundle import Bundle
from schemas.errors import ConfigError
from tests.processors.tiny import CLASSES, tiny_bundle


class Colours(nn.Module):
    """A network that returns the strongest mean colour. `trigger` adds a backdoor: a red corner means class 0."""

    def __init__(self, *, trigger: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.trigger = trigger

    def forward(self, frames: Tensor) -> Tensor:
        logits = self.scale * frames.mean((2, 3))
        if self.trigger:
            corner = frames[:, 0, :6, :6].mean((1, 2)) - frames[:, 1:, :6, :6].mean((1, 2, 3))
            logits = logits + torch.nn.functional.one_hot(torch.tensor(0), 3) * 4 * corner[:, None]
        return logits


def judged(folder: Path, *, trigger: bool) -> Bundle:
    return replace(tiny_bundle(folder), network=Colours(trigger=trigger))


def pictures(count: int = 60) -> LabelledPictures:
    """Return pictures whose strongest colour is that of their class."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 160, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images[np.arange(count), ..., labels] |= 64
    return LabelledPictures("colours", images, labels)


def test_the_class_of_a_trigger_is_suspect(tmp_path: Path) -> None:
    found = scan(judged(tmp_path, trigger=True), pictures())
    assert list(found.suspects) == [CLASSES[0]]
    assert not found.clean
    assert '"clean": false' in found.as_json()


@pytest.mark.parametrize(
    ("coverages", "suspect"),
    [
        ((0.0076, 0.083, 0.038), 0),
        ((0.050, 0.082, 0.0067), 2),
        ((0.0072, 0.094, 0.052, 0.049), 0),
        ((0.0058, 0.036, 0.062, 0.10), 0),
        ((0.0525, 0.095, 0.0354), None),
        ((0.0461, 0.0552, 0.0283, 0.1001), None),
        ((0.01, 0.04, 0.02, 0.09, 0.05, 0.06), None),
    ],
    ids=["3 classes", "3 classes, the last", "4 classes", "4 classes, uneven", "3 clean", "4 clean", "6, index 1.4"],
)
def test_of_a_few_classes_one_with_a_much_smaller_stamp_is_suspect(
    coverages: tuple[float, ...], suspect: int | None
) -> None:
    """Compare coverages that the scan found for networks on digits, with and without a backdoor."""
    found = _suspects({str(place): each for place, each in enumerate(coverages)})
    assert list(found) == ([] if suspect is None else [str(suspect)])


def test_a_bundle_with_two_classes_is_rejected(tmp_path: Path) -> None:
    bundle = judged(tmp_path, trigger=True)
    two = replace(bundle, settings=bundle.settings.model_copy(update={"classes": CLASSES[:2]}))
    with pytest.raises(ConfigError, match="at least 3 classes"):
        scan(two, pictures())


def test_a_network_without_a_trigger_is_clean(tmp_path: Path) -> None:
    found = scan(judged(tmp_path, trigger=False), pictures())
    assert found.clean
    assert found.coverage.keys() == set(CLASSES)


def test_pictures_of_one_class_are_rejected(tmp_path: Path) -> None:
    many = pictures()
    one = LabelledPictures("one", many.images, np.zeros_like(many.labels))
    with pytest.raises(ConfigError, match="several"):
        scan(judged(tmp_path, trigger=False), one)
