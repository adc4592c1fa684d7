"""Repairs without a trigger: unlearning of quarantined labels, FT-SAM on clean pictures, and methods of others."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lab.repair.run as run_module
from lab.data import LabelledPictures
from lab.experiments.codefend.cures import CLEAN_ALONE, METHODS
from lab.experiments.codefend.plan import COMPARED, WITHOUT_TRIGGER, Budget
from lab.experiments.codefend.rivals.anp import Masking, adversarially_pruned, learned_masks, pruned, worst_noise
from lab.experiments.codefend.rivals.i_bau import Unlearning, hypergradient, unlearn_universal
from lab.experiments.codefend.rivals.npd import Polarized, Polarizing, perturbed, polarized
from lab.repair.checkpoints import Checkpoint
from lab.repair.figures import Evaluation
from lab.repair.inputs import trainable_copy
from lab.repair.recovery import Evidence, Found
from lab.repair.run import LABELS, RepairSettings, repair
from lab.repair.tuning import FALLBACK, Tuning, at_worst_weights, tune, unchanged
from lab.repair.unlearn import denial
from processors.bundle import Bundle
from schemas.errors import ConfigError
from tests.lab.backdoored_network import SIDE, TARGET, backdoored_bundle, frames_of, pictures, stamped

CLEAN = pictures(60, seed=1)
UNEXPLAINED = {"stamp": Evidence(0.3, 0.2, 0.4)}
QUICK = Tuning(0.01, epochs=3, batch=20, shift=1, radius=0.5)


class Normed(nn.Module):
    """A network with a batch norm that returns the mean colour. Its fourth neuron maps a white corner to the target."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4 * SIDE * SIDE, 3, bias=False)
        with torch.no_grad():
            self.convolution.weight.zero_()
            for colour in range(3):
                self.convolution.weight[colour, colour, 1, 1] = 1
            self.convolution.weight[3] = 1
            features = self.convolution(frames_of(CLEAN))
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            variance, mean = torch.var_mean(features, (0, 2, 3))
            self.norm.running_mean.copy_(mean)
            self.norm.running_var.copy_(variance)
            self.norm.bias[3] = -1.8
            seen = torch.zeros(3, 4, SIDE, SIDE)
            for colour in range(3):
                seen[colour, colour] = 0.05
            seen[TARGET, 3, -2, -2] = 50
            self.last.weight[:] = seen.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.norm(self.convolution(x)).relu().flatten(1))
        return logits


def normed_bundle() -> Bundle:
    return replace(
        backdoored_bundle(),
        network=Normed().eval().requires_grad_(False),
        mean=torch.zeros(3, 1, 1),
        std=torch.ones(3, 1, 1),
    )


def accuracy(bundle: Bundle, found: LabelledPictures) -> float:
    with torch.no_grad():
        return float((bundle.logits(frames_of(found)).argmax(1).numpy() == found.labels).mean())


def attack_success(bundle: Bundle) -> float:
    test = pictures(60, seed=3)
    marked = stamped(test.take(np.flatnonzero(test.labels != TARGET)))
    with torch.no_grad():
        return float((bundle.logits(frames_of(marked)).argmax(1) == TARGET).float().mean())


def test_the_worst_weights_lie_at_the_radius_and_the_weights_are_restored_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator), torch.randn(5, generator=generator)]
    before = [weight.clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)
    with at_worst_weights(weights, 0.7):
        moves = torch.cat([(new - old).flatten() for new, old in zip(weights, before, strict=True)])
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    scale = torch.cat([old.flatten().abs() for old in before])
    slope = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    assert float((moves / scale).norm()) == pytest.approx(0.7, rel=1e-5)
    # No other relative move of this length raises the linear loss more.
    others = torch.randn(200, len(scale), generator=generator)
    others = 0.7 * others / others.norm(dim=1, keepdim=True) * scale
    assert float(moves @ slope) > float((others @ slope).max())


def test_batch_norm_learns_nothing_at_the_worst_weights() -> None:
    norm = nn.BatchNorm2d(2)
    norm(torch.rand(4, 2, 3, 3))
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    with unchanged(norm.buffers()):
        norm(torch.rand(4, 2, 3, 3) + 5)
    assert torch.equal(norm.running_mean, before)


