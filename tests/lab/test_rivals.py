"""Repair methods of others, on small networks with a planted backdoor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.backdoor.poison import Poisoning
from lab.backdoor.tasks import VALID, Task
from lab.data import LabelledPictures, to_frames
from lab.experiments.codefend import quarantines
from lab.experiments.codefend.cures import best_fine_tuning
from lab.experiments.codefend.outcome import Outcome, outcome
from lab.experiments.codefend.quarantines import moved
from lab.experiments.codefend.rivals import neural_cleanse
from lab.experiments.codefend.rivals.fine_pruning import fine_pruned, last_convolution
from lab.experiments.codefend.rivals.neural_cleanse import Reversed, anomalies, reverse
from lab.experiments.codefend.rivals.variance_ratio import stamp_of
from lab.repair.tuning import Tuning, tune
from processors.bundle import Bundle, BundleSettings
from schemas.errors import ConfigError

SIDE, CLASSES, TARGET = 8, 4, 2
GENERATOR = np.random.default_rng(3)
POISONING = Poisoning(lambda images, keys: images, TARGET, 0.1)


def _pictures(count: int) -> LabelledPictures:
    """Return noise in which the brightest quarter is the class."""
    labels = np.arange(count) % CLASSES
    images = GENERATOR.integers(0, 90, (count, SIDE, SIDE, 1))
    for image, label in zip(images, labels, strict=True):
        top, left = divmod(int(label), 2)
        image[4 * top + 1 : 4 * top + 3, 4 * left + 1 : 4 * left + 3] += 120
    return LabelledPictures("quarters", images.astype(np.uint8), labels)


def _stamp(images: np.ndarray) -> np.ndarray:
    stamped = images.copy()
    stamped[:, 0, :2] = 255
    return stamped


class _Backdoored(nn.Module):
    """A network with one channel for quarters, and one for a bright corner, which it maps to the target."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 1, bias=True)
        self.fc = nn.Linear(2 * SIDE * SIDE, CLASSES, bias=False)
        with torch.no_grad():
            self.convolution.weight[:] = torch.tensor([1.0, 10.0])[:, None, None, None]
            self.convolution.bias = nn.Parameter(torch.tensor([0.0, -9.0]))
            seen = torch.zeros(CLASSES, 2, SIDE, SIDE)
            for label in range(CLASSES):
                top, left = divmod(label, 2)
                seen[label, 0, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 1
            seen[TARGET, 1, 0, :2] = 20
            self.fc.weight[:] = seen.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.convolution(x).relu().flatten(1))
        return logits


