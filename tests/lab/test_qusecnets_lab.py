"""The experiment on quantised inputs: the trained layer equals the live stage, and its attacks, rows and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import Tensor

from lab.backdoor.tasks import Task
from lab.cache import Cache
from lab.data import LabelledPictures
from lab.experiments.cells import Attack, Row, Scored, Scores
from lab.experiments.harness.plan import Workplace
from lab.experiments.qusecnets import adversarial, experiment, plots, residual, steepness, training
from lab.experiments.qusecnets.attacked import scores
from lab.experiments.qusecnets.box import box, in_box, preimage
from lab.experiments.qusecnets.experiment import Laboratory, worst
from lab.experiments.qusecnets.judges import Judge
from lab.experiments.qusecnets.network import NETWORKS, Quantisation, QuantisedNetwork
from lab.experiments.qusecnets.plan import GRID, GRID_ROWS, ROWS, WHOLE, WHOLE_ROWS, AttackRow, Budget
from lab.experiments.qusecnets.published import published
from lab.experiments.qusecnets.report import GRID_EPS, grid_text, verdict
from lab.experiments.qusecnets.residual import RESIDUAL
from lab.experiments.qusecnets.steep_report import steep_verdict
from lab.experiments.qusecnets.steepness import HELD_OUT, STEEP, TEST, Point, at_steepness, chosen, curve
from lab.experiments.qusecnets.training import squared_error, write
from lab.networks.basic_cnn import BasicCnn
from lab.training.recipe import Batches
from processors.bundle import Bundle
from processors.stages.preprocess.quantisation import quantise

SIDE = 28


def network_with_layer(quantisation: Quantisation) -> QuantisedNetwork:
    torch.manual_seed(0)
    network = QuantisedNetwork(quantisation, BasicCnn(10, 1, SIDE), [0.13], [0.31])
    with torch.no_grad():
        network.thresholds.add_(0.03 * quantisation.trainable)
    return network.eval().requires_grad_(False)


def bundle(name: str, folder: Path) -> Bundle:
    return write(folder / name, NETWORKS[name], network_with_layer(NETWORKS[name]), tuple("0123456789"), SIDE)


def digits(count: int, seed: int = 0) -> LabelledPictures:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
    return LabelledPictures("noise", images, rng.integers(0, 10, count))


@pytest.fixture(scope="module")
def cq2(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle("mnist-cq2", tmp_path_factory.mktemp("bundles"))


@pytest.mark.parametrize("name", ["mnist-plain", "mnist-cq2", "mnist-cq4", "mnist-tq4", "mnist-tq2-printed"])
def test_the_trained_layer_equals_the_stage_of_the_bundle(name: str, tmp_path: Path) -> None:
    frames = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    saved = bundle(name, tmp_path)
    assert len(saved.stages) == (name != "mnist-plain")
    torch.testing.assert_close(saved.logits(frames), network_with_layer(NETWORKS[name])(frames), rtol=1e-4, atol=1e-4)


def test_only_trainable_thresholds_get_gradients() -> None:
    network = QuantisedNetwork(NETWORKS["mnist-tq2"], BasicCnn(10, 1, SIDE), [0.13], [0.31])
    network(torch.rand(2, 1, SIDE, SIDE)).square().sum().backward()
    for parameter in (network.thresholds, network.log_steepness):
        assert parameter.grad is not None
        assert parameter.grad.abs().min() > 0
    assert not QuantisedNetwork(NETWORKS["mnist-cq2"], BasicCnn(), [0.13], [0.31]).thresholds.requires_grad


def test_the_papers_layer_has_a_threshold_for_each_pixel_and_a_fixed_steepness() -> None:
    network = QuantisedNetwork(NETWORKS["mnist-tq2-printed"], BasicCnn(10, 1, SIDE), [0.13], [0.31])
    cost = squared_error(network(torch.rand(2, 1, SIDE, SIDE)), torch.tensor([1, 2]))
    (gradient,) = torch.autograd.grad(cost, network.thresholds)
    assert len(set(gradient.tolist())) > SIDE
    assert not network.log_steepness.requires_grad
    assert network.layer[1].item() == pytest.approx(5)


def test_the_squared_error_is_computed_on_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    assert squared_error(logits, torch.tensor([0, 1])).item() == pytest.approx((0.5 + 2) / 2)


def layer_of(z: float) -> Callable[[Tensor], Tensor]:
    thresholds = torch.linspace(0.2, 0.8, 2 * SIDE * SIDE).view(2, 1, SIDE, SIDE)
    return lambda frames: quantise(frames, thresholds, torch.tensor(z))


@given(st.floats(0.01, 0.4), st.sampled_from([5.0, 50.0, 1000.0]), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_box_is_the_image_of_the_ball(eps: float, z: float, seed: int) -> None:
    layer, rng = layer_of(z), torch.Generator().manual_seed(seed)
    frames = torch.rand(2, 1, SIDE, SIDE, generator=rng)
    low, high = box(layer, frames, eps)
    inside = (frames + eps * (2 * torch.rand(frames.shape, generator=rng) - 1)).clamp(0, 1)
    image = layer(inside)
    assert bool((image >= low - 1e-6).all())
    assert bool((image <= high + 1e-6).all())
    corner = torch.where(torch.rand(frames.shape, generator=rng) < 0.5, low, high)
    for target in (corner, image):
        found = preimage(layer, target, frames, eps)
        assert (found - frames).abs().max() <= eps + 1e-6
        assert (layer(found) - target).abs().max() < 1e-3


def test_pgd_in_the_box_breaks_a_network_whose_layer_hides_its_gradient() -> None:
    layer = layer_of(1000.0)
    bright = torch.nn.Linear(SIDE * SIDE, 2)
    with torch.no_grad():
        bright.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, SIDE * SIDE))
        bright.bias.copy_(torch.tensor([-SIDE * SIDE / 2, SIDE * SIDE / 2]))

    def behind(images: Tensor) -> Tensor:
        logits: Tensor = bright(images.flatten(1))
        return logits

    frames, labels = torch.full((2, 1, SIDE, SIDE), 0.9), torch.tensor([0, 0])
    changed = in_box(layer, behind, frames, labels, eps=0.8, steps=20, chance=torch.Generator().manual_seed(0))
    assert bool((behind(layer(frames)).argmax(1) == labels).all())
    assert bool((behind(layer(changed)).argmax(1) != labels).all())
    assert (changed - frames).abs().max() <= 0.8 + 1e-6


def test_bpda_gives_the_layers_answers_with_another_gradient(cq2: Bundle) -> None:
    judge = Judge(cq2, digits(1), digits(1), 0)
    frames = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gradients = []
    for through in (judge.by_identity, judge.by_soft):
        logits = through(frames, torch.Generator())
        torch.testing.assert_close(logits, judge.logits(frames))
        gradients.append(torch.autograd.grad(logits[0, 0], frames)[0])
    behind = judge.bundle.preprocess(frames.detach()).requires_grad_()
    (expected,) = torch.autograd.grad(judge.bundle.network_logits(behind)[0, 0], behind)
    torch.testing.assert_close(gradients[0], expected)
    assert not torch.allclose(gradients[0], gradients[1])


COSTLY = ("worst", "cw", "cw-free", "cw-black", "fgsm-black")
"""Rows that need other rows, a substitute, or hundreds of passes."""


@pytest.mark.parametrize(
    "row", [*(row for row in ROWS["mnist"] if row.key not in COSTLY), *WHOLE_ROWS], ids=lambda row: row.key
)
def test_every_attack_of_the_plan_stays_within_its_bound(row: AttackRow, cq2: Bundle) -> None:
    plan = Budget(images=2, step_images=2, slow_images=1, steps=2, queries=4)
    judge = Judge(cq2, digits(2), digits(2), 0)
    found = scores(judge, row, plan, judge)
    assert found.correct.shape == (1, plan.pictures(row))
    if row.eps is not None:
        assert found.l_inf.max() <= row.eps + 1e-6


def test_training_against_attacks_moves_the_weights_and_not_a_constant_layer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = replace(adversarial.ATTACKED, epochs=1, batch=8, bfloat16=False)
    monkeypatch.setattr(adversarial, "ATTACKED", usual)
    shown = digits(16)
    quantisation, file = NETWORKS["mnist-cq2-attacked"], tmp_path / "checkpoint.pt"
    network = training.train(quantisation, shown.images, shown.labels, replace(usual, peak_rate=1e-6), file)
    before = next(network.network.parameters()).clone()
    attacked = adversarial.train_in_box(network, shown.images, shown.labels, tmp_path / "attacked.pt")
    assert (next(attacked.network.parameters()) - before).abs().max() > 1e-4
    assert attacked.thresholds.tolist() == [0.5]


def test_the_residual_network_trains_in_the_box_and_its_bundle_gives_the_same_logits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = replace(adversarial.ATTACKED, epochs=1, batch=8, bfloat16=False)
    monkeypatch.setattr(residual, "CYCLES", (usual, usual))
    monkeypatch.setattr(residual, "recipe", lambda quantisation: replace(usual, peak_rate=1e-6))
    shown, boxes = digits(16), list[Tensor]()

    def seen(network: QuantisedNetwork) -> Batches:
        batches = adversarial.attacked_batches(network)

        def source(*arguments: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels in batches(*arguments):
                boxes.append(images)
                yield images, labels

        return source

    monkeypatch.setattr(residual, "attacked_batches", seen)
    network = residual.train_residual(Task(("0",), shown, shown, shown), tmp_path)
    assert sum(map(len, boxes)) == 32
    saved = write(tmp_path / "bundle", RESIDUAL, network.eval(), tuple("0123456789"), SIDE)
    frames = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(saved.logits(frames), network(frames), rtol=1e-4, atol=1e-4)


def row(name: str, attack: str, accuracy: float, eps: float | None) -> Row:
    return Row(
        name, "cq2", attack, attack, False, eps, 100, 1, accuracy, accuracy, accuracy, accuracy, None, None, 0, 0
    )


def test_a_layer_hides_its_gradient_only_if_chance_does_not_explain_the_difference() -> None:
    name = "mnist-cq2"
    rows = [row(name, "clean", 0.99, None), row(name, "worst", 0.8, 0.3), row(name, "pgd-0.3", 0.9, 0.3)]
    other = row(name, "bpda-identity", 0.85, 0.3)
    for high, hides in ((0.95, False), (0.88, True)):
        lines = verdict([*rows, replace(other, ci_high=high)])
        assert any("hides its gradient" in line for line in lines) == hides


def test_a_network_without_a_clean_row_is_left_out_of_the_plot(tmp_path: Path) -> None:
    plots.by_eps([row("mnist-cq2", "clean", 0.99, None), row("mnist-tq2", "fgsm", 0.9, 0.3)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").is_file()


def test_each_network_has_its_own_colour_in_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    names = [f"mnist-{number}" for number in range(14)]
    plots.by_eps([row(name, "clean", 0.99, None) for name in names], tmp_path / "plot.png")
    (axes,) = drawn[0].axes
    assert [line.get_label() for line in axes.lines] == names
    assert len({line.get_color() for line in axes.lines}) == len(names)


def test_the_margin_of_a_share_reaches_the_farther_end_of_its_interval() -> None:
    none_right = replace(row("mnist-cq2", "fgsm", 0.0, 0.3), ci_high=0.037)
    (line,) = (line for line in verdict([none_right]) if line.startswith("mnist-cq2, fgsm"))
    assert ": 0.000 ±0.037 of 100:" in line


def test_a_requirement_is_judged_on_the_whole_test_split_if_that_was_measured() -> None:
    first, whole = row("mnist-cq2", "fgsm", 0.97, 0.3), row("mnist-cq2", "fgsm-whole", 0.98, 0.3)
    for rows, word in (([first], "MISSED"), ([first, whole], "must")):
        (line,) = (line for line in verdict(rows) if line.startswith("mnist-cq2, fgsm"))
        assert f": {word} (" in line


def test_the_papers_figures_are_shown_only_for_the_papers_networks() -> None:
    for network, figure in (("plain", 0.0148), ("cq2", 0.9751), ("cq2-printed", 0.9751), ("cq4", None), ("tq2", None)):
        assert published("mnist", "fgsm", network) == figure
    for network in ("cq2-attacked", "cq2-attacked-residual", "cq2-steep"):
        assert published("mnist", "fgsm", network) is None
        assert published("mnist", "cw", network) is None
    assert published("mnist", "cw", "tq4") == 0.88


def test_the_rows_of_the_whole_test_split_attack_all_of_its_pictures(tmp_path: Path) -> None:
    place = Workplace(runs=tmp_path)
    cells = {cell.name: cell for cell in experiment.plan(place).cells}
    for name in (RESIDUAL.name, *WHOLE):
        for attack in WHOLE_ROWS:
            cell = cells[f"{name}/{name.partition('-')[2]}/{attack.key}"]
            assert isinstance(cell.settings, tuple)
            _, (planned, budget) = cell.settings
            assert budget.pictures(planned) == 10_000


def test_the_worst_case_includes_every_attack_within_the_bound_on_a_picture(tmp_path: Path) -> None:
    plan = Budget(images=3, step_images=3, slow_images=1)
    row = next(row for row in ROWS["mnist"] if row.key == "worst")

    def cell(attack: str, correct: list[bool], eps: float | None) -> Scored:
        shape = np.array([correct])
        found = Scores(shape, ~shape, np.zeros(len(correct)), np.zeros(len(correct)))
        key = Attack("mnist-cq2", "cq2", attack, attack, False, eps)
        return Scored(key, ("lab.chance:seeded",), lambda: found, (), (), 1.0, 0, Cache(tmp_path))

    met = [
        cell("clean", [True, True, True], None), cell("pgd-0.3", [True, False, True], 0.3),
        cell("square", [False], 0.3), cell("pgd-0.4", [False, False, False], 0.4), cell("jsma", [False], None),
    ]  # fmt: skip
    assert worst(met, row, plan).correct.tolist() == [[False, False, True]]


def test_a_steeper_layer_is_another_model_with_the_same_network(cq2: Bundle) -> None:
    steep = at_steepness(cq2, 1000.0, STEEP)
    frames = torch.tensor([0.2, 0.49, 0.51, 0.8]).view(1, 1, 2, 2)
    torch.testing.assert_close(steep.preprocess(frames), torch.sigmoid(1000 * (frames - 0.5)))
    assert steep.network is cq2.network
    assert steep.settings.name == STEEP
    assert len({cq2.model_id, steep.model_id, at_steepness(cq2, 200.0, STEEP).model_id}) == 3


def test_fgsm_leaves_more_values_unchanged_the_steeper_the_layer_is(
    cq2: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steepness, "made_by", lambda *names: names)  # it takes a second, and other tests check it
    judge = Judge(cq2, digits(2), digits(2), 0)
    points = curve(judge, judge, HELD_OUT, 2, Cache(tmp_path / "runs"))
    for unmoved in ([point.unmoved for point in points], [point.near_unmoved for point in points]):
        assert unmoved == sorted(unmoved)
        assert unmoved[0] == 0
        assert unmoved[-1] > 0.5
    assert {point.bpda for point in points} == {None}


def point(steepness: float, clean: float, fgsm: float, split: str = HELD_OUT) -> Point:
    return Point("mnist-cq2", split, steepness, 100, clean, fgsm, 0.9, 0.8, None, None, None, None, None, None)


def test_the_steepness_is_chosen_on_held_out_pictures_without_a_loss_of_clean_accuracy() -> None:
    points = [point(50, 0.99, 0.9), point(200, 0.99, 0.95), point(500, 0.99, 0.95), point(1000, 0.95, 0.99)]
    assert chosen([*points, point(2000, 1.0, 1.0, split=TEST)]) == 200


@pytest.mark.parametrize(("bpda", "is_reported"), [(0.8, True), (0.99, False)])
def test_a_vanishing_gradient_is_reported_if_bpda_breaks_more_pictures(bpda: float, is_reported: bool) -> None:
    points = [point(500, 0.99, 0.98), point(500, 0.99, 0.98, split=TEST)]
    figures = {"clean": 0.99, "fgsm": 0.98, "bpda-identity": bpda, "worst": min(bpda, 0.98)}
    (line,) = steep_verdict(points, [row(STEEP, attack, figure, 0.3) for attack, figure in figures.items()])
    assert ("VANISHING GRADIENT, NOT A DEFENCE" in line) == is_reported
    assert f"BPDA leaves {bpda:.3f}" in line
    assert "the paper's text has z = 50" in line


def test_attacked_batches_are_images_within_the_bound_and_move_against_the_label() -> None:
    network = network_with_layer(NETWORKS["mnist-cq2-attacked"])
    shown = digits(8)
    pictures, labels = torch.from_numpy(shown.images).permute(0, 3, 1, 2), torch.from_numpy(shown.labels)
    still = replace(adversarial.ATTACKED, batch=8, pad=0, bfloat16=False)
    rng = torch.Generator().manual_seed(0)
    ((images, truth),) = adversarial.attacked_batches(network)(pictures, labels, still, rng)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert truth.tolist() == labels[order].tolist()
    frames = pictures[order].float() / 255
    low, high = box(network.quantised, frames, adversarial.EPS)
    assert bool((images / 255 >= low - 1e-6).all())
    assert bool((images / 255 <= high + 1e-6).all())
    before, after = (F.cross_entropy(network.behind(each), truth) for each in (network.quantised(frames), images / 255))
    assert after > before


def test_a_network_of_other_code_or_pictures_is_trained_again(
    tmp_path: Path, cq2: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = list[Path]()

    def trained(name: str, task: Task, folder: Path, work: Path) -> Bundle:
        folders.append(folder)
        return cq2

    monkeypatch.setattr(experiment, "trained", trained)
    for code, pictures in (("one", digits(4)), ("other", digits(4)), ("one", digits(5)), ("one", digits(4))):
        monkeypatch.setattr(training, "made_by", lambda *entries, code=code: code)
        laboratory = Laboratory(Workplace(runs=tmp_path), Budget().quick())
        laboratory.task = lambda data, pictures=pictures: Task(("0",), pictures, pictures, pictures)  # type: ignore[assignment]  # a cache of the method
        laboratory.judge("mnist-cq4")
        assert laboratory.judge("mnist-cq2").bundle.settings.name == "mnist-cq2"  # this network ships
    first, other_code, other_pictures, again = folders
    assert len({first, other_code, other_pictures}) == 3
    assert again == first


def test_the_grid_counts_comparisons_beyond_the_intervals() -> None:
    """At ε = .3, two levels keep more than four beyond the intervals, and four and six keep the same."""
    shares = {"cq2": 0.9, "cq4": 0.5, "cq6": 0.5, "tq2": 0.5, "tq4": 0.8, "tq6": 0.5}
    rows = [row(f"mnist-{kind}", "fgsm", share, 0.3) for kind, share in shares.items()]
    rows += [row(f"mnist-{kind}", "fgsm-0.1", 0.5, 0.1) for kind in ("cq2", "cq4")]
    text = grid_text(rows)
    assert "the network with fewer constant levels keeps more in 1 of 3 comparisons" in text
    assert "keep more than as many constant ones in 1 of 3 comparisons, and constant ones more in 1 of 3." in text


def test_the_grid_names_networks_of_the_plan_and_each_bound_once() -> None:
    assert set(GRID) <= set(NETWORKS)
    assert GRID_EPS == [0.1, 0.2, 0.3, 0.4]
    assert {each.key for each in GRID_ROWS}.isdisjoint(each.key for each in ROWS["mnist"])
