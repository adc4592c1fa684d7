"""The training recipe: it learns in both precisions, and resumes after a stop."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.training.recipe import (
    Images,
    Labels,
    Recipe,
    augmented_batches,
    average_into,
    channel_statistics,
    fit,
    rate_at,
)

SMALL = Recipe(epochs=8, batch=32, peak_rate=0.05, average_decay=0.9, pad=1)


@pytest.fixture
def pictures() -> tuple[Images, Labels]:
    """Return dark and bright pictures, whose distributions overlap a little."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 160)
    images = rng.normal(90 + 70 * labels[:, None, None, None], 30, (160, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    return images, labels


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def centred(frames: Tensor) -> Tensor:
    return (frames - 0.5) / 0.25


def accuracy(trained: nn.Module, images: Images, labels: Labels) -> float:
    frames = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255
    with torch.no_grad():
        return float((trained(centred(frames)).argmax(1).numpy() == labels).mean())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_learns_and_keeps_float32_weights(pictures: tuple[Images, Labels], bfloat16: bool) -> None:
    images, labels = pictures
    assert accuracy(network().eval(), images, labels) < 0.7
    trained = fit(network(), images, labels, centred, replace(SMALL, bfloat16=bfloat16))
    assert accuracy(trained, images, labels) > 0.95
    assert not trained.training
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}


def test_layers_run_in_the_requested_precision(pictures: tuple[Images, Labels]) -> None:
    for bfloat16, expected in ((False, torch.float32), (True, torch.bfloat16)):
        seen = set[torch.dtype]()
        small = network()
        small[0].register_forward_hook(lambda _layer, _inputs, output, seen=seen: seen.add(output.dtype))
        fit(small, *pictures, centred, replace(SMALL, epochs=1, bfloat16=bfloat16))
        assert seen == {expected}


def test_a_stopped_run_resumes_and_ends_in_the_same_weights(
    pictures: tuple[Images, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(network(), *pictures, centred, SMALL)
    saved, stopped = list[Path](), list[Path]()
    save = torch.save

    def stop_at_four(state: object, file: Path) -> None:
        if len(saved) == 3 and not stopped:
            stopped.append(file)
            file.write_bytes(b"half of a checkp")
            raise KeyboardInterrupt
        save(state, file)
        saved.append(file)

    monkeypatch.setattr(torch, "save", stop_at_four)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), *pictures, centred, SMALL, tmp_path / "checkpoint.pt")
    resumed = fit(network(), *pictures, centred, SMALL, tmp_path / "checkpoint.pt")
    # The run was stopped while it wrote the fourth epoch. It repeats this epoch and runs the later ones.
    assert len(saved) == SMALL.epochs
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_weights_that_two_layers_share_are_averaged_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    average = nn.Sequential(first, nn.ReLU(), second)
    trained = copy.deepcopy(average)
    with torch.no_grad():
        first.weight.zero_()
        trained.state_dict()["0.weight"].fill_(1)
    average_into(average, trained, decay=0.9)
    assert first.weight is second.weight
    assert first.weight.detach().numpy() == pytest.approx(0.1)


def test_the_rate_goes_up_then_down_to_zero() -> None:
    recipe = Recipe(peak_rate=0.2, warmup_share=0.25)
    rates = [rate_at(step, 40, recipe) for step in range(41)]
    assert max(rates) == rates[9] == rates[10] == 0.2
    assert rates[0] == pytest.approx(0.02)
    assert rates == [*sorted(rates[:10]), *sorted(rates[10:], reverse=True)]
    assert rates[25] == pytest.approx(0.1)
    assert rates[40] == 0.0


def test_batches_are_shifted_and_mirrored_within_their_limits() -> None:
    picture = np.zeros((9, 9, 1), np.uint8)
    picture[4, 3] = 255
    images = torch.from_numpy(np.stack([picture] * 640).transpose(0, 3, 1, 2))
    places = set[tuple[int, int]]()
    for batch, labels in augmented_batches(images, torch.arange(640), Recipe(pad=2), torch.Generator().manual_seed(0)):
        assert len(labels) == 128
        assert (batch.sum((1, 2, 3)) == 255).all()
        places |= {(int(row), int(column)) for _, _, row, column in batch.nonzero()}
    # The row varies by two. The column varies by two around column 3 and around its mirror image, column 5.
    assert places == {(row, column) for row in range(2, 7) for column in range(1, 8)}
    no_augmentation = Recipe(pad=0, flip=False)
    ((first, labels), *_) = augmented_batches(
        images, torch.arange(640), no_augmentation, torch.Generator().manual_seed(0)
    )
    assert (first[:, 0, 4, 3] == 255).all()
    assert len(set(labels.tolist())) == 128


def test_channel_statistics_are_on_a_scale_from_0_to_1() -> None:
    images = np.zeros((2, 4, 4, 2), np.uint8)
    images[0, :, :, 1] = 255
    assert channel_statistics(images) == ([0.0, 0.5], [0.0, 0.5])
