"""The experiment on preprocessing: the paper's released attack, the defences, the choice of settings, the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lab.attacks.bpda import identity
from lab.attacks.contract import Defended
from lab.cache import Cache
from lab.data import LabelledPictures
from lab.experiments.cells import Point, Row
from lab.experiments.harness.plan import Workplace
from lab.experiments.preprocessing import attacked, choose, experiment, plots, tables
from lab.experiments.preprocessing.defences import NONE, OURS, Settings, functions
from lab.experiments.preprocessing.papers_steps import PAPERS_STEPS, with_the_papers_steps
from lab.experiments.preprocessing.plan import Budget
from lab.experiments.preprocessing.random_crop import random_crop
from lab.experiments.preprocessing.released import descend
from lab.experiments.preprocessing.report import Results, verdict, write_report
from lab.experiments.preprocessing.subjects import Subject
from lab.experiments.preprocessing.variance import VarianceRow
from processors.bundle import Bundle, BundleSettings
from processors.stages.preprocess.dct_quantisation import dct_quantise
from processors.stages.preprocess.grid_distortion import distort

SIDE = 16
SETTINGS = Settings(tuple((20.0,) * 8 for _ in range(8)), 0.15, 4)
GENERATOR = torch.Generator


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=GENERATOR().manual_seed(seed))


def quadrants(frames: Tensor) -> Tensor:
    """Return logits (B, 4): the brightness of each quarter of the picture."""
    return 40 * torch.nn.functional.adaptive_avg_pool2d(frames.mean(1), 2).flatten(1)


def recorded(seen: list[Tensor]) -> Defended:
    def defended(frames: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(frames.detach().clone())
        return quadrants(frames)

    return defended


def bare(frames: Tensor, generator: torch.Generator) -> Tensor:
    return quadrants(frames)


@pytest.mark.parametrize("at_clean", [True, False])
def test_the_released_attack_takes_gradients_at_the_clean_picture_and_ours_at_the_iterate(at_clean: bool) -> None:
    frames, seen = pictures(2), list[Tensor]()
    labels = quadrants(frames).argmax(1)
    descend(
        bare, recorded(seen), frames, labels, (labels + 1) % 4, rate=1e-3, rounds=3, bound=1.0, samples=2,
        at_clean=at_clean, generator=GENERATOR(),
    )  # fmt: skip
    assert len(seen) == 6
    assert torch.equal(seen[0], frames)
    assert torch.equal(seen[-1], frames) == at_clean


def test_the_attack_stops_at_its_target_and_pictures_beyond_the_bound_do_not_count() -> None:
    frames = pictures(4)
    labels = quadrants(frames).argmax(1)
    found = descend(
        bare, bare, frames, labels, (labels + 1) % 4, rate=0.05, rounds=30, bound=1.0, samples=1, at_clean=False,
        generator=GENERATOR(),
    )  # fmt: skip
    assert found.found[-1].all()
    assert not found.correct[-1].any()
    assert torch.equal(quadrants(found.frames).argmax(1), (labels + 1) % 4)
    assert (np.diff(found.found.astype(int), axis=0) >= 0).all()
    tight = descend(
        bare, bare, frames, labels, (labels + 1) % 4, rate=5.0, rounds=4, bound=1e-4, samples=1, at_clean=False,
        generator=GENERATOR(),
    )  # fmt: skip
    assert not tight.found.any()


def test_our_function_is_the_two_live_stages() -> None:
    frames = pictures(3)
    generator = GENERATOR().manual_seed(5)
    seen = functions(SETTINGS)[OURS].forward(frames, generator)
    seeds = torch.randint(-(2**63), 2**63 - 1, (3,), generator=GENERATOR().manual_seed(5))
    expected = distort(dct_quantise(frames, SETTINGS.table), seeds, SETTINGS.limit, SETTINGS.cell)
    assert torch.equal(seen, expected)
    assert not torch.equal(seen, functions(SETTINGS)[OURS].forward(frames, generator))


def test_an_informed_attacker_gets_the_answers_and_the_gradient_of_the_same_draw() -> None:
    frames = pictures(2).requires_grad_()
    ours = functions(SETTINGS)[OURS]
    weight = pictures(2, seed=1)

    def value(seen: Tensor) -> Tensor:
        return (weight * seen).sum()

    known = ours.known(lambda seen: seen)(frames, GENERATOR().manual_seed(2))
    assert torch.allclose(known, ours.forward(frames, GENERATOR().manual_seed(2)), atol=1e-6)
    (gradient,) = torch.autograd.grad(value(known), frames)
    (exact,) = torch.autograd.grad(value(SETTINGS.distort(frames, GENERATOR().manual_seed(2))), frames)
    assert torch.equal(gradient, exact)
    straight = ours.by_identity(lambda seen: seen)(frames, GENERATOR().manual_seed(2))
    (identity,) = torch.autograd.grad(value(straight), frames)
    assert torch.equal(identity, weight)


@pytest.mark.parametrize("name", list(functions(SETTINGS)))
def test_every_function_keeps_shape_and_range(name: str) -> None:
    function = functions(SETTINGS)[name]
    frames = pictures(2)
    one, two = (function.forward(frames, GENERATOR().manual_seed(seed)) for seed in (1, 2))
    assert one.shape == frames.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, two) != function.random
    if name == NONE:
        assert torch.equal(one, frames)


def subject() -> Subject:
    settings = BundleSettings.model_validate(
        {
            "name": "quadrants", "version": "1", "format": "torchscript", "weights": "none",
            "classes": ["a", "b", "c", "d"],
            "input": {
                "height": SIDE, "width": SIDE, "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "policy": "resize",
            },
        }
    )  # fmt: skip
    ones = torch.ones(3, 1, 1)
    bundle = Bundle("quadrants@1+0", settings, quadrants, None, torch.device("cpu"), 0 * ones, ones)
    parts = []
    for seed in (1, 2):
        images = (pictures(12, seed).permute(0, 2, 3, 1) * 255).to(torch.uint8)
        labels = quadrants(images.permute(0, 3, 1, 2).float() / 255).argmax(1)
        parts.append(LabelledPictures("noise", images.numpy(), labels.numpy()))
    return Subject(bundle, parts[0], parts[1], 0)


def test_the_papers_steps_range_from_20_to_100_and_keep_the_other_settings() -> None:
    tenth = replace(SETTINGS, steps=((2.0, 10.0, *(6.0,) * 6), *((4.0,) * 8,) * 7))
    papers = with_the_papers_steps(tenth)
    assert papers.table.amin() == 20
    assert papers.table.amax() == 100
    assert torch.allclose(papers.table, tenth.table * 10)
    assert (papers.limit, papers.cell) == (tenth.limit, tenth.cell)


def test_the_paper_counts_a_picture_as_broken_if_one_draw_gives_its_target() -> None:
    rows = [
        measured(OURS, "eot-clean", 0.6, 0.4),
        measured("Rand", "eot-clean", 0.7),
        measured("Rand", "eot-current", 1),
    ]
    points = [Point("quadrants", OURS, "eot-clean", number, 1 - number / 4, number / 4) for number in (2, 1)]
    ours, clean, current = tables.released(rows, points).splitlines()[2:]
    assert ours.endswith("| 0.50 / 0.50 | *0.60 / 0.10* |")
    assert "*" not in clean, "the paper's figure for Rand is not of this attack"
    assert current.endswith("| *0.20 / 1.00* |")


def test_the_margin_of_a_share_reaches_the_farther_end_of_its_interval() -> None:
    none_right = replace(measured(OURS, "bpda", 0.0), n=16, ci_high=0.194)
    assert tables.share(none_right) == "0.000 ±0.194"


def test_the_papers_figures_of_table_5_are_shown_for_their_norm() -> None:
    known = [(name, key) for name in ("Rand", "FD") for key in ("known-linf", "known-l2")]
    rows = [replace(measured(name, key, 0.25), targeted=False) for name, key in [*known, (OURS, "eot-10-l2")]]
    rand, fd, ours = (line.split(" | ")[2:] for line in tables.table_5(rows).splitlines()[2:])
    assert "*0.00*" in rand[0]
    assert "*" not in rand[1]
    assert "*" not in fd[0]
    assert "*0.10*" in fd[1]
    assert ours[0] == "not measured"
    assert "*0.58*" in ours[1]


def test_the_largest_distortion_that_keeps_enough_clean_accuracy_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "TABLE_PICTURES", 4)
    monkeypatch.setattr(choose, "learned_table", lambda network, shown: torch.full((8, 8), 20.0))
    monkeypatch.setattr(choose, "made_by", lambda *names: names)
    monkeypatch.setattr(choose, "clean_kept", lambda network, settings, judged: 1 - settings.limit / 2)
    found = choose.chosen(subject(), 3, 0.05, Cache(tmp_path))
    assert found.settings.limit == max(limit for limit in choose.LIMITS if 1 - limit / 2 >= choose.KEEP)
    monkeypatch.setattr(choose, "clean_kept", lambda network, settings, judged: 0.5)
    assert choose.chosen(subject(), 2, 0.05, Cache(tmp_path)).settings.limit == choose.LIMITS[-1]


def test_the_table_counts_the_coefficients_that_an_attack_changes() -> None:
    network = subject()
    table = choose.learned_table(network, network.chosen_on.part(slice(4)))
    assert float(table.max()) == 100
    assert float(table.min()) == 20
    # The network uses the mean of each quarter, and the first coefficient of an 8×8 block is its mean.
    assert float(table[0, 0]) == 100


def test_a_run_writes_its_measurements_and_marks_missing_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "TABLE_PICTURES", 4)
    monkeypatch.setattr(choose, "learned_table", lambda network, shown: torch.full((8, 8), 20.0))
    monkeypatch.setattr(attacked, "learn_surrogate", lambda forward, pictures, seed, steps: identity)
    monkeypatch.setattr(experiment, "SUBJECTS", ("quadrants",))
    monkeypatch.setattr(experiment, "load_subject", lambda name, data, seed: subject())
    budget = replace(Budget().quick(), rounds=2, steps=1, surrogate_steps=1, eot_images=2)
    budget = replace(budget, bpda_images=2, variance_images=4)
    plan = experiment.plan(Workplace(tmp_path / "out", tmp_path / "runs", tmp_path), budget)
    names = {"chosen", "ours/eot-1", "ours/eot-10", "ours/bpda-surrogate-targeted", "ours/variance"}
    names |= {f"{PAPERS_STEPS}/eot-1", f"{PAPERS_STEPS}/variance"}
    expected_rows = {f"quadrants/{name}" for name in names}
    for cell in plan.cells:
        if cell.name in expected_rows:
            plan.measure(cell, "pointillist lab stale")
    assert set(plan.store.rows()) == expected_rows
    variances = plan.store.records("variance", VarianceRow)
    assert {variance.defence for variance in variances} == {OURS, PAPERS_STEPS}
    for variance in variances:
        assert variance.ci_low < variance.ci_high, "an interval of four pictures has a width"
    lines = plan.write_page()
    assert any("clean accuracy kept" in line for line in lines)
    assert any("gradients at the current picture" in line for line in lines)
    out = tmp_path / "out" / "preprocessing"
    page = (out / "README.md").read_text(encoding="utf-8")
    assert "Not measured." in page.partition("### Table 4")[2].partition("### Table 5")[0]
    assert (out / "quadrants" / "eot.png").is_file()
    assert write_report(plan.store) == lines


def test_each_defence_has_its_own_colour_in_the_plot_of_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    names = [f"defence {number}" for number in range(14)]
    points = [Point("cifar10", name, "bpda", number, 0.5, 0.5) for name in names for number in (1, 2)]
    plots.rounds([*points, Point("cifar10", names[-1], "eot-clean", 1, 0.5, 0.5)], tmp_path / "rounds.png")
    axes, other = drawn[0].axes
    solid = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert [line.get_label() for line in solid] == names
    assert len({line.get_color() for line in solid}) == len(names)
    assert other.lines[0].get_color() == solid[-1].get_color(), "a defence has one colour in all panels"
    assert "dashed" in axes.get_ylabel()


def measured(defence: str, attack: str, accuracy: float, found: float | None = None) -> Row:
    return Row(
        "quadrants",
        defence,
        attack,
        attack,
        True,
        None,
        10,
        1,
        accuracy,
        accuracy,
        accuracy,
        accuracy,
        0.0,
        found,
        0,
        0,
    )


@pytest.mark.parametrize(("bare", "is_marked"), [(0.1, True), (0.9, False)])
def test_an_attack_that_does_not_break_the_undefended_network_is_marked_as_weak(bare: float, is_marked: bool) -> None:
    rows = [measured(OURS, "bpda", 0.8, 0.1), measured(NONE, "bpda", 1 - bare, bare)]
    (line,) = verdict(Results("quadrants", None, rows, [], []))
    assert ("IT TELLS LITTLE" in line) == is_marked


def test_a_random_crop_is_a_part_of_the_picture_enlarged_and_is_differentiable() -> None:
    ramp = torch.linspace(0, 1, 56).expand(3, 2, 56, 56).clone().requires_grad_()
    cropped = random_crop(ramp, torch.Generator().manual_seed(0))
    assert cropped.shape == ramp.shape
    # Across a crop of 90 of 224, the ramp rises by as much of its whole.
    rise = (cropped[..., -1] - cropped[..., 0]).detach()
    assert rise.flatten().tolist() == pytest.approx([90 / 224] * rise.numel(), abs=0.03)
    assert len(cropped.detach()[:, 0, 0, 0].unique()) > 1  # type: ignore[no-untyped-call]  # torch does not annotate it
    cropped.sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert ramp.grad is not None
    assert 0 < float((ramp.grad != 0).float().mean()) < 0.3
