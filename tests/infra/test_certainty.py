"""Temperature and limit of `unsure`, calibrated with and without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from infra.bundling.certainty import RIGHT, by_agreement, by_labels, calibrate_certainty
from infra.bundling.gallery import UNKNOWN
from lab.data import LabelledPictures, to_frames
from lab.masks import random_masks
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from tests.processors.tiny import CLASSES as TINY_CLASSES
from tests.processors.tiny import picture, tiny_bundle

CLASSES = 10


def draw(count: int, factor: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits (count, 10) and labels (count,) drawn from the softmax of the logits divided by `factor`."""
    generator = torch.Generator().manual_seed(seed)
    true = 2.5 * torch.randn(count, CLASSES, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    return factor * true, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_labels_recover_the_temperature_of_the_logits(factor: float) -> None:
    logits, labels = draw(4000, factor)
    right = torch.nn.functional.one_hot(labels, CLASSES).bool()
    found = by_labels(logits, right, None)
    assert found.temperature == pytest.approx(factor, rel=0.15)
    assert found.right >= RIGHT
    named = (logits / found.temperature).softmax(1).amax(1) >= found.unsure_below
    fresh, answers = draw(4000, factor, seed=1)
    confidence, best = (fresh / found.temperature).softmax(1).max(1)
    sure = confidence >= found.unsure_below
    assert float(named.float().mean()) == pytest.approx(found.named)
    assert float((best == answers)[sure].float().mean()) > RIGHT - 0.05


@pytest.mark.parametrize(("factor", "temperature"), [(500.0, 8.0), (0.01, 0.25)])
def test_a_network_beyond_the_temperatures_gets_the_nearest_as_a_plain_number(
    factor: float, temperature: float
) -> None:
    # model.toml takes no numpy number.
    labels = torch.arange(200) % 4
    right = torch.nn.functional.one_hot(labels, 4).bool()
    found = by_labels(
        factor * right + torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * factor / 40, right, None
    )
    assert found.temperature == temperature
    assert type(found.temperature) is float


def test_a_network_that_is_right_by_chance_never_names_a_class() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(500, CLASSES, generator=generator)
    right = torch.nn.functional.one_hot(torch.randint(0, CLASSES, (500,), generator=generator), CLASSES).bool()
    found = by_labels(logits, right, None)
    assert (found.unsure_below, found.named) == (1.0, 0.0)
    assert found.temperature > 2


def test_a_group_is_named_if_its_classes_are_confused() -> None:
    """Use two classes that the network confuses: neither is certain, and their group is."""
    labels = torch.arange(400) % 2
    logits = torch.full((400, 4), -9.0)
    logits[:, :2] = 0.01 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(labels, 4).bool()
    assert by_labels(logits, right, None).named == 0
    found = by_labels(logits, right, torch.tensor([[1.0], [1.0], [0.0], [0.0]]))
    assert found.named == 1.0
    assert found.right >= RIGHT
    assert 0.5 < found.unsure_below <= 1


def test_without_labels_the_confidence_is_the_agreement_of_views() -> None:
    """Flip the verdict in two of five pictures: the confidence falls to this agreement."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(1000, CLASSES)
    best = torch.randint(0, CLASSES, (1000,), generator=generator)
    logits[torch.arange(1000), best] = 20.0
    views = []
    for _ in range(3):
        moved = torch.where(torch.rand(1000, generator=generator) < 0.4, (best + 1) % CLASSES, best)
        views.append(20.0 * torch.nn.functional.one_hot(moved, CLASSES).float())
    found = by_agreement(logits, views, None)
    assert float((logits / found.temperature).softmax(1).amax(1).mean()) == pytest.approx(0.6, abs=0.08)
    assert found.named == 0  # no limit separates verdicts that are equally certain
    assert by_agreement(logits, [logits, logits], None).right == 1.0


@pytest.mark.parametrize("labelled", [False, True])
def test_pictures_calibrate_a_bundle_with_and_without_labels(tmp_path: Path, labelled: bool) -> None:
    bundle = tiny_bundle(tmp_path)
    images = np.stack([picture(seed) for seed in range(48)])
    labels = np.arange(48, dtype=np.int64) % len(TINY_CLASSES) if labelled else np.full(48, UNKNOWN, np.int64)
    found = calibrate_certainty(bundle, LabelledPictures("own", images, labels))
    assert 0.25 <= found.temperature <= 8
    assert 0 < found.unsure_below <= 1
    assert found.named == 0 or found.right >= RIGHT


def test_named_verdicts_are_right_behind_the_usual_drop(tmp_path: Path) -> None:
    """Use a network that separates rough pictures from smooth ones: rebuilt pictures are smoother than whole ones."""

    def network(frames: Tensor) -> Tensor:
        roughness = 20 * (frames.diff(dim=3).abs().mean((1, 2, 3)) - 0.5)
        return torch.stack([roughness, -roughness, *[torch.full_like(roughness, -99.0)] * (len(TINY_CLASSES) - 2)], 1)

    bundle = replace(tiny_bundle(tmp_path), network=network)
    draws = np.random.default_rng(0)
    noise = draws.integers(-100, 101, (400, 32, 32, 3)) * draws.uniform(0.3, 0.7, (400, 1, 1, 1))
    images = (128 + noise).astype(np.uint8)
    whole = to_frames(images, bundle.device)
    labels = bundle.logits(whole).argmax(1)
    found = calibrate_certainty(bundle, LabelledPictures("noise", images, labels.numpy()))
    kept = random_masks(len(whole), 32, 32, 0.25, torch.Generator().manual_seed(1))
    logits = Pipeline(bundle).logits(drop(whole, kept), kept)
    confidence, best = (logits / found.temperature).softmax(1).max(1)
    named = confidence >= found.unsure_below
    assert found.named == pytest.approx(float(named.float().mean()), abs=0.05)
    assert float((best == labels)[named].float().mean()) > RIGHT - 0.05
