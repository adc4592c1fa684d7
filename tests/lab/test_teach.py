"""Teaching: labelled pictures, the choice of the head, and its calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lab.teach.confidence import LARGEST, sharpness_of, unsure_limit
from lab.teach.head import folds_of, held_out_scores, solve, standard_of
from lab.teach.labelled import FEWEST, read_labelled
from lab.teach.report import Held
from lab.teach.views import first_views, varied
from processors.networks.efficientnet_lite import EfficientNetLite0
from processors.networks.taught import LAST, Taught, averaged, contrasted, maps
from schemas.errors import ConfigError


def write_shapes(folder: Path, each: int) -> Path:
    """Write pictures of discs and of bars at varying places, 48×48, in two sub-folders."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :48]
    for name in ("bar", "disc"):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            y, x = rng.integers(16, 32, 2)
            inside = (rows - y) ** 2 + (columns - x) ** 2 < 100 if name == "disc" else abs(rows - y) < 4
            picture = np.where(inside[..., None], (200, 60, 60), (60, 60, 160)) + rng.integers(-20, 20, (48, 48, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


def test_views_that_are_not_mirrored_replace_those_that_are() -> None:
    assert first_views(5, mirrored=True) == [0, 1, 2, 3, 4]
    assert first_views(5, mirrored=False) == [0, 1, 2, 4, 6]


def test_a_class_with_too_few_pictures_is_named(tmp_path: Path) -> None:
    write_shapes(tmp_path, 6)
    for number in range(3):
        (tmp_path / "disc" / f"{number:02d}.png").write_bytes(b"no picture")
    skipped: list[str] = []
    with pytest.raises(ConfigError, match=r"disc: expected at least 5 pictures, got 3\. Label more"):
        read_labelled(tmp_path, lambda name, why: skipped.append(name))
    assert skipped == ["disc/00.png", "disc/01.png", "disc/02.png"]


def test_many_classes_have_the_fewest_pictures_each(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4))
    for number in range(151):
        (tmp_path / f"{number:03d}").mkdir()
        for name in range(7):
            picture.save(tmp_path / f"{number:03d}" / f"{name}.png")
    found = read_labelled(tmp_path)
    assert found.counts().tolist() == [FEWEST] * 151


def test_pictures_in_hidden_folders_are_left_out(tmp_path: Path) -> None:
    write_shapes(tmp_path, 6)
    for folder in (".thumbnails", "morning/.trash", "morning"):
        (tmp_path / "disc" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "disc" / folder / "again.png")
    found = read_labelled(tmp_path)
    assert found.counts().tolist() == [6, 7]
    assert found.files[-1] == "disc/morning/again.png"


def test_a_single_class_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    with pytest.raises(ConfigError, match="expected at least two sub-folders"):
        read_labelled(tmp_path)


@pytest.mark.parametrize(("depth", "contrast"), [(LAST, False), (8, True)])
def test_a_taught_network_reads_the_general_network_at_its_depth(depth: int, contrast: bool) -> None:
    general = EfficientNetLite0().eval()
    taught = Taught(3, depth, 2, contrast).eval()
    state = general.state_dict()
    own = taught.state_dict()
    taught.load_state_dict({name: own[name] if name.startswith("classifier") else state[name] for name in own})
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = maps(general, contrasted(pictures) if contrast else pictures, {depth})[depth]
        expected = taught.classifier(averaged(found, 2))
        torch.testing.assert_close(taught(pictures), expected)
        torch.testing.assert_close(taught.upper(taught.lower(pictures, 3), 3), expected)


def test_contrast_normalisation_ignores_brightness_and_gain() -> None:
    pictures = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(contrasted(pictures * 3 + 1), contrasted(pictures), atol=0.1, rtol=0)


def test_the_dual_head_equals_weighted_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(12, 4, generator=generator).double(), torch.tensor([0] * 8 + [1] * 4)
    dual = rows.T @ solve(rows @ rows.T, labels, 2, 0.5)
    weights = torch.tensor([12 / 16] * 8 + [12 / 8] * 4).double()
    targets = torch.nn.functional.one_hot(labels).double() - 0.5
    weighted = rows.T * weights
    primal = torch.linalg.solve(weighted @ rows + 0.5 * torch.eye(4).double(), weighted @ targets)
    torch.testing.assert_close(dual, primal)


def test_held_out_scores_never_use_the_row_or_its_neighbours() -> None:
    rows = torch.eye(10)
    labels = torch.tensor([0, 1] * 5)
    folds = folds_of(labels.numpy())
    scores = held_out_scores(rows @ rows.T, labels, folds, torch.ones(10, dtype=torch.bool), 2, 1.0)
    # The rows have nothing in common: a row's score comes from itself alone.
    assert not scores.any()


def test_folds_are_contiguous_within_each_class() -> None:
    labels = np.array([0] * 10 + [1] * 5)
    assert folds_of(labels).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 1, 2, 3, 4]


