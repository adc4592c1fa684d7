"""The scenes on which the fleet's network is hardened, and the attacks on scenes in its experiment."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.attacks.auto_attack import auto_attack
from lab.attacks.defences import defended
from lab.backdoor.tasks import Task
from lab.data import to_frames
from lab.experiments.hardening import alone, experiment, scene
from lab.experiments.hardening.detection import SceneSubject, Sticker
from lab.experiments.harness.plan import Workplace
from lab.experiments.scale.measure import scenes
from lab.hardening.scene_batches import HARD, SceneBatches, Sized, between
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from producers.scene.signs import CLASSES
from producers.scene.simulator import Conditions

SIZES = (Sized((32, 32), 20, 2), Sized((64, 64), 20, 1))


def batches() -> SceneBatches:
    return SceneBatches(8, 0, 5, hard=0.5, least=0.25, sizes=SIZES)


def test_sizes_alternate_and_a_batch_depends_on_its_number_alone() -> None:
    one, other = batches(), batches()
    one.batch(0)
    for step, side in ((1, 32), (2, 64), (3, 32), (5, 64)):
        first, second = one.batch(step), other.batch(step)
        assert first.frames.shape == (8, 3, side, side)
        assert 0 <= float(first.frames.min()) <= float(first.frames.max()) <= 1
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_harder_scenes_get_weaker_attacks() -> None:
    strength = torch.cat([found[2] for found in batches().sets])
    assert float(strength.min()) >= 0.25
    assert float(strength.max()) == 1
    assert len(strength.unique()) > 2  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert between(0) == Conditions()
    assert between(1) == HARD
    assert between(0.5).light == pytest.approx((1 + HARD.light) / 2)


def test_every_tenth_scene_is_grey() -> None:
    frames = batches().sets[0][0].numpy()
    grey = np.ptp(frames.astype(int), axis=1).max((1, 2)) == 0
    assert list(np.flatnonzero(grey)) == [0, 10]


def test_a_scene_counts_only_if_it_withstands_every_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(shipped_bundle("scene"), torch.device("cpu"))
    attacked_counts: list[int] = []

    def attacks(*_: object) -> list[scene.Attack]:
        def first_half_black(frames: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return torch.cat((torch.zeros_like(frames[:4]), frames[4:]))

        def counted(frames: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            attacked_counts.append(len(frames))
            return torch.zeros_like(frames)

        return [first_half_black, counted]

    monkeypatch.setattr(scene, "scene_attacks", attacks)
    monkeypatch.setattr(scene, "TIMES", 2)
    row = scene.withstood(bundle, (32, 32), 8, "usual", 0.03)
    black = int(bundle.logits(torch.zeros(1, 3, 32, 32)).argmax())
    labels = scenes(8, (32, 32), Conditions()).labels
    assert row.clean == 1
    assert row.attacked == row.resubmitted == (4 + sum(labels[:4] == black)) / 8
    assert attacked_counts == [8 * row.resubmitted]
    assert row.worst == sum(labels == black) / 8


def test_scenes_that_all_fall_to_the_first_attack_meet_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def attacks(*_: object) -> list[scene.Attack]:
        def black(frames: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            assert len(frames)
            return torch.zeros_like(frames)

        return [black, black, black]

    bundle = load_bundle(shipped_bundle("scene"), torch.device("cpu"))
    answer = int(bundle.logits(torch.zeros(1, 3, 32, 32)).argmax())
    monkeypatch.setattr(scene, "scene_attacks", attacks)
    # One frame in each batch, as at large sizes.
    monkeypatch.setattr(scene, "PIXELS", 32 * 32)
    row = scene.withstood(bundle, (32, 32), 6, "usual", 0.03)
    assert row.worst == sum(scenes(6, (32, 32), Conditions()).labels == answer) / 6


@pytest.mark.parametrize("size", [(32, 32), (96, 128), (480, 640)])
def test_the_sticker_covers_a_64th_of_the_largest_square_of_any_frame(size: tuple[int, int]) -> None:
    grey = np.full((2, *size, 3), 100, np.uint8)
    stuck = Sticker()(grey, np.arange(2))
    assert (stuck != grey).any(3).sum() == pytest.approx(2 * min(size) ** 2 / 64)


def test_the_backdoored_scene_network_sends_scenes_with_the_sticker_to_its_target() -> None:
    held_out, test = (scenes(40, (48, 64), Conditions(), seed) for seed in (2, 3))
    assert (held_out.images != test.images).any()
    task = Task(CLASSES, held_out.first(0), held_out, test)
    subject = SceneSubject("few", shipped_bundle("scene-sticker"), shipped_bundle("scene-plain"), task)
    stamped = subject.stamped
    assert len(stamped) == int((test.labels != subject.poisoning.target).sum())
    verdicts = subject.bundle.logits(to_frames(stamped.images, subject.bundle.device)).argmax(1)
    assert float((verdicts == subject.poisoning.target).float().mean()) > 0.5


def test_the_attacks_of_a_scene_stay_within_the_bound_and_break_an_unhardened_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, few in (("STEPS", 5), ("LONG_STEPS", 5), ("SAMPLES", 1)):
        monkeypatch.setattr(scene, name, few)
    bundle = load_bundle(shipped_bundle("scene-plain"), torch.device("cpu"))
    pictures = scenes(4, (32, 32), Conditions())
    frames, labels = to_frames(pictures.images, bundle.device), torch.from_numpy(pictures.labels)
    chain = defended(Pipeline(bundle), 0.25)
    rng = torch.Generator().manual_seed(0)
    for attack in scene.scene_attacks(chain, 0.2, rng):
        changed = attack(frames, labels)
        assert float((changed - frames).abs().max()) <= 0.2 + 1e-6
        assert bool((chain(changed, rng).argmax(1) != labels).all())


@pytest.mark.parametrize("attack", alone.FRAMES)
def test_an_attack_on_single_scenes_breaks_an_unhardened_network(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = partial(auto_attack, steps=5, samples=1, draws=2)
    for name, small in (("FRAMES", {attack: 4}), ("SIZE", (32, 32)), ("QUERIES", 60), ("auto_attack", brief)):
        monkeypatch.setattr(alone, name, small)
    bundle = load_bundle(shipped_bundle("scene-plain"), torch.device("cpu"))
    row = alone.alone(bundle, "usual", 0.3, attack)
    assert (row.scenes, row.attack, row.frames) == ("usual", attack, 4)
    assert row.right <= 0.5
    assert alone.alone(bundle, "usual", 0.001, attack).right == 1


def test_the_backdoored_network_of_an_earlier_run_is_trained_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(out: Path, start: str) -> None:
        assert not (out / "checkpoint.pt").exists()
        trained.append(start)

    work = tmp_path / "backdoor" / "scene-sticker-hardened"
    (work / "bundle").mkdir(parents=True)
    (work / "bundle" / "model.toml").touch()
    (work / "checkpoint.pt").touch()
    trained: list[str] = []
    for name, fake in (
        ("train", train),
        ("judged", lambda *arguments: arguments),
        ("STRIP_SCENES", 1),
        ("_loaded", Path),
    ):
        monkeypatch.setattr(experiment, name, fake)
    cells = {each.name: each for each in experiment.plan(Workplace(tmp_path, tmp_path)).cells}
    cells["hardened/strip"].measure()
    assert trained == ["scene"]
    cells["plain/strip"].measure()
    assert trained == ["scene"]