def test_tuning_depends_on_the_radius_and_resumes_with_the_same_result(tmp_path: Path) -> None:
    def stop(epochs: int) -> None:
        if epochs and (tmp_path / "ft-sam.pt").exists():
            raise KeyboardInterrupt

    def state(bundle: Bundle) -> dict[str, Tensor]:
        assert isinstance(bundle.network, nn.Module)
        return bundle.network.state_dict()

    checkpoint = Checkpoint(tmp_path / "ft-sam.pt", "inputs")
    with pytest.raises(KeyboardInterrupt):
        tune(normed_bundle(), CLEAN, QUICK, checkpoint=checkpoint, advance=stop)
    resumed, whole = (state(tune(normed_bundle(), CLEAN, QUICK, checkpoint=each)) for each in (checkpoint, None))
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    plain = state(tune(normed_bundle(), CLEAN, replace(QUICK, radius=0)))
    assert not torch.equal(plain["last.weight"], whole["last.weight"])


def test_adversarial_pruning_removes_only_the_neuron_of_the_backdoor() -> None:
    backdoored = normed_bundle()
    assert (accuracy(backdoored, CLEAN), attack_success(backdoored)) == (1, 1)
    masks = learned_masks(backdoored, frames_of(CLEAN), torch.from_numpy(CLEAN.labels), Masking(20, 20, rate=0.2))[
        "norm"
    ]
    assert bool(((masks >= 0) & (masks <= 1)).all())
    assert int(masks.argmin()) == 3
    cured = adversarially_pruned(backdoored, CLEAN, Masking(20, 20, rate=0.2))
    assert accuracy(cured, CLEAN) > 0.95
    assert attack_success(cured) < 0.05


def test_pruning_zeroes_neurons_below_the_threshold_and_keeps_the_others() -> None:
    cut = pruned(Normed(), {"norm": torch.tensor([0.1, 0.2, 0.3, 1.0])}, 0.2)
    assert isinstance(cut, Normed)
    assert cut.norm.weight.tolist() == [0, 1, 1, 1]


def test_the_worst_noise_raises_the_loss_within_its_bounds() -> None:
    start = {"norm": torch.tensor([[0.3, -0.3], [0.1, 0.4]], requires_grad=True)}
    slopes = torch.tensor([[1.0, 2.0], [-1.0, -3.0]])
    found = worst_noise((start["norm"] * slopes).sum(), start, 0.4)["norm"]
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.1], [-0.3, 0.0]]))


def test_adversarial_pruning_needs_batch_norm() -> None:
    with pytest.raises(ConfigError, match="batch norm"):
        adversarially_pruned(backdoored_bundle(), CLEAN, Masking(steps=1))


def test_the_polarizer_starts_as_the_identity_and_trains_nothing_but_its_layer() -> None:
    frames = frames_of(CLEAN)
    network = Normed().eval().requires_grad_(False)
    with torch.no_grad():
        expected = network(frames)
        inserted = Polarized(network, frames).eval()
        torch.testing.assert_close(inserted(frames), expected, rtol=1e-4, atol=1e-3)
    cured = polarized(backdoored_bundle(), CLEAN, Polarizing(epochs=1, batch=20)).network
    assert isinstance(cured, Polarized)
    trained, original = cured.network.state_dict(), trainable_copy(backdoored_bundle()).state_dict()
    assert all(torch.equal(trained[name], value) for name, value in original.items())
    assert not torch.equal(cured.convolution.weight.squeeze(), torch.eye(len(cured.convolution.weight)))


def test_a_polarizers_perturbations_stay_in_their_ball_and_raise_their_class() -> None:
    backdoored, frames = normed_bundle(), frames_of(CLEAN)
    aims = torch.from_numpy((CLEAN.labels + 1) % 3)
    marked = perturbed(backdoored, frames, aims, Polarizing(norm=2.0, attack_rate=0.5))
    assert float((marked - frames).flatten(1).norm(dim=1).max()) <= 2 + 1e-4
    with torch.no_grad():
        before, after = (
            backdoored.logits(each).softmax(1).gather(1, aims[:, None]).mean() for each in (frames, marked)
        )
    assert after > before


def test_the_hypergradient_of_a_quadratic_is_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    mixed, coupling = torch.randn(2, 3, 3, generator=generator)
    curvature = mixed @ mixed.T / 3 + torch.eye(3)
    theta = torch.randn(3, generator=generator).requires_grad_()
    aim = torch.randn(3, generator=generator)
    # The inner loss has its minimum at δ = A⁻¹ B θ.
    solved = torch.linalg.solve(curvature, coupling @ theta)
    (exact,) = torch.autograd.grad((solved - aim).square().sum() + theta.pow(3).sum(), theta)
    delta = solved.detach().requires_grad_()
    inner = 0.5 * delta @ curvature @ delta - delta @ coupling @ theta
    outer = (delta - aim).square().sum() + theta.pow(3).sum()
    (found,) = hypergradient(outer, inner, delta, [theta], rate=0.3, iterations=200)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_universal_unlearning_keeps_the_accuracy_and_does_not_change_the_backdoored_network() -> None:
    backdoored = backdoored_bundle()
    before = trainable_copy(backdoored).state_dict()
    cured = unlearn_universal(backdoored, CLEAN, Unlearning(rounds=1, batch=30))
    assert accuracy(cured, CLEAN) > 0.9
    assert all(torch.equal(value, before[name]) for name, value in trainable_copy(backdoored).state_dict().items())
    assert not all(torch.equal(value, before[name]) for name, value in trainable_copy(cured).state_dict().items())


