"""The split of pictures of which several show one sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.backdoor.near_duplicates import SIDE, alike, load_split_task, split_by_sign
from lab.backdoor.tasks import HELD_OUT, Task
from lab.data import LabelledPictures

CLASSES = 3


def frames(signs: int, rng: np.random.Generator) -> tuple[LabelledPictures, np.ndarray]:
    """Return pictures with one to seven frames of each sign, in random order, and their signs (N,)."""
    sign = rng.permutation(np.repeat(np.arange(signs), rng.integers(1, 8, signs)))
    seen = rng.integers(20, 230, (signs, 2 * SIDE, 2 * SIDE, 3))
    images = (seen[sign] + rng.integers(-9, 10, (len(sign), 2 * SIDE, 2 * SIDE, 3))).astype(np.uint8)
    return LabelledPictures("signs", images, (sign % CLASSES).astype(np.int64)), sign


def test_no_sign_is_in_both_parts_and_the_classes_keep_their_shares() -> None:
    pictures, sign = frames(700, np.random.default_rng(3))
    known = {image.tobytes(): number for image, number in zip(pictures.images, sign, strict=True)}
    old = Task(("a", "b", "c"), pictures.first(5), pictures.first(HELD_OUT), pictures.take(np.arange(1000, len(sign))))
    task = split_by_sign(old)
    held_out, test = ([known[image.tobytes()] for image in part.images] for part in (task.held_out, task.test))
    assert len(held_out) == HELD_OUT
    assert sorted(held_out + test) == sorted(sign)
    assert not set(held_out) & set(test)
    for label in range(CLASSES):
        share = (pictures.labels == label).mean()
        assert (task.held_out.labels == label).mean() == pytest.approx(share, abs=0.005)
    assert (task.held_out.labels == np.array(held_out) % CLASSES).all()
    assert split_by_sign(old).state == task.state


def test_pictures_that_are_linked_by_others_are_one_group() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.uniform(0, 200, (2, SIDE, SIDE, 1))
    images = np.array([first, 0.7 * first + 0.3 * last, 0.5 * (first + last), 0.3 * first + 0.7 * last, last])
    assert [each.tolist() for each in alike(images.round().astype(np.uint8))] == [[0, 1, 2, 3, 4]]
    assert [each.tolist() for each in alike(images[[0, 4]].round().astype(np.uint8))] == [[0], [1]]


@pytest.mark.parametrize("name", ["mnist", "gtsrb"])
def test_only_gtsrb_is_split_by_sign(name: str, tmp_path: Path) -> None:
    pictures, _ = frames(1200, np.random.default_rng(1))
    images, labels = pictures.images, pictures.labels
    np.savez(tmp_path / f"{name}.npz", train_x=images, train_y=labels, test_x=images, test_y=labels)
    task = load_split_task(name, tmp_path)
    assert len(task.held_out) == HELD_OUT
    assert (len(task.test) == len(pictures)) is (name == "mnist")
