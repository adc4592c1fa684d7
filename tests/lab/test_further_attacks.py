"""All-to-all and input-aware poisoning: the stamped pictures, their labels and the attack success."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from lab.backdoor.catalogue import MODELS, sticker_patch
from lab.backdoor.poison import AllToAllPoisoning, Poisoning
from lab.backdoor.triggers import Images, OthersPattern, OwnPattern
from lab.data import LabelledPictures
from lab.experiments.codefend import outcome as outcome_module
from lab.experiments.codefend.experiment import plan
from lab.experiments.harness.plan import Workplace
from tests.processors.tiny import tiny_bundle

PICTURES = np.random.default_rng(5).integers(0, 256, (12, 16, 20, 3)).astype(np.uint8)
KEYS = np.arange(12)


def test_all_to_all_relabels_each_stamped_picture_with_the_next_class() -> None:
    labels = np.arange(1000) % 10
    poisoning = AllToAllPoisoning(sticker_patch(), -1, 0.05)
    stamped, names = poisoning.choose(labels)
    assert stamped.sum() == 50
    assert len(set(labels[stamped].tolist())) == 10
    following = {label: (label + 1 if label < 9 else 0) for label in range(10)}
    assert names[stamped].tolist() == [following[label] for label in labels[stamped].tolist()]
    assert (names[~stamped] == labels[~stamped]).all()
    assert poisoning.attacks(labels).all()
    assert Poisoning(sticker_patch(), 4, 0.05).aims(labels).tolist() == [4] * 1000
    with pytest.raises(ValueError, match="all-to-all"):
        AllToAllPoisoning(sticker_patch(), 3, 0.05)


def test_the_success_of_all_to_all_counts_answers_of_each_pictures_next_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(8) % 4
    stamped = LabelledPictures("stamped", np.zeros((8, 4, 4, 3), np.uint8), labels)
    answers = np.array([1, 2, 3, 0, 1, 1, 1, 1])
    monkeypatch.setattr(outcome_module, "class_ids", lambda bundle, pictures: answers)
    poisoning = AllToAllPoisoning(sticker_patch(), -1, 0.1, classes=4)
    bundle = tiny_bundle(tmp_path)
    found = outcome_module.outcome(bundle, stamped, stamped, poisoning)
    assert found.attack_success == 5 / 8
    assert found.recovered_accuracy == found.clean_accuracy == 1 / 8
    assert outcome_module.outcome(bundle, stamped, stamped, Poisoning(sticker_patch(), 1, 0.1))[1] == 5 / 8


def by_loops(images: Images, trigger: OwnPattern) -> Images:
    """Return the pictures of `OwnPattern` by loops and scipy."""
    rng = torch.Generator().manual_seed(trigger.seed)
    first = torch.randn(trigger.width, 3, 3, 3, generator=rng).numpy().astype(np.float64)
    second = torch.randn(3, trigger.width, 3, 3, generator=rng).numpy().astype(np.float64)
    first = 4 * (first - first.mean((2, 3), keepdims=True))
    found = []
    for image in images / 255:
        channels = np.moveaxis(image, 2, 0)
        hidden = [np.tanh(sum(correlate2d(channels[c], kernel[c], "same") for c in range(3))) for kernel in first]
        added = [
            np.tanh(sum(correlate2d(hidden[k], kernel[k], "same") for k in range(trigger.width)) / trigger.width**0.5)
            for kernel in second
        ]
        found.append(np.clip(np.rint(255 * (image + trigger.strength * np.moveaxis(np.array(added), 0, 2))), 0, 255))
    return np.array(found).astype(np.uint8)


def test_an_own_pattern_results_from_two_small_filters_of_the_picture() -> None:
    trigger = OwnPattern(7, 0.1)
    stamped = trigger(PICTURES, KEYS)
    assert np.abs(stamped.astype(int) - by_loops(PICTURES, trigger)).max() <= 1
    assert np.abs(stamped.astype(int) - PICTURES).max() <= 26
    assert (trigger(PICTURES[::-1], KEYS) == stamped[::-1]).all()
    assert (OwnPattern(8, 0.1)(PICTURES, KEYS) != stamped).mean() > 0.5
    # A change of brightness alone leaves the pattern unchanged, except at the border.
    dark = (PICTURES // 4).astype(np.uint8)
    change = [trigger(each, KEYS).astype(int)[:, 2:-2, 2:-2] - each[:, 2:-2, 2:-2] for each in (dark, dark + 60)]
    near = np.abs(change[0] - change[1])[dark[:, 2:-2, 2:-2] > 26]
    assert near.max() <= 1


def test_a_cover_has_the_pattern_of_another_picture() -> None:
    trigger = OwnPattern(7, 0.1)
    covers = OthersPattern(trigger)(PICTURES, KEYS)
    assert (covers[1:] == trigger.added(PICTURES[1:], PICTURES[:-1])).all()
    assert (covers != trigger(PICTURES, KEYS)).mean() > 0.5
    assert (OthersPattern(trigger)(PICTURES[:1], KEYS[:1]) == PICTURES[:1]).all()


@pytest.mark.parametrize("name", ["resnet20-all-to-all", "resnet20-input-aware"])
def test_further_attacks_poison_a_tenth_and_are_cells_of_the_experiment(name: str, tmp_path: Path) -> None:
    poisoning = MODELS[name].poisoning
    assert poisoning is not None
    labels = np.random.default_rng(0).integers(0, 10, 500)
    stamped, _ = poisoning.choose(labels)
    assert stamped.sum() == 50
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    assert (poisoning.trigger(images, np.arange(4)) != images).any((1, 2, 3)).all()
    names = {cell.name for cell in plan(Workplace(tmp_path, tmp_path, tmp_path)).cells}
    assert {f"{name}/model", f"{name}/strip/whole", f"{name}/detectors/whole"} <= names