def test_standardised_rows_have_mean_0_and_a_mean_squared_length_of_1() -> None:
    rows = torch.randn(500, 20, generator=torch.Generator().manual_seed(0)) * 3 + 5
    found = standard_of(rows)(rows)
    assert float(found.mean(0).abs().max()) < 1e-5
    assert float(found.square().sum(1).mean()) == pytest.approx(1, rel=0.01)


def test_calibration_finds_the_temperature_of_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator).double() * 3
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert sharpness_of(logits / 20, F.one_hot(labels, 3).bool()).factor == pytest.approx(20, rel=0.15)


def test_few_right_verdicts_give_a_limited_confidence() -> None:
    scores = torch.tensor([[1.0, -1.0]] * 5).double()
    factor = sharpness_of(scores, torch.tensor([[True, False]] * 5)).factor
    assert 0.8 < float((scores * factor).softmax(1)[0, 0]) < 0.9


def test_verdicts_above_the_limit_are_right() -> None:
    confidence = torch.linspace(0.5, 1, 200).double()
    probabilities = torch.stack((confidence, 1 - confidence), 1)
    labels = (torch.arange(200) < 80).long()  # all verdicts below .7 are wrong
    limit = unsure_limit(probabilities, labels)
    sure = confidence >= limit
    assert 0.6 < limit < 0.72
    assert float((labels[sure] == 0).double().mean()) >= 0.95


def test_a_network_that_is_mostly_wrong_is_nearly_always_unsure() -> None:
    probabilities = torch.tensor([[0.9, 0.1]] * 20).double()
    assert unsure_limit(probabilities, torch.ones(20, dtype=torch.int64)) == LARGEST


def test_a_mirrored_view_is_mirrored() -> None:
    frames = torch.zeros(1, 1, 40, 60)
    frames[..., 5:35, 4:20] = 0.8
    found = varied(frames, torch.Generator().manual_seed(3), mirrored=True)
    assert float(found[..., :30].sum()) < float(found[..., 30:].sum()) / 3


def test_the_report_counts_unsure_verdicts_and_names_the_weak_class() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.7, 0.3]] * 6 + [[0.2, 0.8]] * 4)
    labels = np.array([0] * 10 + [1] * 10)
    held = Held(["cat", "dog"], [f"{i}.png" for i in range(20)], labels, probabilities, 0.75)
    assert held.confusion.tolist() == [[10, 0, 0], [0, 4, 6]]
    assert held.right.value == pytest.approx(0.7)
    assert [file for file, *_ in held.worst()] == [f"{i}.png" for i in range(10, 16)]
    needed = held.advice()
    assert "more labels of dog are needed: 4 of 10" in needed[-1]
    assert "reads cat" in needed[-1] or "read cat" in needed[-1]
    assert held.document()["unsure"] == pytest.approx(0.3)
