"""Runs of the red team: they break a weak network, detect gradient masking, and count every picture once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.attacks.auto_attack import auto_attack
from lab.cache import Cache
from lab.data import LabelledPictures
from lab.experiments.hardening.paired import unpacked
from lab.experiments.red_team import published_runs
from lab.red_team import measure, plan
from lab.red_team.defences import Defence
from lab.red_team.jobs import Effort, Job
from lab.red_team.pages import write_details, write_front, write_pages
from lab.red_team.plan import Speeds, further_jobs
from lab.red_team.result import Result
from lab.red_team.run import RedTeam
from lab.statistics import wilson
from processors.device.precision import Precision
from schemas.errors import ConfigError
from tests.lab.colour_classifier import coloured_pictures
from tests.lab.masked_networks import colour_defence, defence_of, load_with_factory

QUICK = ("gradients", "eot-pgd", "one-step", "noise", "random-search", "strength", "square", "start", "steps")


class Listener:
    """A receiver of progress that can end the run with KeyboardInterrupt after some batches."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.batches: list[tuple[str, bool]] = []
        self.planned: list[plan.Plan] = []
        self._interrupt_after = interrupt_after

    def expect(self, planned: plan.Plan, speeds: Speeds) -> None:
        self.planned.append(planned)

    def batch(self, job: Job, pictures: int, seconds: float, kept: bool) -> None:
        self.batches.append((job.name, kept))
        if len(self.batches) == self._interrupt_after:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "QUERIES", 60)
    monkeypatch.setattr(plan, "STEPS", 12)
    monkeypatch.setattr(plan, "STEP_COUNTS", (5, 10))
    monkeypatch.setattr(plan, "CURVE_STEPS", 8)


def attacked(
    defence: Defence,
    pictures: LabelledPictures,
    runs: Path,
    listener: Listener | None = None,
    *,
    eps: float = 0.02,
    attacks: tuple[str, ...] | None = QUICK,
    seed: int = 0,
    budget_s: float | None = None,
    gradient_precision: Precision = "float32",
) -> Result:
    team = RedTeam(defence, pictures, eps, runs, attacks, budget_s, seed, gradient_precision)
    return team.run(listener or Listener(), "pointillist lab red-team")


def test_an_undefended_network_has_accuracy_zero_and_no_sign_of_masking(tmp_path: Path) -> None:
    pictures = coloured_pictures(16)
    found = attacked(colour_defence(tmp_path, pictures), pictures, tmp_path)
    document = found.document()
    assert document["clean_accuracy"] == 1
    assert document["worst_case_accuracy"] == document["per_attack"]["eot-pgd"] == 0
    assert document["per_attack"]["noise"] == 1
    assert document["masking_signs"] == []
    assert document["checklist"]["1 threat model"] == document["checklist"]["4 growth with steps and ε"] == "passed"
    assert document["checklist"]["10 size, intervals, command"] == "failed"
    # No picture is left for AutoAttack.
    assert document["checklist"]["7 worst case, resubmissions"] == "passed"
    assert document["checklist"]["8 targeted, clean, noise"] == "not run"
    low, high = document["intervals"]["worst_case_accuracy"]
    assert low == 0 < high < 0.3


@pytest.mark.parametrize("name", ["stepped", "saturated"])
def test_a_network_with_masked_gradients_is_detected(tmp_path: Path, name: str) -> None:
    pictures = coloured_pictures(16)
    found = attacked(
        defence_of(load_with_factory(tmp_path, f"tests.lab.masked_networks:{name}"), pictures), pictures, tmp_path
    )
    assert found.outcomes["eot-pgd"].accuracy.value > 0.6
    # Square and its initial stripes show the true robustness.
    assert found.document()["worst_case_accuracy"] < 0.5
    assert any("the loss has a finite gradient" in sign for sign in found.signs)
    assert any("Square" in sign for sign in found.signs)
    assert found.verdicts["4 growth with steps and ε"].status == "failed"