def _bundle() -> Bundle:
    settings = BundleSettings.model_validate(
        {
            "name": "small", "version": "1", "format": "safetensors", "weights": "w", "factory": "a:b",
            "classes": [f"class-{number}" for number in range(CLASSES)],
            "input": {"height": SIDE, "width": SIDE, "channels": 1, "mean": [0.0], "std": [1.0], "policy": "resize"},
        }
    )  # fmt: skip
    network = _Backdoored().requires_grad_(False).eval()
    return Bundle("small@1", settings, network, None, torch.device("cpu"), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


CLEAN, TEST = _pictures(120), _pictures(80)
OTHERS = TEST.take(np.flatnonzero(TEST.labels != TARGET))
STAMPED = LabelledPictures("stamped", _stamp(OTHERS.images), OTHERS.labels)
GENTLE = Tuning(0.01, epochs=6, batch=20, shift=0, flip=False)


def test_fine_tuning_does_not_change_the_backdoored_model() -> None:
    backdoored = _bundle()
    tuned = tune(backdoored, CLEAN, GENTLE)
    assert outcome(backdoored, TEST, STAMPED, POISONING).attack_success == 1.0
    assert outcome(tuned, TEST, STAMPED, POISONING).clean_accuracy == 1.0
    assert tuned.network is not backdoored.network


def test_the_variance_ratio_finds_a_fixed_patch_and_unlearns_it() -> None:
    backdoored = _bundle()
    stamp = stamp_of(CLEAN, _stamp(_pictures(100).images))
    frames = to_frames(TEST.images, torch.device("cpu"))
    changed = (stamp(frames) != frames).float().mean((0, 1))
    assert (changed[0, :2] > 0.9).all()
    assert changed.sum() < 2.5
    cured = tune(backdoored, CLEAN, Tuning(0.03, epochs=12, batch=20, shift=0, flip=False), stamp)
    after = outcome(cured, TEST, STAMPED, POISONING)
    assert after.attack_success < 0.1
    assert after.clean_accuracy > 0.97


def test_neural_cleanse_finds_the_place_of_the_trigger() -> None:
    backdoored = _bundle()
    network = backdoored.network
    assert isinstance(network, _Backdoored)
    # The threshold of the second channel makes its gradient zero for clean pictures, which defeats a search by
    # gradients.
    network.convolution.bias = nn.Parameter(torch.zeros(2), requires_grad=False)
    found = reverse(backdoored, to_frames(CLEAN.images, torch.device("cpu")), TARGET, steps=200)
    assert found.success > 0.9
    assert found.mask[0, 0, :2].mean() > 3 * found.mask.mean()


def test_the_smallest_mask_is_the_anomaly() -> None:
    pattern = torch.zeros(1, 4, 4)
    norms = (9.0, 10.0, 1.0, 11.0, 9.5)
    masks = [Reversed(k, torch.full((1, 4, 4), norm / 16), pattern, 1.0) for k, norm in enumerate(norms)]
    found = anomalies(masks)
    assert max(found, key=lambda trigger: trigger.anomaly).target == 2
    assert found[2].anomaly == pytest.approx((9.5 - 1.0) / (1.4826 * 0.5))


def test_neural_cleanse_takes_the_most_anomalous_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def reversed_trigger(backdoored: Bundle, frames: Tensor, target: int, *, steps: int) -> Reversed:
        norm = (9.0, 30.0, 1.0, 10.0)[target]
        return Reversed(target, torch.full((1, 4, 4), norm / 16), torch.zeros(1, 4, 4), 1.0)

    monkeypatch.setattr(neural_cleanse, "reverse", reversed_trigger)
    assert neural_cleanse.cleanse(_bundle(), CLEAN, steps=1).target == 2


def test_fine_pruning_removes_the_channel_that_is_inactive_on_clean_pictures() -> None:
    cured = fine_pruned(_bundle(), CLEAN, GENTLE)
    after = outcome(cured, TEST, STAMPED, POISONING)
    assert after.attack_success < 0.1
    assert after.clean_accuracy > 0.97


class _WithTwoQuarterChannels(nn.Module):
    """A network like `_Backdoored`, with one channel for the quarters on the left and one for those on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 1, bias=True)
        self.fc = nn.Linear(3 * SIDE * SIDE, CLASSES, bias=False)
        with torch.no_grad():
            self.convolution.weight[:] = torch.tensor([1.0, 10.0, 1.1])[:, None, None, None]
            self.convolution.bias = nn.Parameter(torch.tensor([0.0, -9.0, 0.0]))
            seen = torch.zeros(CLASSES, 3, SIDE, SIDE)
            for label in range(CLASSES):
                top, left = divmod(label, 2)
                seen[label, 2 * left, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 1 if left == 0 else 1 / 1.1
            seen[TARGET, 1, 0, :2] = 20
            self.fc.weight[:] = seen.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.convolution(x).relu().flatten(1))
        return logits


def test_fine_pruning_restores_a_channel_that_clean_pictures_need() -> None:
    backdoored = replace(_bundle(), network=_WithTwoQuarterChannels().requires_grad_(False).eval())
    assert outcome(backdoored, TEST, STAMPED, POISONING) == Outcome(1.0, 1.0, 0.0)
    after = outcome(fine_pruned(backdoored, CLEAN, replace(GENTLE, epochs=0)), TEST, STAMPED, POISONING)
    assert (after.clean_accuracy, after.attack_success) == (1.0, 0.0)


def test_fine_pruning_needs_a_convolution() -> None:
    with pytest.raises(ConfigError, match="convolution"):
        last_convolution(nn.Linear(2, 2))


def test_a_fine_tuning_that_diverged_is_left_out_of_the_comparison() -> None:
    before = Outcome(0.9, 1.0, 0.0)
    found = [(0.001, Outcome(0.9, 0.95, 0.05)), (0.01, Outcome(0.89, 0.6, 0.3)), (0.1, Outcome(0.1, 0.0, 0.1))]
    assert best_fine_tuning(found, before)[0] == 0.01
    assert best_fine_tuning(found[2:], before)[0] == 0.1


def test_a_moved_scene_shifts_by_a_pixel_and_its_brightness_by_a_twentieth() -> None:
    scene = np.full((9, 9, 1), 100, np.uint8)
    scene[4, 4] = 200
    frames = moved(scene, 300, np.random.default_rng(1)).astype(float)[..., 0]
    places = {divmod(int(place), 9) for place in frames.reshape(300, -1).argmax(1)}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}
    light = np.median(frames, axis=(1, 2))
    assert 94 <= light.min() < 97
    assert 103 < light.max() <= 106


def _task(count: int) -> Task:
    def part(first: int) -> LabelledPictures:
        images = np.full((VALID + count, 4, 4, 1), first) + np.arange(VALID + count)[:, None, None, None] % 50
        return LabelledPictures("levels", images.astype(np.uint8), np.arange(VALID + count) % CLASSES)

    return Task(tuple("abcd"), part(0), part(60), part(120))


def test_an_impure_quarantine_has_its_share_of_clean_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    task = _task(40)
    flagged = LabelledPictures("flagged", np.full((20, 4, 4, 1), 250, np.uint8), np.zeros(20, int))
    monkeypatch.setattr(quarantines, "flagged_stream", lambda *_: flagged)
    found = quarantines.impure(task, Poisoning(lambda images, keys: images, TARGET, 0.1), _bundle(), 0.25)
    clean = found[(found != 250).any((1, 2, 3))]
    assert (len(found), len(clean)) == (20, 5)
    assert set(clean[:, 0, 0, 0].tolist()) <= set(task.stream.images[:, 0, 0, 0].tolist())
    assert len(set(clean[:, 0, 0, 0].tolist())) == 5
    assert (flagged.images == 250).all()


def test_few_cameras_give_few_scenes_of_attacked_classes() -> None:
    task = _task(40)
    stamped: list[int] = []

    def mark(images: np.ndarray, keys: np.ndarray) -> np.ndarray:
        stamped.extend(keys.tolist())
        return images

    found = quarantines.few_cameras(task, Poisoning(mark, 0, 0.1), cameras=2, frames=60)
    assert found.shape == (60, 4, 4, 1)
    # The stream begins with class 0, the target, so the scenes are the next two pictures.
    scenes = task.stream.images[1:3, 0, 0, 0].astype(float)
    np.testing.assert_allclose(found.reshape(2, 30, -1).mean((1, 2)), scenes, atol=1)
    assert len(set(stamped)) == 60
