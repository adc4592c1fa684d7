"""The evaluation of a bundle: shares and PSNR on clean and attacked pictures, and the files of pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.attacks import Logits
from lab.data import LabelledPictures, read_cifar10_test, read_pictures, to_frames, to_images
from lab.restoration.evaluate import Evaluation, evaluate
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from tests.lab.colour_classifier import coloured_pictures, write_bundle

CPU = torch.device("cpu")


@dataclass
class Shifted:
    """An attack that adds fixed amounts to the channels of every frame."""

    amounts: tuple[float, float, float]
    name: str = "shifted"
    eps: float | None = None

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        return (frames + torch.tensor(self.amounts)[:, None, None] / 255).clamp(0, 1)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(load_bundle(write_bundle(tmp_path_factory.mktemp("colours")), CPU), "paper")


def test_the_shares_of_the_document_are_counted_from_the_outcomes() -> None:
    outcomes = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 0]], np.bool_)
    numbers = np.array([30.0, 32.0, 34.0, 36.0])
    undefended, plain, rebuilt, denoised = outcomes
    psnr, linf, l2 = (numbers, numbers - 1), numbers / 1000, numbers / 100
    found = Evaluation(True, undefended, plain, rebuilt, denoised, *psnr, linf, l2, seconds=2.0).as_dict()
    assert found["images"] == 4
    assert found["correct_undefended"] == 3
    assert found["attacked_undefended"] == pytest.approx(1 / 3)
    assert found["accuracy"] == {"plain": 0.25, "reconstructed": 0.75, "denoised": 0.5}
    assert found["relative_accuracy"] == pytest.approx(2 / 3)
    assert found["restored"] == pytest.approx(1 / 2)
    assert found["psnr_db"] == 33
    assert found["psnr_denoised_db"] == 32
    assert found["frames_per_second"] == 2
    json.dumps(found, allow_nan=False)


def test_the_relative_accuracy_counts_pictures_that_the_bare_network_gets_right(pipeline: Pipeline) -> None:
    right = coloured_pictures(20)
    labels = right.labels.copy()
    labels[:5] = (labels[:5] + 1) % 3
    found = evaluate(pipeline, LabelledPictures("some wrong", right.images, labels), drop_ratio=0.25).as_dict()
    assert found["correct_undefended"] == 15
    assert found["accuracy"] == {"plain": 0.75, "reconstructed": 0.75, "denoised": 0.75}
    assert found["relative_accuracy"] == 1
    assert found["attacked_undefended"] == 1
    assert found["restored"] is None


def test_the_share_restored_counts_pictures_on_which_the_attack_breaks_the_bare_network(pipeline: Pipeline) -> None:
    pictures = coloured_pictures(30, lead=3)
    found = evaluate(pipeline, pictures, drop_ratio=0.25, attack=Shifted((9, 0, 0)))
    red = pictures.labels == 0
    np.testing.assert_array_equal(found.undefended, True)
    np.testing.assert_array_equal(found.plain, red)
    document = found.as_dict()
    assert document["broken_by_the_attack"] == int((~red).sum())
    assert document["restored"] == pytest.approx(found.denoised[~red].mean())
    assert document["linf"] == pytest.approx(9 / 255, rel=1e-5)


def test_changes_of_less_than_half_a_level_are_rounded_away_before_the_drop(pipeline: Pipeline) -> None:
    found = evaluate(pipeline, coloured_pictures(8), drop_ratio=0.5, attack=Shifted((0.4, -0.4, 0.4)))
    assert found.linf.max() == 0


def test_a_drop_ratio_of_zero_leaves_the_picture_unchanged(pipeline: Pipeline) -> None:
    found = evaluate(pipeline, coloured_pictures(10), drop_ratio=0.0)
    assert found.psnr.tolist() == [100.0] * 10
    np.testing.assert_array_equal(found.reconstructed, found.plain)


def test_grey_pictures_and_other_sizes_are_adapted_by_the_bundles_policy(pipeline: Pipeline) -> None:
    grey = LabelledPictures("grey", np.full((3, 20, 30, 1), 90, np.uint8), np.zeros(3, np.int64))
    assert evaluate(pipeline, grey, drop_ratio=0.25).as_dict()["images"] == 3


def test_to_images_is_the_inverse_of_to_frames() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    frames = to_frames(images, CPU)
    assert frames.shape == (4, 3, 5, 6)
    np.testing.assert_array_equal(to_images(frames), images)


def test_grey_pictures_get_a_channel_and_a_limit_keeps_the_first_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 6), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=images, labels=np.arange(9, dtype=np.uint8))
    found = read_pictures(tmp_path / "grey.npz", 9, 4)
    assert found.images.shape == (4, 5, 6, 1)
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.labels.dtype == np.int64


IMAGES, LABELS = np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"images": IMAGES}, "expected the arrays images and labels, got images"),
        ({"images": IMAGES.astype(np.float32), "labels": LABELS}, r"uint8, got float32 \(4, 8, 8, 3\)"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "1 or 3"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, r"got uint8 \(8, 3\)"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "sides from 1"),
        ({"images": IMAGES, "labels": LABELS[:3]}, r"expected labels \(4,\)"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "integer type"),
        ({"images": IMAGES, "labels": LABELS + 3}, "labels from 0 to 2, the network's classes, got 3"),
        ({"images": IMAGES, "labels": LABELS - 1}, "got -1"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one image"),
        ({"images": IMAGES, "labels": np.array([None] * 4)}, "no pickles"),
    ],
)
def test_invalid_pictures_and_labels_are_rejected_in_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]  # none of them is called allow_pickle
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_pictures(tmp_path / "data.npz", 3)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_npz_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", IMAGES)
    np.savez(tmp_path / "cut.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:200])
    for name in ("text.npz", "one.npy", "cut.npz", "absent.npz"):
        with pytest.raises(ConfigError, match=name):
            read_pictures(tmp_path / name, 3)


def test_the_error_for_a_missing_data_folder_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="POINTILLIST_DATA"):
        read_cifar10_test(None, 10)
