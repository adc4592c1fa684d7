"""Quantisation compared with QuSecNets' equations 1 and 5, and gradients with finite differences."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from processors.stages.preprocess.contract import Place
from processors.stages.preprocess.quantisation import constant_thresholds, quantise, read_parameters, save_parameters
from schemas.errors import BundleError, StageError
from tests.processors.preprocess_rig import smooth_pictures


def equation_1(x: float, thresholds: list[float], z: list[float]) -> float:
    n = len(thresholds) + 1
    return sum(1 / (1 + math.exp(-z_k * (x - t_k))) for t_k, z_k in zip(thresholds, z, strict=True)) / (n - 1)


def place(channels: int = 3, height: int = 4, width: int = 5) -> Place:
    return Place(channels, height, width, torch.device("cpu"), Path)


@pytest.mark.parametrize("levels", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_constant_levels_equal_the_papers_mean_of_sigmoids(levels: int, channels: int) -> None:
    pictures = smooth_pictures(2, channels, 4, 5)
    got = quantise(pictures, constant_thresholds(levels), torch.tensor(20.0))
    thresholds = [k / levels for k in range(1, levels)]
    wanted = [equation_1(float(x), thresholds, [20.0] * len(thresholds)) for x in pictures.flatten()]
    torch.testing.assert_close(got.flatten(), torch.tensor(wanted), atol=1e-6, rtol=1e-5)


def test_each_pixel_may_have_its_own_thresholds() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = smooth_pictures(2, 3, 4, 5)
    thresholds, steepness = (torch.rand(3, 3, 4, 5, generator=generator) * scale + 0.1 for scale in (1, 40))
    got = quantise(pictures, thresholds, steepness)
    for place_of in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)]:
        own = place_of[1:]
        wanted = equation_1(float(pictures[place_of]), thresholds[:, *own].tolist(), steepness[:, *own].tolist())
        assert float(got[place_of]) == pytest.approx(wanted, abs=1e-6)


@given(st.integers(2, 64), st.floats(0.5, 500), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_quantisation_is_monotonic_and_stays_in_range(levels: int, steepness: float, seed: int) -> None:
    values = torch.rand(1, 1, 1, 50, generator=torch.Generator().manual_seed(seed)).sort().values
    got = quantise(values, constant_thresholds(levels), torch.tensor(steepness))
    assert float(got.min()) >= 0
    assert float(got.max()) <= 1
    assert bool((got.diff() >= -1e-6).all())
    torch.testing.assert_close(
        torch.cat([quantise(one[None], constant_thresholds(levels), torch.tensor(steepness)) for one in values]), got
    )


def test_gradients_follow_the_equations() -> None:
    pictures = smooth_pictures(2, 1, 2, 3).double().requires_grad_()
    thresholds = constant_thresholds(4).double().requires_grad_()
    steepness = torch.full((3, 1, 1, 1), 7.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantise, (pictures, thresholds, steepness))
    # Equation 5 for each threshold: −z · y_k (1 − y_k) / (n − 1).
    (by_threshold,) = torch.autograd.grad(quantise(pictures, thresholds, steepness).sum(), thresholds)
    y = torch.sigmoid(7 * (pictures[None] - thresholds[:, None]))
    wanted = (-7 * y * (1 - y) / 3).flatten(1).sum(1)
    torch.testing.assert_close(by_threshold.flatten(), wanted)


def test_thresholds_of_another_shape_than_the_pictures_are_rejected() -> None:
    with pytest.raises(StageError, match="thresholds: expected"):
        quantise(smooth_pictures(1, 3, 4, 5), torch.rand(2, 1, 4, 4), torch.tensor(5.0))


def test_parameters_are_read_as_they_were_saved(tmp_path: Path) -> None:
    thresholds = torch.rand(3, 3, 1, 1, requires_grad=True)
    save_parameters(tmp_path / "tq.safetensors", thresholds, torch.tensor(12.0))
    read = read_parameters(tmp_path / "tq.safetensors", place())
    assert torch.equal(read[0], thresholds.detach())
    assert torch.equal(read[1], torch.full_like(thresholds, 12.0))
    save_parameters(tmp_path / "plain.safetensors", torch.tensor([0.25, 0.75]), torch.tensor([5.0, 50.0]))
    assert read_parameters(tmp_path / "plain.safetensors", place())[0].shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"thresholds": torch.rand(2, 1, 1, 1)}, "expected thresholds and steepness, got thresholds"),
        ({"thresholds": torch.rand(2, 1, 4, 4), "steepness": torch.rand(2, 1, 4, 4)}, r"1 or 3, 1 or 4, 1 or 5\), got"),
        ({"thresholds": torch.rand(2, 1, 1, 1), "steepness": torch.rand(2, 3, 1, 1)}, "a steepness for each"),
        ({"thresholds": torch.rand(2, 1, 1, 1), "steepness": -torch.rand(2, 1, 1, 1)}, "steepness above 0"),
        ({"thresholds": torch.full((2, 1, 1, 1), torch.nan), "steepness": torch.ones(2, 1, 1, 1)}, "finite thresholds"),
    ],
)
def test_wrong_parameters_are_rejected_in_one_line(
    tmp_path: Path, state: dict[str, torch.Tensor], message: str
) -> None:
    save_file(state, tmp_path / "tq.safetensors")
    with pytest.raises(BundleError, match=message) as raised:
        read_parameters(tmp_path / "tq.safetensors", place())
    assert "\n" not in str(raised.value)