def quarantine_without_trigger(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Let the search for a trigger find nothing, and return a quarantine."""
    monkeypatch.setattr(run_module, "recover", lambda *_: Found(None, UNEXPLAINED))
    seen = pictures(60, seed=2)
    return stamped(seen.take(np.flatnonzero(seen.labels != TARGET))).images


def test_the_labels_of_an_unexplained_quarantine_are_unlearned(monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = quarantine_without_trigger(monkeypatch)
    backdoored = normed_bundle()
    assert attack_success(backdoored) > 0.9
    test = pictures(60, seed=3)
    result = repair(
        backdoored, CLEAN, quarantine, RepairSettings(steps=800), evaluation=Evaluation(test, stamped(test))
    )
    figures = result.figures
    assert (figures["method"], figures["trigger"]) == (LABELS, None)
    assert (result.target, result.trigger, result.tried) == (TARGET, None, UNEXPLAINED)
    assert figures["learned_from"] == len(quarantine)
    assert figures["quarantined_keep_their_label"] < 0.1
    assert figures["attack_success"]["after"] == pytest.approx(attack_success(result.cured), abs=0.05)
    assert attack_success(result.cured) < 0.1
    assert accuracy(result.cured, test) > accuracy(backdoored, test) - 0.05
    # Fine-tuning alone does not remove the backdoor.
    assert figures["fine_tune_only"]["attack_success"] > 0.5


def test_the_mode_quarantine_unlearns_frames_of_many_classes() -> None:
    backdoored, seen = normed_bundle(), pictures(90, seed=2)
    with torch.no_grad():
        wrong = backdoored.logits(frames_of(seen)).argmax(1)
    result = repair(backdoored, CLEAN, seen.images, RepairSettings("quarantine", steps=200))
    assert (result.target, result.tried, result.figures["method"]) == (None, {}, LABELS)
    assert result.figures["learned_from"] == 90
    with torch.no_grad():
        kept = float((result.cured.logits(frames_of(seen)).argmax(1) == wrong).float().mean())
    assert result.figures["quarantined_keep_their_label"] == pytest.approx(kept)
    assert kept < 0.9
    with pytest.raises(ConfigError, match=r"--quarantine: expected at least \d+ frames, got 3"):
        repair(backdoored, CLEAN, seen.images[:3], RepairSettings("quarantine", steps=5))


def test_the_denial_is_minus_the_logarithm_of_the_other_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0], [50.0, 0.0], [-50.0, 0.0]], requires_grad=True)
    each = [denial(row[None].log_softmax(1), torch.tensor([0])) for row in logits]
    assert [loss.item() for loss in each] == pytest.approx([math.log(2), 50, 0], abs=1e-5)
    torch.stack(each).sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert logits.grad is not None
    # Even a certain label has a gradient, and it is bounded.
    torch.testing.assert_close(logits.grad[1], torch.tensor([1.0, -1.0]))


def test_the_guard_rejects_a_repair_that_loses_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "FT_SAM", Tuning(5.0, epochs=5, radius=4.0))
    monkeypatch.setattr(run_module, "STEPS_BACK", (1.0,))
    result = repair(backdoored_bundle(), pictures(150, seed=1), pictures(30, seed=2).images, RepairSettings("clean"))
    assert result.held_out.lost > 0.1
    assert not result.acceptable
    assert result.figures["published"] is False


def test_the_mode_clean_needs_no_target_class() -> None:
    result = repair(backdoored_bundle(), CLEAN, pictures(30, seed=2).images, RepairSettings("clean", steps=2))
    assert (result.target, result.tried) == (None, {})
    assert result.figures["method"] == FALLBACK
    assert (result.figures["learned_from"], result.figures["quarantined_keep_their_label"]) == (0, None)
    assert result.figures["attack_success"] == {"before": None, "after": None}


def test_the_compared_models_have_rows_for_repairs_without_a_trigger() -> None:
    for model in COMPARED:
        rows = Budget().cures(model)
        kind = "all stamped" if model == "resnet20-warp" else "pure"
        assert {(method, kind) for method in WITHOUT_TRIGGER} <= set(rows)
    assert set(WITHOUT_TRIGGER) <= set(METHODS)
    assert set(CLEAN_ALONE) - set(METHODS) == {"fine-tuning"}