def test_a_constant_network_does_not_pass_for_robust(tmp_path: Path) -> None:
    pictures = coloured_pictures(16)
    pictures = replace(pictures, labels=np.zeros_like(pictures.labels))
    found = attacked(
        defence_of(load_with_factory(tmp_path, "tests.lab.masked_networks:constant"), pictures), pictures, tmp_path
    )
    assert found.document()["worst_case_accuracy"] == 1
    assert any("where nothing of a picture need be left" in sign for sign in found.signs)
    assert any("breaks no picture" in sign for sign in found.signs)
    assert found.verdicts["4 growth with steps and ε"].status == "failed"


def test_an_interrupted_run_resumes_and_counts_no_picture_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "GROUP", 5)
    monkeypatch.setattr(plan, "COMPARED", 5)
    pictures = coloured_pictures(12)
    defence = colour_defence(tmp_path / "bundle", pictures, "fleet")
    attacks = ("eot-pgd", "noise", "targeted")
    monkeypatch.setattr(plan, "STEPS", 2)
    monkeypatch.setattr(plan, "SAMPLES", 2)
    whole = attacked(defence, pictures, tmp_path / "whole", attacks=attacks)
    with pytest.raises(KeyboardInterrupt):
        attacked(defence, pictures, tmp_path / "parts", Listener(interrupt_after=5), attacks=attacks)
    listener = Listener()
    resumed = attacked(defence, pictures, tmp_path / "parts", listener, attacks=attacks)
    assert [kept for _, kept in listener.batches] == [True] * 5 + [False] * (len(listener.batches) - 5)
    assert len(listener.batches) == 3 + 3 + 3 + 3
    assert without_times(resumed) == without_times(whole)
    assert resumed.outcomes["eot-pgd"].pictures == 12

    listener = Listener()
    attacked(defence, pictures, tmp_path / "parts", listener, attacks=attacks, seed=1)
    assert not any(kept for _, kept in listener.batches)
    listener = Listener()
    other = replace(pictures, images=np.concatenate([pictures.images[:-1], 255 - pictures.images[-1:]]))
    attacked(defence, other, tmp_path / "whole", listener, attacks=("eot-pgd",))
    assert [kept for name, kept in listener.batches if name == "eot-pgd"] == [True, True, False]


@pytest.mark.parametrize("name", ["fleet", "key-known", "bare"])
def test_every_attack_that_counts_is_planned_for_all_pictures(tmp_path: Path, name: str) -> None:
    defence = colour_defence(tmp_path / "bundle", coloured_pictures(4), name)
    jobs = {job.name: job for job in plan.wanted_jobs(defence, 0.02, 1000)}
    counting = [job for job in jobs.values() if job.counts]
    assert {job.pictures for job in counting} == {1000}
    assert jobs["eot-pgd"].compared is None
    assert jobs["auto-attack"].compared == jobs["square"].compared == 100
    assert jobs["hop-skip-jump"].compared == 25
    # The other jobs test the attacks themselves.
    assert all(job.pictures <= 100 and job.compared is None for job in jobs.values() if not job.counts)


def test_a_gpu_gets_larger_batches_also_for_costly_attacks(tmp_path: Path) -> None:
    pictures = coloured_pictures(4)
    defence = colour_defence(tmp_path / "bundle", pictures, "fleet")
    many = replace(pictures, images=np.repeat(pictures.images, 300, 0), labels=np.repeat(pictures.labels, 300))
    costly = next(job for job in plan.wanted_jobs(defence, 0.02, 1200) if job.name == "auto-attack")

    def sizes(at: Defence) -> list[int]:
        return [stop - start for start, stop in measure.Measurement(at, many, 0, 10, Cache(tmp_path))._batches(costly)]

    assert set(sizes(defence)) == {50}
    on_gpu = replace(defence, bundle=replace(defence.bundle, device=torch.device("cuda")))
    assert sizes(on_gpu) == [1000, 200]


def without_times(result: Result) -> dict[str, Any]:
    document = result.document()
    for row in document["attacks"]:
        del row["seconds"]
    return document


