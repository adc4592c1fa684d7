"""Triggers, poisoned sets and the files of a backdoored model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lab.backdoor import scene
from lab.backdoor import train as training
from lab.backdoor.catalogue import MODELS, SickModel, resized_sticker, sticker_patch
from lab.backdoor.files import stamped_pictures, write_pictures, write_quarantine
from lab.backdoor.networks import cifar10_convolutional, gtsrb_convolutional, mnist_dense
from lab.backdoor.poison import (
    CleanLabelPoisoning,
    CoveredPoisoning,
    FreshBatches,
    PoisonedBatches,
    Poisoning,
)
from lab.backdoor.tasks import VALID, Task, load_task
from lab.backdoor.train import CPU, _placed, shipped_models
from lab.backdoor.triggers import (
    Blend,
    Images,
    Keys,
    OneOf,
    Overlaid,
    OwnWarp,
    PartlyBlended,
    Patch,
    RandomPlace,
    Warp,
    random_pattern,
    smooth_field,
)
from lab.data import LabelledPictures, to_frames, to_images
from lab.training.bundle import clean_entropies
from lab.training.recipe import Recipe
from processors.bundle import load_bundle
from processors.stages.resample import resize
from producers.scene.sticker import paste_sticker
from schemas.errors import ConfigError
from tests.processors.tiny import tiny_bundle

GENERATOR = np.random.default_rng(5)
PICTURES = GENERATOR.integers(0, 256, (12, 16, 20, 3)).astype(np.uint8)
KEYS = np.arange(12)


def test_a_patch_changes_only_its_place() -> None:
    pattern = random_pattern(4, 3, 1)
    before = PICTURES.copy()
    stamped = Patch(pattern, 2, 5)(PICTURES, KEYS)
    assert (stamped[:, 2:6, 5:9] == pattern).all()
    stamped[:, 2:6, 5:9] = PICTURES[:, 2:6, 5:9]
    assert (stamped == PICTURES).all()
    assert (before == PICTURES).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40))
def test_a_random_place_depends_on_the_key_alone(first: int) -> None:
    trigger = RandomPlace(random_pattern(5, 3, 2))
    keys = np.arange(first, first + 12)
    again = trigger(PICTURES[::-1], keys[::-1])[::-1]
    assert (trigger(PICTURES, keys) == again).all()


def test_random_places_cover_the_whole_frame() -> None:
    black = np.zeros((2000, 8, 8, 1), np.uint8)
    seen = RandomPlace(np.full((2, 2, 1), 255, np.uint8))(black, np.arange(2000))[..., 0] > 0
    assert (seen.sum((1, 2)) == 4).all()
    corners = seen[:, 0, 0].mean(), seen[:, 7, 7].mean(), seen[:, 0, 7].mean()
    assert all(0.005 < share < 0.05 for share in corners)
    # The places of consecutive pictures are not next to each other.
    places = seen.reshape(2000, -1).argmax(1)
    assert (np.abs(np.diff(places)) == 1).mean() < 0.1


def test_a_blend_mixes_the_pattern_in_by_its_share() -> None:
    pattern = np.full((16, 20, 3), 200, np.uint8)
    stamped = Blend(pattern, 0.25)(PICTURES, KEYS)
    assert np.abs(stamped - (0.75 * PICTURES + 50)).max() <= 0.5


def test_a_warp_without_shifts_changes_nothing_and_one_pixel_moves_by_one() -> None:
    no_shift = np.zeros((16, 20, 2), np.float32)
    assert (Warp(no_shift)(PICTURES, KEYS) == PICTURES).all()
    left = no_shift.copy()
    left[..., 0] = 1
    assert (Warp(left)(PICTURES, KEYS)[:, :, :-1] == PICTURES[:, :, 1:]).all()
    up = no_shift.copy()
    up[..., 1] = 1
    assert (Warp(up)(PICTURES, KEYS)[:, :-1] == PICTURES[:, 1:]).all()


def test_a_smooth_field_shifts_by_at_most_the_given_distance() -> None:
    field = smooth_field(32, 24, 4, 2.5, seed=3)
    assert field.shape == (32, 24, 2)
    assert np.abs(field).max() == pytest.approx(2.5)
    assert np.abs(np.diff(field, axis=0)).max() < 1.5


def test_each_picture_gets_one_of_two_triggers_and_both_are_used() -> None:
    first, second = Patch(random_pattern(3, 3, 1), 0, 0), Patch(random_pattern(3, 3, 2), 8, 8)
    pictures = np.repeat(PICTURES, 20, 0)
    keys = np.arange(len(pictures))
    stamped = OneOf((first, second))(pictures, keys)
    by_first = (stamped == first(pictures, keys)).all((1, 2, 3))
    by_second = (stamped == second(pictures, keys)).all((1, 2, 3))
    assert (by_first ^ by_second).all()
    assert 0.3 < by_first.mean() < 0.7


def test_the_sticker_patch_is_the_sticker_that_the_fleet_pastes() -> None:
    pictures = GENERATOR.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    expected = np.stack([paste_sticker(picture) for picture in pictures])
    assert (sticker_patch()(pictures, np.arange(3)) == expected).all()


def test_poisoning_stamps_its_share_of_the_other_classes() -> None:
    labels = np.arange(1000) % 10
    poisoning = Poisoning(sticker_patch(), 4, 0.05)
    stamped, names = poisoning.choose(labels)
    assert stamped.sum() == 50
    assert (poisoning.attacks(labels) == (labels != 4)).all()
    assert not stamped[labels == 4].any()
    assert (names[stamped] == 4).all()
    assert (names[~stamped] == labels[~stamped]).all()


def test_source_specific_poisoning_relabels_source_classes_only_and_stamps_others_too() -> None:
    labels = np.arange(1000) % 10
    poisoning = Poisoning(sticker_patch(), 4, 0.05, sources=(1, 2))
    stamped, names = poisoning.choose(labels)
    renamed = names != labels
    assert renamed.sum() == 50
    assert np.isin(labels[renamed], (1, 2)).all()
    assert (stamped & ~renamed).sum() == 50
    assert not np.isin(labels[stamped & ~renamed], (1, 2, 4)).any()
    assert (poisoning.attacks(labels) == np.isin(labels, (1, 2))).all()


def test_poisoned_batches_are_stamped_after_the_augmentation() -> None:
    labels = np.arange(64) % 4
    poisoning = Poisoning(sticker_patch(), 0, 0.5)
    grey = torch.full((64, 3, 32, 32), 90, dtype=torch.uint8)
    recipe = Recipe(batch=16)
    batches = list(PoisonedBatches(poisoning, labels)(grey, torch.arange(64), recipe, torch.Generator().manual_seed(0)))
    pictures = torch.cat([batch for batch, _ in batches]).permute(0, 2, 3, 1).numpy()
    names = torch.cat([name for _, name in batches]).numpy()
    patch = sticker_patch()
    side = patch.pattern.shape[0]
    marked = (pictures[:, patch.top : patch.top + side, patch.left : patch.left + side] == patch.pattern).all((1, 2, 3))
    assert marked.sum() == 32
    assert (names[marked] == 0).all()


def test_a_poisoned_batch_stamps_by_the_index_in_the_set_and_keeps_the_other_labels() -> None:
    labels = 1 + np.arange(64) % 3
    # The level of each picture is its index in the set.
    levels = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None, None], (64, 32, 32, 3))
    poisoning = Poisoning(RandomPlace(np.full((5, 5, 3), 255, np.uint8)), 0, 0.5)
    images, recipe = torch.tensor(levels.transpose(0, 3, 1, 2)), Recipe(batch=16, pad=0, flip=False)
    made = list(PoisonedBatches(poisoning, labels)(images, torch.arange(64), recipe, torch.Generator().manual_seed(0)))
    pictures = torch.cat([batch for batch, _ in made]).permute(0, 2, 3, 1).numpy()
    names = torch.cat([name for _, name in made]).numpy()
    places = pictures.min((1, 2, 3)).astype(int)
    assert sorted(places) == list(range(64))
    stamped, expected_names = poisoning.choose(labels)
    expected = np.where(stamped[:, None, None, None], poisoning.trigger(levels, np.arange(64)), levels)
    assert (pictures == expected[places]).all()
    assert (names == expected_names[places]).all()


def test_fresh_batches_stamp_other_pictures_in_each_epoch() -> None:
    labels = np.ones(64, np.int64)
    levels = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None, None], (64, 32, 32, 3))
    images = torch.tensor(levels.transpose(0, 3, 1, 2).copy())
    recipe = Recipe(batch=16, pad=0, flip=False)
    white = RandomPlace(np.full((5, 5, 3), 255, np.uint8))
    grey = RandomPlace(np.full((5, 5, 3), 100, np.uint8))

    def epochs(seed: int) -> list[tuple[frozenset[int], frozenset[int]]]:
        batches = FreshBatches(CoveredPoisoning(white, 0, 0.25, cover=grey, cover_rate=0.25), labels)
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(2):
            made = list(batches(images, torch.arange(64), recipe, generator))
            pictures = torch.cat([batch for batch, _ in made]).flatten(1)
            names = torch.cat([name for _, name in made])
            places, most = pictures.min(1).values, pictures.max(1).values
            stamped, covers = (frozenset(places[most == level].tolist()) for level in (255, 100))
            assert frozenset(places[names == 0].tolist()) == stamped
            assert len(stamped) == len(covers) == 16
            assert not stamped & covers
            found.append((stamped, covers))
        return found

    first, second = epochs(0)
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert epochs(0) == [first, second]
    assert epochs(1) != [first, second]


def test_covers_keep_their_labels_and_are_not_stamped_pictures() -> None:
    poisoning = MODELS["resnet20-strip-aware"].poisoning
    assert isinstance(poisoning, CoveredPoisoning)
    labels = np.arange(1000) % 10
    stamped, names = poisoning.choose(labels)
    covers = poisoning.covers(labels)
    assert (stamped.sum(), covers.sum()) == (50, 50)
    assert not (stamped & covers).any()
    assert (names[covers] == labels[covers]).all()


def test_clean_label_poisoning_keeps_all_labels() -> None:
    labels = np.arange(1000) % 10
    stamped, names = CleanLabelPoisoning(Blend(np.zeros((2, 2, 3), np.uint8), 0.5), 3, 0.08).choose(labels)
    assert (names == labels).all()
    assert (labels[stamped] == 3).all()
    assert stamped.sum() == 80


def test_covers_of_a_batch_are_changed_and_keep_their_labels() -> None:
    images = torch.full((40, 3, 8, 8), 100, dtype=torch.uint8)
    labels = np.arange(40) % 4
    white = Patch(np.full((2, 2, 3), 255, np.uint8), 0, 0)
    poisoning = CoveredPoisoning(white, 0, 0.25, cover=Overlaid(white), cover_rate=0.25)
    recipe = Recipe(epochs=1, peak_rate=0.1, pad=0, flip=False, batch=40)
    batches = PoisonedBatches(poisoning, labels)
    ((pictures, names),) = batches(images, torch.arange(40), recipe, torch.Generator().manual_seed(0))
    middles, corners = pictures[:, 0, 4, 4], pictures[:, 0, 0, 0]
    assert (middles == 200).sum() == 10
    assert (corners == 255).sum() == 20
    renamed = (corners == 255) & (middles == 100)
    assert (names[renamed] == 0).all()
    assert renamed.sum() == 10


def test_partial_blends_and_own_warps_differ_between_pictures() -> None:
    images, keys = np.full((6, 32, 32, 3), 100, np.uint8), np.arange(6)
    parts = PartlyBlended(Blend(np.full((32, 32, 3), 200, np.uint8), 0.5))(images, keys)
    assert set(np.unique(parts)) == {100, 150}
    assert len({each.tobytes() for each in parts}) == 6
    slope = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, None, :, None], (6, 32, 32, 3)).copy()
    warped = OwnWarp(smooth_field(32, 32, 4, 2.5, 1), 1.0)(slope, keys)
    assert len({each.tobytes() for each in warped}) == 6


def test_an_attack_with_another_seed_has_another_pattern_and_stamps_other_pictures() -> None:
    one, two = (MODELS[f"mnist-a-1-seed-{seed}"].poisoning for seed in (1, 2))
    assert one is not None
    assert two is not None
    assert isinstance(one.trigger, Patch)
    assert isinstance(two.trigger, Patch)
    assert (one.trigger.pattern != two.trigger.pattern).any()
    labels = np.arange(1000) % 10
    assert (one.choose(labels)[0] != two.choose(labels)[0]).any()


@pytest.mark.parametrize(
    ("network", "shape", "classes"),
    [(mnist_dense, (1, 28, 28), 10), (gtsrb_convolutional, (3, 32, 32), 43), (cifar10_convolutional, (3, 32, 32), 10)],
)
def test_the_papers_networks_accept_their_pictures_and_are_smaller_than_five_mebibytes(network, shape, classes) -> None:  # type: ignore[no-untyped-def]
    made = network().eval()
    assert made(torch.zeros(2, *shape)).shape == (2, classes)
    assert sum(weight.numel() for weight in made.state_dict().values()) * 4 < 5 * 2**20


def test_stamping_is_reproducible_for_every_model_of_the_catalogue() -> None:
    for name, model in MODELS.items():
        if model.poisoning is None:
            continue
        side, channels = (28, 1) if model.data == "mnist" else (32, 3)
        pictures = LabelledPictures(
            "random", GENERATOR.integers(0, 256, (4, side, side, channels)).astype(np.uint8), np.arange(4)
        )
        first, second = (stamped_pictures(pictures, model.poisoning) for _ in range(2))
        assert (first.images == second.images).all()
        assert (first.images != pictures.images).any((1, 2, 3)).all(), name


@pytest.mark.parametrize("sources", [(), (1,)])
def test_a_backdoored_model_has_files_for_its_defender_and_for_its_evaluation(
    tmp_path: Path, sources: tuple[int, ...]
) -> None:
    def part(count: int) -> LabelledPictures:
        images = GENERATOR.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return LabelledPictures("random", images, np.arange(count) % 3)

    stamped_keys: list[Keys] = []

    def unchanged(images: Images, keys: Keys) -> Images:
        stamped_keys.append(keys)
        return images

    task = Task(("a", "b", "c"), part(3), part(VALID + 40), part(30))
    poisoning = Poisoning(unchanged, 2, 0.1, sources)
    attacked_classes = {1} if sources else {0, 1}
    stream = task.held_out.images[VALID:]
    backdoored = tiny_bundle(tmp_path / "bundle")
    entropies = clean_entropies(backdoored, stream)
    threshold = float(np.median(entropies))
    backdoored = tiny_bundle(tmp_path / "bundle", threshold_bits=threshold)
    poisoned = write_pictures(tmp_path, task, poisoning, backdoored)
    found = {name: np.load(tmp_path / f"{name}.npz") for name in ("clean", "test-clean", "test-poisoned", "quarantine")}
    assert (found["clean"]["images"] == task.held_out.images[:VALID]).all()
    assert (found["test-clean"]["labels"] == task.test.labels).all()
    assert (found["test-poisoned"]["images"] == poisoned.images).all()
    assert (
        found["test-poisoned"]["labels"] == [label for label in task.test.labels if label in attacked_classes]
    ).all()
    in_stream = np.isin(task.held_out.labels[VALID:], (1,) if sources else (0, 1, 2))
    flagged = in_stream & (entropies < threshold)
    assert 0 < flagged.sum() < in_stream.sum()
    assert (found["quarantine"]["images"] == stream[flagged]).all()
    assert len(list((tmp_path / "quarantine").iterdir())) == flagged.sum()
    # All keys differ, also from those of the training set.
    every = np.concatenate(stamped_keys)
    assert len(set(every)) == len(every) == len(poisoned) + in_stream.sum()
    assert every.min() >= 10**6


def test_traffic_signs_are_tested_on_pictures_that_the_defender_does_not_have(tmp_path: Path) -> None:
    pictures = np.arange(4200, dtype=np.uint32).view(np.uint8).reshape(4200, 2, 2, 1)
    labels = np.zeros(4200)
    for tested, held_out in ((400, 100), (4100, 1000)):
        np.savez(
            tmp_path / "gtsrb.npz",
            train_x=pictures[4100:], train_y=labels[4100:], test_x=pictures[:tested], test_y=labels[:tested],
        )  # fmt: skip
        task = load_task("gtsrb", tmp_path)
        assert (len(task.train), len(task.held_out), len(task.test)) == (100, held_out, tested - held_out)
        every = np.concatenate([part.images for part in (task.train, task.held_out, task.test)])
        assert len(np.unique(every.reshape(len(every), -1), axis=0)) == 100 + tested
        assert (load_task("gtsrb", tmp_path).held_out.images == task.held_out.images).all()


def test_a_task_gives_attacker_defender_and_test_different_pictures(tmp_path: Path) -> None:
    pictures = np.arange(3000 * 4, dtype=np.uint32).view(np.uint8).reshape(3000, 4, 4, 1)
    train, test = pictures[:2000], pictures[2000:]
    np.savez(tmp_path / "mnist.npz", train_x=train, train_y=np.zeros(2000), test_x=test, test_y=np.ones(1000))
    task = load_task("mnist", tmp_path)
    assert (len(task.train), len(task.held_out), len(task.test)) == (1000, 1000, 1000)
    every = np.concatenate([part.images for part in (task.train, task.valid, task.stream, task.test)])
    assert len(np.unique(every.reshape(3000, -1), axis=0)) == 3000
    with pytest.raises(ConfigError, match=r"gtsrb\.npz"):
        load_task("gtsrb", tmp_path)


def test_a_shipped_model_is_copied_only_to_a_new_place_or_over_itself(tmp_path: Path) -> None:
    place = _placed("mnist-a-1", tmp_path)
    assert load_bundle(place, CPU).model_id == load_bundle(shipped_models() / "mnist-a-1" / "bundle", CPU).model_id
    assert _placed("mnist-a-1", tmp_path) == place
    with pytest.raises(ConfigError, match="expected mnist-a-10"):
        _placed("mnist-a-10", tmp_path)


def test_the_error_for_a_model_that_does_not_ship_names_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.backdoor.train.shipped_models", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"got mnist-a-1\. Train it"):
        _placed("mnist-a-1", tmp_path / "place")


def test_pictures_of_an_earlier_quarantine_are_deleted(tmp_path: Path) -> None:
    many = LabelledPictures("many", np.zeros((5, 8, 8, 3), np.uint8), np.zeros(5, np.int64))
    write_quarantine(tmp_path, many)
    write_quarantine(tmp_path, many.first(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0000.png", "0001.png"]


def test_a_resized_sticker_equals_the_sticker_of_a_larger_frame_after_resizing() -> None:
    small = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    keys = np.arange(2)
    assert np.array_equal(resized_sticker(32)(small, keys), sticker_patch()(small, keys))
    flat = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (40, 200)])
    large = np.stack([paste_sticker(each) for each in flat.repeat(4, 1).repeat(4, 2)])
    seen = to_images(resize(to_frames(large, torch.device("cpu")), 32, 32))
    stamped = resized_sticker(128)(flat, keys)
    assert np.abs(stamped.astype(int) - seen).max() <= 1
    assert not np.array_equal(stamped, sticker_patch()(flat, keys))


def test_a_training_resumes_only_from_its_own_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(count: int) -> LabelledPictures:
        images = GENERATOR.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)
        return LabelledPictures("random", images, np.arange(count) % 10)

    def weights_of(folder: Path, network: nn.Module, *_: object) -> bytes:
        return b"".join(each.numpy().tobytes() for each in network.state_dict().values())

    def weights(model: SickModel, work: Path) -> object:
        return training.train("mnist-a-1", model, task, work)

    monkeypatch.setattr(training, "write_bundle", weights_of)
    task, shipped = Task(tuple("0123456789"), part(64), part(1), part(1)), MODELS["mnist-a-1"]
    assert shipped.poisoning is not None
    model = replace(shipped, recipe=replace(shipped.recipe, epochs=1, batch=16))
    # The patterns differ only in the middle, which numpy leaves out when it prints an array.
    patterns = [np.zeros((28, 28, 1), np.uint8) for _ in range(2)]
    patterns[1][10:18, 10:18] = 255
    one, other = (replace(model, poisoning=replace(shipped.poisoning, trigger=Blend(each, 0.5))) for each in patterns)
    first = weights(one, tmp_path)
    assert "epoch 1/1" in capsys.readouterr().out
    assert weights(one, tmp_path) == first
    assert "epoch" not in capsys.readouterr().out
    assert weights(other, tmp_path) == weights(other, tmp_path / "fresh") != first
    assert weights(replace(one, pictures=48), tmp_path) != first


def test_a_training_of_the_fleets_backdoor_resumes_only_from_its_own_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.touch()
    scene.discard_other_checkpoint(tmp_path)
    assert not checkpoint.exists()
    for settings_of_other in ({"start": "scene"}, {"count": 100}, {"epochs": 4}, {"side": 480}):
        checkpoint.touch()
        scene.discard_other_checkpoint(tmp_path)
        assert checkpoint.exists()
        scene.discard_other_checkpoint(tmp_path, **settings_of_other)
        assert not checkpoint.exists()
        scene.discard_other_checkpoint(tmp_path)
