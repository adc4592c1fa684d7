"""AI-GAN's parts: losses against the printed formulas, the bound, and the condition on the target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lab.aigan.generator import Generator, Shape, perturbed
from lab.aigan.losses import (
    class_loss,
    clean_loss,
    contrastive_loss,
    deceit_loss,
    distillation_loss,
    margin_loss,
    miss_loss,
)
from lab.aigan.opponents import WhiteBox, differentiable
from lab.aigan.pretraining import pretrain, teach_gate
from lab.aigan.shipping import WITHIN
from lab.aigan.universal import templates
from lab.chance import seeded
from processors.bundle import load_bundle, shipped_bundle

TINY = Shape(classes=3, channels=3, height=8, width=12)


def tiny_generator() -> Generator:
    with seeded(0):
        return Generator(TINY, narrow=4, wide=6, blocks=1).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(each) for each in row]
    return [each / sum(powers) for each in powers]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_the_margin_loss_is_equation_4_with_a_target(confidence: float) -> None:
    logits, targets = random(20, 5), torch.arange(20) % 5
    literal = [
        max(max(z for i, z in enumerate(row) if i != t) - row[t], -confidence)
        for row, t in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    assert margin_loss(logits, targets, confidence).item() == pytest.approx(np.mean(literal), abs=1e-6)


def test_the_miss_loss_counts_misses_and_weighs_pictures_by_their_closeness_to_the_boundary() -> None:
    logits = torch.tensor([[900.0, 0.0], [0.0, 900.0], [1.0, 1.0], [8.0, 0.0]], requires_grad=True)
    targets = torch.tensor([0, 0, 0, 1])
    loss = miss_loss(logits, targets, softness=2.0)
    assert float(loss.detach()) == pytest.approx(8 * (0 + 1 + 0.5 + 1 / (1 + math.exp(-4))) / 4)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert logits.grad is not None
    certain, hopeless, at_boundary, near = logits.grad.abs().sum(1).tolist()
    assert certain == hopeless == pytest.approx(0, abs=1e-12)
    # At the boundary its slope is that of the margin loss: 1 for each of the two logits, in a mean of four.
    assert at_boundary == pytest.approx(2 / 4)
    assert 0 < near < at_boundary


def test_the_losses_of_both_heads_are_equations_6_to_8() -> None:
    clean, fake = random(7), random(7, seed=1)
    as_clean = -np.mean([math.log(sigmoid(x)) for x in clean.tolist()])
    as_fake = -np.mean([math.log(1 - sigmoid(x)) for x in fake.tolist()])
    literal = float(as_clean + as_fake)
    assert clean_loss(clean, fake).item() == pytest.approx(literal, abs=1e-6)

    by_pgd, by_generator, labels = random(7, 4), random(7, 4, seed=1), torch.arange(7) % 4
    literal = 0.0
    for logits in (by_pgd, by_generator):
        shares = [softmax(row)[y] for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
        literal -= float(np.mean([math.log(share) for share in shares]))
    assert class_loss(by_pgd, by_generator, labels).item() == pytest.approx(literal, abs=1e-6)


def test_the_deceit_loss_rewards_pictures_classified_as_clean_and_as_the_target() -> None:
    clean, classes, targets = random(5), random(5, 4), torch.tensor([0, 1, 2, 3, 0])
    as_clean = -np.mean([math.log(sigmoid(x)) for x in clean.tolist()])
    shares = [softmax(row)[t] for row, t in zip(classes.tolist(), targets.tolist(), strict=True)]
    as_target = -np.mean([math.log(share) for share in shares])
    assert deceit_loss(clean, classes, targets, 2.0, 3.0).item() == pytest.approx(
        2 * as_clean + 3 * as_target, abs=1e-5
    )


def test_the_contrastive_loss_is_equation_11_over_all_ordered_pairs() -> None:
    first, second = random(4, 6), random(4, 6, seed=1)
    vectors = torch.cat((first, second)).double().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    total = 0.0
    for i in range(8):
        j = (i + 4) % 8
        others = sum(math.exp(unit[i] @ unit[k] / 0.5) for k in range(8) if k != i)
        total -= math.log(math.exp(unit[i] @ unit[j] / 0.5) / others)
    assert contrastive_loss(first, second).item() == pytest.approx(total / 8, abs=1e-5)


def test_the_distillation_loss_ignores_a_constant_added_to_all_logits() -> None:
    answers = random(6, 4).log_softmax(1)
    assert distillation_loss(answers + 3, answers).item() == pytest.approx(0, abs=1e-5)
    others = random(6, 4, seed=1)
    literal = 0.0
    for student, teacher in zip((others / 4).tolist(), (answers / 4).tolist(), strict=True):
        q, p = softmax(student), softmax(teacher)
        literal += sum(each * math.log(each / q[i]) for i, each in enumerate(p))
    assert distillation_loss(others, answers).item() == pytest.approx(literal / 6 * 16, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(eps=st.floats(1 / 255, 1), seed=st.integers(0, 1000))
def test_attacked_pictures_stay_within_the_bound_and_the_range(eps: float, seed: int) -> None:
    generator = tiny_generator()
    with torch.no_grad():
        nn.init.normal_(generator.templates.weight, std=100)  # saturated: every value moves by the whole bound
        pictures = torch.rand(5, 3, 8, 12, generator=torch.Generator().manual_seed(seed))
        attacked = perturbed(pictures, generator(pictures, torch.arange(5) % 3), eps * WITHIN)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    # The tolerance is one unit in the last place of float32 below 1, because sum and step are rounded.
    assert (attacked.double() - pictures.double()).abs().max() <= eps + 2**-24


def test_the_direction_depends_on_the_target_and_on_the_picture() -> None:
    generator = tiny_generator()
    pictures = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nn.init.normal_(generator.out.weight)
        first, second = (generator(pictures, torch.full((2,), target)) for target in (0, 1))
    assert not torch.allclose(first, second, atol=1e-2)
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_the_gate_selects_one_of_the_templates_of_the_target() -> None:
    generator = tiny_generator()
    pictures = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    table = random(3, 3, 3, 8, 12).sign()
    with torch.no_grad():
        generator.templates.weight.copy_(table.flatten(1))
        generator.gate.out.weight.zero_()
        generator.gate.out.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
        made = generator(pictures, torch.tensor([2, 0]))
    assert torch.allclose(made, torch.tanh(2 * table[[2, 0], [1, 1]]), atol=1e-5)


def test_a_template_moves_pictures_of_one_class_to_another_class() -> None:
    shape, eps = Shape(3, 1, 8, 8), 0.2
    levels = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with seeded(0):
        last = nn.Linear(64, 3)
    target = nn.Sequential(nn.Flatten(), last).requires_grad_(False)
    labels = target(levels.float() / 255).argmax(1)
    found = templates(levels, labels, shape, WhiteBox(target), eps, 1.0, 0)
    assert found.abs().max() <= 1
    # The best direction from one class to another is known for a linear network.
    rows = last.weight
    for aim, source in ((0, 1), (1, 2), (2, 0)):
        frames = levels[labels == source].float() / 255
        best = (rows[aim] - rows[source]).sign().view(1, 8, 8)
        hits = [
            float((target(perturbed(frames, each, eps)).argmax(1) == aim).float().mean())
            for each in (found[aim, source], best)
        ]
        assert hits[0] > 0.9 * hits[1] > 0.5
    assert not found[0, 0].any()


def test_the_gate_learns_the_classes_of_pictures() -> None:
    generator = tiny_generator()
    labels = torch.arange(60) % 3
    levels = (labels.view(60, 1, 1, 1) * 80 + torch.zeros(60, 3, 8, 12)).to(torch.uint8)
    before = {name: weight.detach().clone() for name, weight in generator.named_parameters()}
    with seeded(0):
        teach_gate(generator, levels, labels, 40, True, torch.Generator().manual_seed(0))
    moved = {name.partition(".")[0] for name, weight in generator.named_parameters() if not weight.equal(before[name])}
    assert moved == {"encoder", "gate"}
    assert (generator.eval().guessed(levels.float() / 255).argmax(1) == labels).all()


def test_a_generator_rejects_sizes_that_are_no_multiples_of_four() -> None:
    with pytest.raises(ValueError, match="multiples of 4, got 30x32"):
        Generator(Shape(3, 3, 30, 32))


def test_pre_training_brings_views_of_a_picture_together() -> None:
    patches = torch.randint(0, 256, (8, 3, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
    losses = []
    for steps in (1, 40):
        encoder = tiny_generator().encoder
        with seeded(0):
            losses.append(pretrain(encoder, pictures, steps, torch.Generator().manual_seed(0)))
    assert losses[1] < losses[0] - 0.4


def test_a_folded_network_returns_the_bundles_logits_and_has_gradients() -> None:
    bundle = load_bundle(shipped_bundle("scene"), torch.device("cpu"))
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    folded = differentiable(bundle)(frames)
    assert torch.allclose(folded, bundle.logits(frames), atol=1e-3)
    assert torch.autograd.grad(folded.sum(), frames)[0].abs().sum() > 0