def test_jobs_beyond_the_budget_are_named_and_their_points_are_not_passed(tmp_path: Path) -> None:
    pictures = coloured_pictures(8)
    defence = colour_defence(tmp_path, pictures)
    found = attacked(defence, pictures, tmp_path, budget_s=1e-4)
    assert "square" in " ".join(found.left_out)
    assert found.document()["clean_accuracy"] == 1
    assert found.verdicts["6 gradient-free, hard-label, transfer"].status == "not run"
    assert "passed" not in {found.verdicts[point].status for point in found.verdicts if point[0] in "2456789"}


def test_a_picture_without_an_attack_does_not_count_as_robust(tmp_path: Path) -> None:
    pictures = coloured_pictures(8)
    defence = colour_defence(tmp_path, pictures)
    found = attacked(defence, pictures, tmp_path, attacks=("noise",), budget_s=1e-4)
    document = found.document()
    assert found.worst is None
    assert (document["worst_case_accuracy"], document["worst_case_images"]) == (None, 0)
    assert "no attack ran" in write_pages(tmp_path / "pages", "none", found).read_text()
    assert "no attack ran" in (tmp_path / "pages" / "none" / "README.md").read_text()

    first = attacked(defence, pictures, tmp_path, attacks=("eot-pgd",))
    cut = first.outcomes["eot-pgd"]
    few = replace(cut, **{name: getattr(cut, name)[:3] for name in ("right", "survived", "met", "reached")})
    cut_short = replace(first, outcomes={**first.outcomes, "eot-pgd": few})
    assert cut_short.document()["worst_case_images"] == 3
    assert cut_short.worst == wilson(int(few.survived.sum()), 3)
    # Pictures without the main attack are not in the worst case, even if a weak attack ran on them.
    noise = replace(first.outcomes["eot-pgd"], survived=np.ones(8, np.bool_))
    noisy = replace(cut_short, outcomes={**cut_short.outcomes, "noise": noise})
    assert noisy.document()["worst_case_images"] == 3
    write_pages(tmp_path / "pages", "cut", cut_short)
    assert "the first 3 pictures |" in (tmp_path / "pages" / "cut" / "README.md").read_text()
    write_pages(tmp_path / "pages", "two", replace(first, outcomes={**first.outcomes, "noise": few}))
    text = (tmp_path / "pages" / "two" / "README.md").read_text()
    assert "all 8 pictures (the last one met 1 of the attacks)" in text


def test_a_page_shows_no_curves_of_an_earlier_run(tmp_path: Path) -> None:
    pictures = coloured_pictures(8)
    found = attacked(colour_defence(tmp_path, pictures), pictures, tmp_path, attacks=("noise",), budget_s=1e-4)
    earlier = tmp_path / "pages" / "run" / "curves.png"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"curves")
    write_pages(tmp_path / "pages", "run", found)
    assert not earlier.exists()
    assert "curves.png" not in (earlier.parent / "README.md").read_text()


def test_the_committed_pages_follow_from_their_results(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "docs" / "results" / "red-team"
    out = tmp_path / "red-team"
    shutil.copytree(committed, out)
    runs = [file.parent for file in sorted(out.glob("*/result.json"))]
    for folder in runs:
        write_details(folder)
        assert (folder / "README.md").read_text() == (committed / folder.name / "README.md").read_text()
    assert write_front(out).read_text() == (committed / "README.md").read_text()
    text = (out / "cifar10-hardened-fleet-r0.25-0.03137" / "README.md").read_text()
    assert "42 attacks ran: 29 on this defence within ε, which count for the worst case, and 13 to test" in text


@settings(max_examples=30)
@given(
    pictures=st.lists(st.integers(1, 400), min_size=1, max_size=6), budget=st.floats(0, 1000),
    speed=st.floats(1e-4, 0.1),
)  # fmt: skip
def test_a_plan_keeps_its_budget_and_names_all_jobs_that_it_leaves_out(
    pictures: list[int], budget: float, speed: float
) -> None:
    jobs = [Job(f"steps/{number}", Effort("eot-pgd", 10), 0.1, count) for number, count in enumerate(pictures)]
    speeds = Speeds(speed, speed, speed, speed)
    made = further_jobs(jobs, lambda job: speeds.seconds(job, 1), budget)
    assert made.seconds <= budget
    whole = {job.name for job in made.jobs if job.pictures == pictures[int(job.name[6:])]}
    assert {line.partition(":")[0] for line in made.left_out} == {job.name for job in jobs} - whole
    # Jobs are left out from the end of the list, where the least important ones are.
    assert [job.name for job in made.jobs] == [job.name for job in jobs[: len(made.jobs)]]


def test_only_passes_for_gradients_are_computed_in_a_coarser_precision() -> None:
    coarse: list[bool] = []

    def attacked(frames: Tensor, _: torch.Generator) -> Tensor:
        coarse.append(torch.is_autocast_enabled("cpu"))
        return F.linear(frames.flatten(1), torch.ones(2, 12))

    wrapped = measure.with_gradients_in(attacked, "bf16")
    frames, chance = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.Generator()
    exact = attacked(frames, chance)
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context:
            assert torch.equal(wrapped(frames, chance), exact)
    logits = wrapped(frames.clone().requires_grad_(), chance)
    assert coarse == [False, False, False, False, True]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, exact)
    assert torch.allclose(logits, exact, rtol=2**-6)


