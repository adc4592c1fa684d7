"""Adversarial training: it makes a network robust, resumes after a stop, and notices overfitting to its attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lab.data import to_frames
from lab.hardening.attack import attacked
from lab.hardening.chance import generator_at, number_at
from lab.hardening.guard import Look, milder, overfits
from lab.hardening.measure import Shares, measure
from lab.hardening.objective import trades_loss
from lab.hardening.processes import Processes
from lab.hardening.run import Hardened, harden
from lab.hardening.settings import HardenSettings
from lab.hardening.train import Training
from lab.hardening.training_batches import PictureBatches, TrainingBatch
from lab.repair.checkpoints import Checkpoint
from lab.repair.inputs import trainable_copy
from processors.bundle import Bundle
from schemas.errors import ConfigError
from tests.lab.nonrobust_network import EPS, nonrobust_bundle, pictures

SMALL = HardenSettings(epochs=3, batch=16, eps=EPS, rate=0.1, average_decay=0.7)
HELD_OUT = pictures(24, seed=2)


class RecordedLines:
    """A receiver of progress that keeps the printed lines."""

    def __init__(self, lines: list[str]) -> None:
        self.print_line = lines.append

    def phase(self, name: str, steps: int) -> None:
        pass

    def advance(self, steps: int) -> None:
        pass


class StoppedError(Exception):
    """The interruption of a run in a test."""


def training(
    settings: HardenSettings = SMALL, file: Path | None = None, advance: Callable[[int], object] = lambda count: None,
    lines: list[str] | None = None,
) -> Training:  # fmt: skip
    bundle = nonrobust_bundle()
    batches = PictureBatches(pictures(96, seed=1), settings.batch, settings.seed)
    held_out = to_frames(HELD_OUT.images, bundle.device), torch.from_numpy(HELD_OUT.labels)
    return Training(
        bundle, trainable_copy(bundle), batches, held_out, settings, checkpoint=Checkpoint(file, "same"),
        processes=Processes(), report=(lines if lines is not None else []).append, advance=advance,
    )  # fmt: skip


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def stopping_after(steps: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done >= steps:
            raise StoppedError

    return advance


@cache
def nonrobust_shares() -> Shares:
    return measure(nonrobust_bundle(), HELD_OUT, eps=EPS, drop=0.25)


@pytest.mark.parametrize("changed", [{}, {"steps": 2}, {"trades": 3.0}], ids=["one step", "pgd", "trades"])
def test_hardening_makes_a_nonrobust_network_robust(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.hardening.measure.STEPS", 4)
    monkeypatch.setattr("lab.hardening.measure.SAMPLES", 2)
    bundle = nonrobust_bundle()
    before = nonrobust_shares()
    hardened = training(replace(SMALL, **changed)).run()
    after = measure(replace(bundle, network=hardened), HELD_OUT, eps=EPS, drop=0.25)
    assert before.clean > 0.95
    assert before.robust < 0.2
    assert after.clean > 0.9
    assert after.robust > 0.7


def test_a_stopped_run_resumes_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole = training().run()
    with pytest.raises(StoppedError):  # 18 steps, with a checkpoint after every third
        training(file=tmp_path / "state.pt", advance=stopping_after(10)).run()
    lines: list[str] = []
    resumed = training(file=tmp_path / "state.pt", lines=lines).run()
    assert lines[0] == "resumed after step 9 of 18"
    assert same(whole, resumed)


def test_figures_before_and_after_are_of_the_same_pictures_despite_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hardening.measure.STEPS", 1)
    monkeypatch.setattr("lab.hardening.measure.SAMPLES", 1)
    epochs, lines = replace(SMALL, epochs=1), list[str]()

    def hardened(measured: int, bundle: Bundle) -> Hardened:
        lines.clear()
        batches = PictureBatches(pictures(96, seed=1), SMALL.batch, SMALL.seed)
        return harden(
            bundle, batches, HELD_OUT, epochs, inputs="same", work=tmp_path, processes=Processes(),
            progress=RecordedLines(lines), measured=measured,
        )  # fmt: skip

    bundle = nonrobust_bundle()
    for measured in (4, 12):
        found = hardened(measured, bundle)
        assert (found.before.count, found.after.count) == (measured, measured)
    assert "resumed after step 6 of 6" in lines
    other = bundle.settings.input.model_copy(update={"std": [2 * each for each in bundle.settings.input.std]})
    hardened(4, replace(bundle, settings=bundle.settings.model_copy(update={"input": other})))
    assert any("of other inputs" in line for line in lines)


def test_a_checkpoint_of_other_inputs_is_replaced_and_a_line_reports_it(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    Checkpoint(file, "others").save({"now": None})
    lines: list[str] = []
    with pytest.raises(StoppedError):
        training(file=file, advance=stopping_after(1), lines=lines).run()
    assert lines == [f"restarted: {file} is of other inputs, or damaged"]


def test_the_global_generator_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    first = training(replace(SMALL, epochs=1)).run()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = training(replace(SMALL, epochs=1)).run()
    assert same(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_guard_returns_to_the_last_good_state_with_more_attack_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([(0.5, 0.4), (0.6, 0.5), (0.9, 0.1), (0.6, 0.5)] + [(0.6, 0.5)] * 9)
    monkeypatch.setattr(Training, "_shares", lambda self: next(accuracies))
    lines, advanced = list[str](), list[int]()
    run = training(lines=lines, advance=advanced.append)
    run.run()
    assert sum(advanced) == 18, "the progress is taken back too"
    assert [line for line in lines if "overfits" in line] == [
        "step 9 of 18: held-out 0.900 under one step, 0.100 under PGD; overfits the attack: back to step 6, with 2 "
        "attack steps"
    ]
    assert run.attack_steps == 2
    assert lines[3].startswith("step 9 of 18: held-out 0.600")


def test_a_run_stopped_after_the_guard_acted_resumes_with_its_attack_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shares(self: Training) -> tuple[float, float]:
        return (0.9, 0.1) if self.step == 9 and self.attack_steps == 1 else (0.6, 0.5 if self.step < 9 else 0.6)

    monkeypatch.setattr(Training, "_shares", shares)
    whole = training().run()
    with pytest.raises(StoppedError):
        training(file=tmp_path / "state.pt", advance=stopping_after(10)).run()
    resumed = training(file=tmp_path / "state.pt")
    assert same(whole, resumed.run())
    assert resumed.attack_steps == 2


def test_overfitting_is_a_fall_under_pgd_without_a_fall_under_one_step() -> None:
    best = Look(0.5, 0.4)
    assert overfits(best, Look(0.8, 0.1))
    assert not overfits(best, Look(0.8, 0.3))  # a small fall under PGD
    assert not overfits(best, Look(0.3, 0.1))  # both fall: the rate is too high
    assert not overfits(None, Look(0.9, 0.0))
    assert not overfits(Look(0.1, 0.05), Look(0.9, 0.0))  # the accuracy is still too low to fall
    assert [milder(1, 16), milder(2, 16), milder(12, 16)] == [2, 4, 16]


@given(st.integers(0, 2**31), st.integers(1, 3))
def test_the_attack_stays_within_its_bounds(seed: int, steps: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    frames = torch.rand(3, 1, 4, 4, generator=rng)
    noise = torch.rand(frames.shape, generator=rng) * 2 - 1
    eps = torch.tensor([0.0, 0.02, 0.1])[:, None, None, None]

    def logits(some: Tensor, kept: Tensor) -> Tensor:
        total = (some * kept).flatten(1).sum(1)
        return torch.stack((total, -total), 1)

    masks = [torch.rand(3, 1, 4, 4, generator=rng) > 0.3 for _ in range(steps)]
    changed = attacked(logits, frames, torch.tensor([0, 0, 1]), noise, masks, eps=eps, start=2.0)
    reach = eps * (3 if steps == 1 else 1)
    assert bool(((changed - frames).abs() <= reach + 1e-6).all())
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert torch.equal(changed[0], frames[0])


def test_the_trades_loss_equals_its_formula() -> None:
    clean, other = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])
    p, q = clean.softmax(1), other.softmax(1)
    expected = -p[range(5), labels].log().mean() + 6 * (p * (p / q).log()).sum(1).mean()
    assert trades_loss(clean, other, labels, 6.0).item() == pytest.approx(expected.item())


def test_every_draw_has_its_own_random_number() -> None:
    places = [(0,), (1,), (0, 1), (1, 1), (0, 0, 1), (2**31, 3)]
    assert len({number_at(seed, *place) for seed in (0, 1) for place in places}) == 2 * len(places)
    first, second = (torch.rand(3, generator=generator_at(5, 1, 2)) for _ in range(2))
    assert torch.equal(first, second)


def test_an_epoch_contains_every_picture_once_with_its_label() -> None:
    found = pictures(70, seed=3)
    found.images[:] = 0
    found.images[:, 4, 4, 0] = range(70)
    batches = PictureBatches(found, 32, 0, flip=False)
    for epoch in range(2):
        every: list[TrainingBatch] = [batches.batch(epoch * len(batches) + number) for number in range(len(batches))]
        numbers = torch.cat([(each.frames[:, 0].amax((1, 2)) * 255).round().long() for each in every])
        assert len(numbers) == 64 == len(set(numbers.tolist()))
        assert torch.equal(torch.cat([each.labels for each in every]), torch.from_numpy(found.labels)[numbers])
    assert torch.equal(batches.batch(1).frames, PictureBatches(found, 32, 0, flip=False).batch(1).frames)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"eps": 0.0}, "eps: expected"),
        ({"eps": 2.0}, "eps: expected"),
        ({"steps": 17}, "at most 16, got 17"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"trades": -1.0}, "trades: expected"),
        ({"rate": float("nan")}, "rate: expected"),
        ({"drops": ()}, "at least one ratio"),
        ({"drops": (0.9,)}, "drop ratio: expected 0 to 0.875"),
        ({"batch": 30, "shards": 4}, "multiple of 4"),
        ({"average_decay": 1.0}, "average: expected"),
    ],
)
def test_invalid_settings_are_rejected_in_one_line(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as found:
        HardenSettings(**changed)
    assert "\n" not in str(found.value)
