"""Parts of the attacks: joint minimisations, random points in balls, and rotations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate as scipy_rotate
from scipy.optimize import Bounds, minimize

from lab.attacks.minimisers import Floats, minimise_together
from lab.attacks.norms import into_l2_ball, l2, l2_noise, linf_noise
from lab.attacks.rotation import Rotation, rotate


def valley(point: Floats) -> tuple[float, Floats]:
    """Return the value and the gradient of Rosenbrock's function over pairs of variables.

    Its line searches differ between starts.
    """
    x, y = point[::2], point[1::2]
    bend = y - x**2
    gradient = np.empty_like(point)
    gradient[::2] = -400 * x * bend - 2 * (1 - x)
    gradient[1::2] = 200 * bend
    return float((100 * bend**2 + (1 - x) ** 2).sum()), gradient


def test_joint_minimisations_end_at_the_points_of_single_ones() -> None:
    starts = np.random.default_rng(0).random((5, 6))
    batches: list[int] = []

    def evaluate(rows: list[int], points: Floats) -> tuple[Floats, Floats]:
        batches.append(len(rows))
        values, gradients = zip(*(valley(point) for point in points), strict=True)
        return np.array(values), np.stack(gradients)

    ends = minimise_together(evaluate, starts, bounds=(0.0, 0.9), unit=1.0, iterations=12)

    for start, end in zip(starts, ends, strict=True):
        options = {"maxiter": 12, "ftol": 1e-5, "gtol": 0.0}
        alone = minimize(valley, start, jac=True, method="L-BFGS-B", bounds=Bounds(0, 0.9), options=options)
        np.testing.assert_allclose(end, alone.x, atol=1e-9)
    assert batches[0] == 5  # all at once until the first one ends
    assert len(batches) < sum(batches)


def test_an_error_of_the_function_reaches_the_caller() -> None:
    def broken(rows: list[int], points: Floats) -> tuple[Floats, Floats]:
        raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        minimise_together(broken, np.zeros((3, 2)), bounds=(0.0, 1.0), unit=1.0, iterations=5)


def test_random_starts_fill_their_balls() -> None:
    frames = torch.zeros(400, 3, 2, 2)
    generator = torch.Generator().manual_seed(0)

    cube = linf_noise(frames, 0.2, generator)
    assert cube.abs().max() <= 0.2
    assert cube.mean().abs() < 0.01
    assert abs(cube.std().item() - 0.2 / 3**0.5) < 0.005

    radii = l2(l2_noise(frames, 0.5, generator)) / 0.5
    assert radii.max() <= 1 + 1e-6
    # The share of a 12-dimensional ball within the radius r is r^12.
    assert abs((radii.pow(12) < 0.5).float().mean().item() - 0.5) < 0.08


def test_only_points_outside_the_ball_are_moved() -> None:
    frames = torch.full((2, 1, 2, 2), 0.5)
    change = torch.tensor([0.1, 0.4])[:, None, None, None].expand(2, 1, 2, 2)
    moved = into_l2_ball(frames + change, frames, 0.4)
    torch.testing.assert_close(l2(moved - frames), torch.tensor([0.2, 0.4]))
    torch.testing.assert_close(moved[0], frames[0] + change[0])
    torch.testing.assert_close(into_l2_ball(frames, frames, 0.4), frames)


def test_rotation_agrees_with_scipy() -> None:
    ramp = torch.linspace(0, 1, 17)
    picture = torch.outer(ramp, ramp.sqrt()).expand(1, 1, 17, 17)
    turned = rotate(picture, 10.0)[0, 0]
    expected = scipy_rotate(picture[0, 0].numpy(), 10.0, reshape=False, order=1, mode="reflect")
    np.testing.assert_allclose(turned[3:-3, 3:-3], expected[3:-3, 3:-3], atol=1e-4)


def test_rotation_keeps_angles_in_pictures_that_are_not_square() -> None:
    picture = torch.rand(2, 3, 6, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotate(picture, 0.0), picture)
    torch.testing.assert_close(rotate(picture, 180.0), picture.flip(2, 3), atol=1e-5, rtol=1e-5)
    disc = torch.zeros(1, 1, 21, 41)
    rows, columns = torch.meshgrid(torch.arange(21) - 10, torch.arange(41) - 20, indexing="ij")
    disc[0, 0] = torch.exp(-(rows**2 + columns**2) / 30)
    torch.testing.assert_close(rotate(disc, 30.0)[..., 4:-4, 8:-8], disc[..., 4:-4, 8:-8], atol=0.02, rtol=0)


@pytest.mark.parametrize("target", [None, 2])
def test_the_rotation_attack_takes_the_angle_with_the_largest_margin(target: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    frames, weights = torch.rand(4, 1, 9, 9, generator=generator), torch.randn(3, 81, generator=generator)
    labels = torch.zeros(4, dtype=torch.int64)

    def logits(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1) @ weights.T

    def margin(pictures: torch.Tensor) -> torch.Tensor:
        scores = logits(pictures)
        return scores[:, 1:].amax(1) - scores[:, 0] if target is None else scores[:, 2] - scores[:, :2].amax(1)

    targets = None if target is None else torch.full((4,), target)
    adversarial = Rotation(12.0)(logits, frames, labels, targets, generator)

    every = torch.stack([margin(rotate(frames, angle)) for angle in torch.linspace(-12, 12, 13).tolist()])
    torch.testing.assert_close(margin(adversarial), every.amax(0))
