"""Learned DCT tables: the paper's algorithm 2 against plain loops, and the command `lab learn-table`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from lab.attacks import Logits, make_attack
from lab.dct_table import AT_ONCE, learn_table, most_changed, read_clean, steps_of
from processors.bundle import load_bundle
from processors.stages.preprocess.dct_quantisation import read_table
from schemas.errors import ConfigError
from tests.lab.colour_classifier import coloured_pictures, write_bundle
from tests.lab.conftest import Command

CPU = torch.device("cpu")


@pytest.mark.parametrize("content", ["no zip", "single array", "labels", "shape"])
def test_an_unusable_data_set_is_rejected_in_one_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "cifar10.npz"
    images = np.zeros((3, 8, 8, 3), np.uint8)
    if content == "no zip":
        file.write_bytes(b"PK\x03\x04")
    elif content == "single array":
        with file.open("wb") as stream:
            np.save(stream, images)
    else:
        train_x = images if content == "labels" else images[0, 0]
        np.savez(file, train_x=train_x, train_y=np.arange(len(train_x)))
    with pytest.raises(ConfigError, match="expected"):
        read_clean(file, 2, None)


def test_pictures_of_a_grey_data_set_get_a_channel(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", train_x=np.zeros((3, 8, 8), np.uint8), train_y=np.arange(3))
    assert read_clean(tmp_path / "mnist.npz", 3, 2).images.shape == (2, 8, 8, 1)


def test_pictures_of_a_file_sorted_by_class_are_drawn_from_all_classes(tmp_path: Path) -> None:
    labels = np.arange(60) // 20
    np.savez(tmp_path / "own.npz", images=np.zeros((60, 8, 8, 3), np.uint8), labels=labels)
    assert set(read_clean(tmp_path / "own.npz", 3, 20).labels) == {0, 1, 2}


def by_the_paper(clean: Tensor, attacked: Tensor) -> np.ndarray:
    """Return the table of the paper's algorithm 2, lines 1 to 15, block by block."""
    q_0 = np.zeros((8, 8))
    for image, other in zip(clean.double().numpy(), attacked.double().numpy(), strict=True):
        for channel, changed in zip(image, other, strict=True):
            for y in range(0, channel.shape[0], 8):
                for x in range(0, channel.shape[1], 8):
                    before, after = (
                        scipy.fft.dctn(plane[y : y + 8, x : x + 8], norm="ortho") for plane in (channel, changed)
                    )
                    difference = np.abs(before - after)
                    q_0[np.unravel_index(np.argmax(difference), (8, 8))] += 1
    table: np.ndarray = q_0 / q_0.max() * 80 + 20
    return table


def test_the_table_equals_that_of_the_papers_algorithm() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(5, 3, 16, 24, generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    # Slow changes along the rows are larger, so some coefficients change most more often than others.
    attacked = clean + 0.1 * (noise + noise.cumsum(3))
    steps = steps_of(most_changed(clean, attacked))
    np.testing.assert_allclose(steps, by_the_paper(clean, attacked))
    assert float(steps.min()) >= 20
    assert float(steps.max()) == 100


def test_blocks_that_an_attack_did_not_change_are_not_counted() -> None:
    clean = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    attacked = clean.clone()
    attacked[0, 1, :8, 8:] += 0.1
    counts = most_changed(clean, attacked)
    assert int(counts.sum()) == int(counts[0, 0]) == 1
    with pytest.raises(ConfigError, match="expected adversarial examples, got none"):
        steps_of(most_changed(clean, clean))


class Interrupted:
    """An attack that interrupts the run at its second call, like a kill."""

    name, eps = "fgsm", 0.05

    def __init__(self) -> None:
        self.attack = make_attack("fgsm", 0.05)
        self.calls: list[int] = []
        self.stop = True

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        self.calls.append(len(frames))
        if self.stop and len(self.calls) == 2:
            raise KeyboardInterrupt
        return self.attack(logits, frames, labels, targets, generator)


def test_a_stopped_run_resumes_and_counts_no_picture_twice(tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "bundle"), CPU)
    pictures, attack = coloured_pictures(AT_ONCE * 2 + 10), Interrupted()
    with pytest.raises(KeyboardInterrupt):
        learn_table(bundle, pictures, attack, tmp_path / "progress")
    attack.stop = False
    done: list[int] = []
    learned = learn_table(bundle, pictures, attack, tmp_path / "progress", advance=done.append)
    assert attack.calls == [50, 50, 50, 10]
    assert done == [50, 50, 10]
    at_once = learn_table(bundle, pictures, attack, tmp_path / "other")
    assert torch.equal(learned.counts, at_once.counts)
    assert learned.examples == at_once.examples > 50
    with pytest.raises(ConfigError, match="expected the progress of the same run"):
        learn_table(bundle, pictures, attack, tmp_path / "progress", seed=1)


def test_the_held_out_training_pictures_of_cifar_10_are_read(tmp_path: Path) -> None:
    pictures = coloured_pictures(12).images
    train = np.tile(pictures, (100, 1, 1, 1))
    np.savez(
        tmp_path / "cifar10.npz", train_x=train, train_y=np.arange(1200) % 10, test_x=pictures, test_y=np.zeros(12)
    )
    read = read_clean(tmp_path / "cifar10.npz", 10, 30)
    assert read.labels.tolist() == (np.arange(200, 230) % 10).tolist()
    np.testing.assert_array_equal(read.images, train[200:230])


def test_the_command_writes_a_table_that_a_bundle_can_use(lab: Command, bundle: Path, data: Path) -> None:
    options = ("--bundle", bundle, "--data", data, "--attack", "fgsm", "--eps", 0.05, "--device", "cpu")
    done = lab("learn-table", *options, "--out", bundle / "table.txt").success()
    assert 'stage = "dct-quantisation"\ntable = "table.txt"' in done.out
    assert float(read_table(bundle / "table.txt").max()) == 100
    assert sorted(file.name for file in bundle.iterdir()) == ["model.toml", "table.txt", "weights.safetensors"]
    link = bundle.parent / "link.txt"
    link.symlink_to(bundle / "table.txt")
    before = (bundle / "table.txt").stat().st_ino
    lab("learn-table", *options, "--out", link).success()
    assert link.is_symlink()
    assert (bundle / "table.txt").stat().st_ino != before
    with (bundle / "model.toml").open("a") as settings:
        settings.write('[[preprocess]]\nstage = "dct-quantisation"\ntable = "table.txt"\n')
    assert [stage.name for stage in load_bundle(bundle, CPU).stages] == ["dct-quantisation"]
