"""The experiment on quantised inputs: the trained layer is the live stage, and the page says what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.data import LabelledPictures
from lab.experiments.cache import Cache
from lab.experiments.cells import Cell, Row, Scores
from lab.experiments.qusecnets import report
from lab.experiments.qusecnets.adversarial import withstand
from lab.experiments.qusecnets.attacked import scores
from lab.experiments.qusecnets.judges import Judge
from lab.experiments.qusecnets.plan import ROWS, AttackRow, Plan
from lab.experiments.qusecnets.published import published
from lab.experiments.qusecnets.run import Experiment
from lab.experiments.qusecnets.training import NETWORKS, Quantisation, QuantisedNetwork, write
from lab.networks.basic_cnn import BasicCnn
from lab.results.csv_rows import write_rows
from processors.bundle import Bundle

SIDE = 28


def layered(wanted: Quantisation) -> QuantisedNetwork:
    torch.manual_seed(0)
    network = QuantisedNetwork(wanted, BasicCnn(10, 1, SIDE), [0.13], [0.31])
    with torch.no_grad():
        network.thresholds.add_(0.03 * wanted.trainable)
    return network.eval().requires_grad_(False)


def bundle(name: str, folder: Path) -> Bundle:
    return write(folder / name, NETWORKS[name], layered(NETWORKS[name]), tuple("0123456789"), SIDE)


def digits(count: int, seed: int = 0) -> LabelledPictures:
    chance = np.random.default_rng(seed)
    images = chance.integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
    return LabelledPictures("noise", images, chance.integers(0, 10, count))


@pytest.mark.parametrize("name", ["mnist-plain", "mnist-cq2", "mnist-cq4", "mnist-tq4"])
def test_the_layer_that_was_trained_is_the_stage_of_the_bundle(name: str, tmp_path: Path) -> None:
    frames = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    saved = bundle(name, tmp_path)
    assert len(saved.stages) == (name != "mnist-plain")
    torch.testing.assert_close(saved.logits(frames), layered(NETWORKS[name])(frames), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_the_basic_network_takes_both_data_sets(channels: int, side: int) -> None:
    assert BasicCnn(10, channels, side)(torch.zeros(1, channels, side, side)).shape == (1, 10)


def test_the_thresholds_follow_the_loss_where_they_are_to_be_trained() -> None:
    network = QuantisedNetwork(NETWORKS["mnist-tq2"], BasicCnn(10, 1, SIDE), [0.13], [0.31])
    network(torch.rand(2, 1, SIDE, SIDE)).square().sum().backward()
    for parameter in (network.thresholds, network.log_steepness):
        assert parameter.grad is not None
        assert parameter.grad.abs().min() > 0
    assert not QuantisedNetwork(NETWORKS["mnist-cq2"], BasicCnn(), [0.13], [0.31]).thresholds.requires_grad


def test_bpda_gives_the_layers_answers_with_another_gradient(tmp_path: Path) -> None:
    judge = Judge(bundle("mnist-cq2", tmp_path), digits(1), digits(1), 0)
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


DEAR = ("worst", "cw", "cw-free", "cw-black", "fgsm-black")
"""Rows that need other rows, a substitute, or hundreds of passes."""


@pytest.mark.parametrize("row", [row for row in ROWS["mnist"] if row.key not in DEAR], ids=lambda row: row.key)
def test_every_attack_of_the_plan_stays_within_its_bound(row: AttackRow, tmp_path: Path) -> None:
    plan = Plan(images=2, step_images=2, slow_images=1, steps=2, queries=4)
    judge = Judge(bundle("mnist-cq2", tmp_path), digits(2), digits(2), 0)
    found = scores(judge, row, plan, judge)
    assert found.correct.shape == (1, plan.pictures(row))
    if row.eps is not None:
        assert found.l_inf.max() <= row.eps + 1e-6


def test_training_against_attacks_moves_the_weights_and_not_a_constant_layer() -> None:
    network = QuantisedNetwork(NETWORKS["mnist-cq2-attacked"], BasicCnn(10, 1, SIDE), [0.13], [0.31])
    first = next(network.network.parameters())
    before = first.detach().clone()
    shown = digits(128)
    withstand(network, shown.images, shown.labels, 1, 0)
    assert not torch.equal(first, before)
    assert network.thresholds.tolist() == [0.5]


def row(name: str, attack: str, accuracy: float, eps: float | None) -> Row:
    return Row(
        name, "cq2", attack, attack, False, eps, 100, 1, accuracy, accuracy, accuracy, accuracy, None, None, 0, 0
    )


def test_the_page_sets_the_papers_figure_beside_ours_and_says_what_is_missing(tmp_path: Path) -> None:
    rows = [
        row("mnist-cq2", "clean", 0.99, None),
        row("mnist-cq2", "fgsm", 0.9, 0.3),
        row("mnist-tq2", "clean", 1, None),
    ]
    write_rows(tmp_path / report.ROWS_FILE, rows, Row)
    lines = report.write_report(tmp_path)
    assert any("mnist-cq2, fgsm" in line and "MISSED" in line for line in lines)
    assert any("mnist-cq2, cw" in line and "not measured" in line for line in lines)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("| FGSM 0.3 |")]
    assert "*paper 0.975*" in line
    assert "not measured" in line


def test_the_papers_figures_are_found_by_the_kind_of_a_network() -> None:
    assert published("mnist", "fgsm", "cq2") == 0.9751
    assert published("mnist", "fgsm", "tq2") is None
    assert published("mnist", "cw", "tq4") == 0.88
    assert published("mnist", "fgsm", "plain") == 0.0148


def test_the_worst_case_counts_every_attack_that_a_picture_met(tmp_path: Path) -> None:
    plan = Plan(images=3, step_images=3, slow_images=1)
    experiment = Experiment(("mnist-cq2",), tmp_path, plan, Cache(tmp_path / "runs"), tmp_path / "out", "")
    worst = next(row for row in ROWS["mnist"] if row.key == "worst")

    def cell(attack: str, correct: list[bool], eps: float | None) -> Cell:
        shape = np.array([correct])
        found = Scores(shape, ~shape, np.zeros(len(correct)), np.zeros(len(correct)))
        return Cell("mnist-cq2", "cq2", attack, attack, False, eps, "a", lambda: found)

    met = [
        cell("clean", [True, True, True], None), cell("pgd-0.3", [True, False, True], 0.3),
        cell("square", [False], 0.3), cell("pgd-0.4", [False, False, False], 0.4), cell("jsma", [False], None),
    ]  # fmt: skip
    assert experiment.worst(met, worst).correct.tolist() == [[False, False, True]]
