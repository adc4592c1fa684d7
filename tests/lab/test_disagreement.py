"""Drop disagreement: a label that changes under drops has low agreement, and each picture has its own masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.data import LabelledPictures
from lab.experiments.codefend.detectors import area
from lab.strip.disagreement import agreements
from processors.pipeline import Pipeline
from processors.stages.disagreement import drop_agreement, drop_masks, repeated
from schemas.errors import StageError
from tests.lab.nonrobust_network import nonrobust_bundle, pictures


def test_agreement_is_the_mean_probability_of_the_first_label() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]], [[9.0, -9.0], [9.0, -9.0]]])
    torch.testing.assert_close(
        drop_agreement(torch.tensor([1, 1]), logits), torch.tensor([0.625, 0.0]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3), (1, 4, 3)])
def test_verdicts_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match="verdicts: expected"):
        drop_agreement(torch.tensor([0, 1]), torch.zeros(shape))


def test_the_repetitions_of_a_frame_are_consecutive() -> None:
    frames = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    assert repeated(frames, 3)[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_agreement_lies_in_0_to_1_and_ignores_the_true_labels() -> None:
    pipeline, some = Pipeline(nonrobust_bundle()), pictures(12, seed=4)
    together = agreements(pipeline, some)
    assert together.shape == (12,)
    assert bool(((together >= 0) & (together <= 1)).all())
    mirrored = agreements(pipeline, LabelledPictures("same", some.images, 1 - some.labels))
    np.testing.assert_array_equal(together, mirrored)


def test_a_label_that_changes_under_all_drops_has_low_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, some = Pipeline(nonrobust_bundle()), pictures(8, seed=4)
    kept = agreements(pipeline, some)
    original = pipeline.rebuild

    def flipped(frames: Tensor, masks: Tensor) -> Tensor:
        return 1 - original(frames, masks)

    monkeypatch.setattr(pipeline, "rebuild", flipped)
    assert agreements(pipeline, some).mean() < 0.3 < 0.7 < kept.mean()


def test_a_frame_gets_ten_masks_from_its_seed_that_drop_half_of_each_block() -> None:
    seeds = np.array([[1, 2], [1, 200]], dtype=np.uint64)
    masks = drop_masks(seeds, 16, 24)
    assert masks.shape == (20, 1, 16, 24)
    assert set(masks.view(20, 2, 8, 3, 8).sum((2, 4)).flatten().tolist()) == {32}
    assert len({each.numpy().tobytes() for each in masks}) == 20
    torch.testing.assert_close(drop_masks(seeds[1:], 16, 24), masks[10:])


def test_the_area_under_the_curve_counts_ties_as_half() -> None:
    assert area(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx((1 + 0.75) / 2)
    assert area(np.array([]), np.array([1.0])) == 0