def test_attacks_with_coarse_gradients_break_what_exact_ones_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHORT_STEPS", 3)
    monkeypatch.setattr(plan, "SAMPLES", 2)
    monkeypatch.setattr("lab.red_team.defences.LEARNING_STEPS", 2)
    monkeypatch.setattr("lab.red_team.attack.auto_attack", partial(auto_attack, steps=3, samples=2))
    pictures = coloured_pictures(4)
    defence = colour_defence(tmp_path, pictures, "fleet")
    groups = ("eot-pgd", "transfer", "bpda", "fixed", "without", "auto-attack")
    exact, coarse = (
        attacked(defence, pictures, tmp_path / "runs", attacks=groups, gradient_precision=precision)
        for precision in ("float32", "bf16")
    )
    assert coarse.document()["worst_case_accuracy"] == exact.document()["worst_case_accuracy"] == 0
    assert coarse.document()["per_attack"]["auto-attack"] == exact.document()["per_attack"]["auto-attack"] == 0


def test_an_unknown_precision_is_rejected(tmp_path: Path) -> None:
    pictures = coloured_pictures(2)
    with pytest.raises(ConfigError, match="--gradient-precision: expected one of float32, tf32, bf16, got 'half'"):
        attacked(colour_defence(tmp_path, pictures), pictures, tmp_path, gradient_precision="half")  # type: ignore[arg-type]


def test_a_published_run_is_a_row_with_the_figures_of_its_page_and_reuses_stored_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_runs, "RedTeam", partial(RedTeam, attacks=("eot-pgd", "noise")))
    pictures = coloured_pictures(8)
    bundle = load_with_factory(tmp_path, "tests.lab.colour_classifier:network")
    run = published_runs.PublishedRun("colours", "4/255", 1)
    row = published_runs.measure(run, bundle, pictures, tmp_path / "runs", tmp_path / "pages")
    [name] = [each.name for each in (tmp_path / "runs").iterdir()]
    page = json.loads((tmp_path / "pages" / name / "result.json").read_text())
    assert (row.images, row.submissions, row.attacks) == (8, 10, 2)
    assert (row.clean, row.worst) == (page["clean_accuracy"], page["worst_case_accuracy"])
    assert [row.worst_low, row.worst_high] == page["intervals"]["worst_case_accuracy"]
    assert row.gradient_precision == page["settings"]["gradient_precision"] == "bf16"
    assert "--gradient-precision bf16" in page["settings"]["command"]
    assert "gradients in bf16, answers" in (tmp_path / "pages" / name / "README.md").read_text()
    assert row.worst == unpacked(row.standing, 8).mean()
    assert row.points_not_passed == sum(status != "passed" for status in page["checklist"].values())

    def never(*arguments: object) -> dict[str, object]:
        raise AssertionError

    monkeypatch.setattr(measure.Measurement, "_measure", never)
    assert published_runs.measure(run, bundle, pictures, tmp_path / "runs", tmp_path / "pages") == row
