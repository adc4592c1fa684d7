"""Attacks keep their bounds and contracts, and minimising attacks come near distances known in closed form.

For a linear classifier, z = W·x, the nearest adversarial frame of (x, label) is at the distance
min_k (z_label − z_k) / ‖w_label − w_k‖ if no pixel reaches 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks import NAMES, make_attack, random_targets, to_8_bits
from lab.attacks.contract import margins
from schemas.errors import BundleError, ConfigError
from tests.lab.rng import rng

SHAPE = (3, 8, 8)
CLASSES = 4
WITHOUT_GRADIENTS = ("rotation", "square", "hopskipjump")
GRADIENT_ATTACKS = tuple(name for name in NAMES if name not in WITHOUT_GRADIENTS)
TARGETED = tuple(name for name in (*GRADIENT_ATTACKS, "square") if name not in ("deepfool", "autoattack"))


@dataclass(frozen=True)
class LinearClassifier:
    weights: Tensor  # (classes, pixels)

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.flatten(1) @ self.weights.T

    def distances(self, frames: Tensor, labels: Tensor) -> Tensor:
        logits = self(frames)
        gaps = logits.gather(1, labels[:, None]) - logits
        apart = torch.cdist(self.weights, self.weights)[labels]
        return (gaps / apart.clamp_min(1e-9)).scatter(1, labels[:, None], torch.inf).amin(1)


@pytest.fixture(scope="module")
def classifier() -> LinearClassifier:
    weights = torch.randn(CLASSES, 3 * 8 * 8, generator=rng(1))
    return LinearClassifier(weights - weights.mean(1, keepdim=True))  # the mean brightness has no effect


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return 0.25 + 0.5 * torch.rand(12, *SHAPE, generator=rng(2))


@pytest.fixture(scope="module")
def labels(classifier: LinearClassifier, frames: Tensor) -> Tensor:
    return classifier(frames).argmax(1)


@pytest.fixture(scope="module")
def targets(labels: Tensor) -> Tensor:
    return random_targets(labels, CLASSES, rng(3))


def l2(difference: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(difference.flatten(1), dim=1)
    return norms


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hopskipjump"])
def test_an_attack_returns_unrounded_frames_in_range_and_the_same_frames_for_a_seed(
    name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor
) -> None:
    attack = make_attack(name)

    first = attack(classifier, frames, labels, None, rng())
    again = attack(classifier, frames, labels, None, rng())

    assert attack.name == name
    assert first.shape == frames.shape
    assert not first.requires_grad
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, frames)
    assert not torch.equal(first, to_8_bits(first))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", TARGETED)
def test_a_targeted_attack_raises_the_targets_probability(
    name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor, targets: Tensor
) -> None:
    adversarial = make_attack(name)(classifier, frames, labels, targets, rng())

    before = F.cross_entropy(classifier(frames), targets, reduction="none")
    after = F.cross_entropy(classifier(adversarial), targets, reduction="none")
    assert (after < before).all()


@pytest.mark.parametrize("name", ["deepfool", "autoattack"])
def test_attacks_without_a_targeted_form_reject_targets(
    name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor, targets: Tensor
) -> None:
    with pytest.raises(ConfigError, match="untargeted"):
        make_attack(name)(classifier, frames, labels, targets, rng())


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_a_network_without_gradients_is_rejected(
    name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor
) -> None:
    def without_graph(pictures: Tensor) -> Tensor:
        return classifier(pictures.detach())

    with pytest.raises(BundleError, match="expected a network that gives gradients"):
        make_attack(name)(without_graph, frames, labels, None, rng())


@pytest.mark.parametrize("name", ["fgsm", "ifgsm", "pgd"])
@pytest.mark.parametrize("eps", [0.005, 8 / 255])
def test_linf_attacks_reach_their_bound_and_keep_it(
    name: str, eps: float, classifier: LinearClassifier, frames: Tensor, labels: Tensor, targets: Tensor
) -> None:
    for chosen_targets in (None, targets):
        change = make_attack(name, eps)(classifier, frames, labels, chosen_targets, rng()) - frames
        assert change.abs().amax() <= eps + 1e-6
        assert change.abs().amax() >= 0.99 * eps


@pytest.mark.parametrize("name", ["l2pgd", "deepfool", "lbfgs", "cw", "lbfgs10", "cw10"])
def test_l2_bounds_are_kept(name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor) -> None:
    change = make_attack(name, 0.05)(classifier, frames, labels, None, rng()) - frames
    assert l2(change).max() <= 0.05 * (1 + 1e-5)


def test_fgsm_is_one_step_of_the_sign(
    classifier: LinearClassifier, frames: Tensor, labels: Tensor, targets: Tensor
) -> None:
    leaf = frames.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(classifier(leaf), targets, reduction="sum"), leaf)

    adversarial = make_attack("fgsm", 0.02)(classifier, frames, labels, targets, rng())

    torch.testing.assert_close(adversarial, frames - 0.02 * gradient.sign())


@pytest.mark.parametrize(("name", "excess"), [("deepfool", 1.05), ("lbfgs", 1.06), ("cw", 1.1)])
def test_minimising_attacks_come_near_the_smallest_distance(
    name: str, excess: float, classifier: LinearClassifier, frames: Tensor, labels: Tensor
) -> None:
    adversarial = make_attack(name)(classifier, frames, labels, None, rng())

    assert (classifier(adversarial).argmax(1) != labels).all()
    ratio = l2(adversarial - frames) / classifier.distances(frames, labels)
    assert ratio.min() >= 1 - 1e-4
    assert ratio.mean() <= excess


@pytest.mark.parametrize("name", ["cw10", "lbfgs10"])
def test_confident_adversarial_examples_have_a_margin_of_ten(
    name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor, targets: Tensor
) -> None:
    adversarial = make_attack(name, 100.0)(classifier, frames, labels, targets, rng())
    margin = margins(classifier(adversarial), labels, targets)
    assert (margin >= 10 - 1e-3).all()
    assert margin.median() < 11


def test_a_confident_example_beyond_its_bound_is_scaled_back_to_it(
    classifier: LinearClassifier, frames: Tensor, labels: Tensor, targets: Tensor
) -> None:
    free = make_attack("lbfgs10", 100.0)(classifier, frames, labels, targets, rng()) - frames
    bounded = make_attack("lbfgs10", 0.1)(classifier, frames, labels, targets, rng()) - frames

    assert (l2(free) > 0.1).all()
    torch.testing.assert_close(bounded, free * (0.1 / l2(free))[:, None, None, None], atol=1e-6, rtol=1e-4)


def test_carlini_and_wagner_return_the_frame_if_nothing_is_found(frames: Tensor) -> None:
    def constant_class(pictures: Tensor) -> Tensor:
        return torch.stack((1000 + 0 * pictures.sum((1, 2, 3)), pictures.mean((1, 2, 3))), 1)

    labels = torch.zeros(len(frames), dtype=torch.int64)
    assert torch.equal(make_attack("cw")(constant_class, frames, labels, None, rng()), frames)


def test_unknown_names_and_invalid_bounds_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"fgsm, ifgsm, pgd.*jsma.*got 'boundary'"):
        make_attack("boundary")
    for eps in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="eps"):
            make_attack("pgd", eps)


def test_targets_are_uniform_over_the_other_classes() -> None:
    labels = torch.arange(5).repeat(2000)
    targets = random_targets(labels, 5, rng())
    counts = torch.zeros(5, 5).index_put_((labels, targets), torch.ones(len(labels)), accumulate=True)
    assert (counts.diagonal() == 0).all()
    assert counts[~torch.eye(5, dtype=torch.bool)].min() > 400
    with pytest.raises(ConfigError, match="at least 2"):
        random_targets(labels, 1, rng())


def test_rounding_gives_multiples_of_1_255() -> None:
    frames = torch.rand(2, 3, 5, 7, generator=rng())
    rounded = to_8_bits(frames)
    stored = (rounded * 255).round().to(torch.uint8)
    torch.testing.assert_close(rounded, stored.float() / 255, atol=0, rtol=0)
    assert (rounded - frames).abs().max() <= 0.5 / 255 + 1e-7


@pytest.mark.parametrize("name", ["pgd", "deepfool", "lbfgs"])
def test_frames_do_not_influence_each_other(
    name: str, classifier: LinearClassifier, frames: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that line searches and stopping are per frame: a frame gets the same change alone and in a batch."""
    attack: Callable[..., Tensor] = make_attack(name)
    if name == "pgd":
        attack = make_attack("ifgsm")  # the iterations of PGD without its random start
    together = attack(classifier, frames[:4], labels[:4], None, rng())
    alone = torch.cat([attack(classifier, frames[i : i + 1], labels[i : i + 1], None, rng()) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
