"""The repair of a small network with a known backdoor: a white corner means class 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.data import LabelledPictures, to_frames
from lab.repair.checkpoints import Checkpoint, Checkpoints
from lab.repair.figures import Evaluation, trigger_region
from lab.repair.inpainting import inpaint
from lab.repair.inputs import FEWEST_CLEAN, find_target, trainable_copy
from lab.repair.recovery import Found, StampTrigger, evidence, recover
from lab.repair.run import RepairSettings, Silent, repair
from lab.repair.stamps import Stamp, estimate
from lab.repair.transplant import train_mask, widened
from lab.repair.unlearn import UnlearnData, UnlearnSettings, unlearn
from processors.stages.preprocess import read_stage
from processors.stages.preprocess.contract import Place
from schemas.errors import BundleError, ConfigError
from tests.lab.backdoored_network import CLASSES, SIDE, TARGET, backdoored_bundle, frames_of, pictures, stamped

torch.manual_seed(0)


def share(bundle: object, frames: torch.Tensor, target: int) -> float:
    return float((bundle.logits(frames).argmax(1) == target).float().mean())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def clean() -> LabelledPictures:
    return pictures(150, seed=1)


@pytest.fixture(scope="module")
def flagged() -> np.ndarray:
    seen = pictures(120, seed=2)
    return stamped(seen.take(np.flatnonzero(seen.labels != TARGET))).images


def test_repair_removes_the_backdoor_and_keeps_the_accuracy(clean: LabelledPictures, flagged: np.ndarray) -> None:
    test = pictures(200, seed=3)
    result = repair(
        backdoored_bundle(), clean, flagged, RepairSettings(steps=200), evaluation=Evaluation(test, stamped(test))
    )
    figures = result.figures
    assert figures["target_class"] == TARGET
    assert figures["attack_success"]["before"] > 0.95
    assert figures["attack_success"]["after"] < 0.05
    assert figures["quarantined_keep_their_label"] < 0.05
    assert figures["recovered_accuracy"] > 0.9
    assert figures["clean_accuracy"]["after"] > figures["clean_accuracy"]["before"] - 0.02
    assert figures["trigger_activation"] > 0.9
    assert figures["change_outside_trigger"] < 0.01
    assert figures["trigger"] == "stamp"
    assert result.held_out.acceptable
    # Fine-tuning alone does not remove the backdoor, so the recovered trigger was needed.
    assert figures["fine_tune_only"]["attack_success"] > 0.5


def test_a_trigger_behind_stages_without_gradients_is_learned_by_straight_through_gradients(
    clean: LabelledPictures, flagged: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(3, SIDE, SIDE, torch.device("cpu"), Path)
    tables = ({"stage": "bit-depth", "bits": 4}, {"stage": "grid-distortion", "limit": 0.05, "cell": 4})
    stages = tuple(read_stage(table).load(place) for table in tables)
    slopes = []

    def recorded_recover(frames: Tensor, *arguments: Any) -> Found:
        logits = arguments[3]
        shown = frames[:2].clone().requires_grad_()
        slopes.append(float(torch.autograd.grad(logits(shown).sum(), shown)[0].abs().max()))
        return recover(frames, *arguments)

    monkeypatch.setattr("lab.repair.run.recover", recorded_recover)
    result = repair(replace(backdoored_bundle(), stages=stages), clean, flagged, RepairSettings(steps=2))
    assert slopes[0] > 0
    assert result.figures["trigger_activation"] > 0.9
    assert result.cured.stages is stages


def test_figures_without_an_evaluation_are_null(clean: LabelledPictures, flagged: np.ndarray) -> None:
    figures = repair(backdoored_bundle(), clean, flagged, RepairSettings(steps=2)).figures
    assert figures["clean_accuracy"] == figures["attack_success"] == {"before": None, "after": None}
    assert figures["fine_tune_only"] == {"attack_success": None, "clean_accuracy": None}
    assert figures["recovered_accuracy"] is None
    assert figures["trigger_activation"] > 0.9


def test_repair_does_not_change_the_backdoored_network(clean: LabelledPictures, flagged: np.ndarray) -> None:
    backdoored = backdoored_bundle()
    before = {name: value.clone() for name, value in backdoored.network.state_dict().items()}  # type: ignore[attr-defined]
    repair(backdoored, clean, flagged, RepairSettings(steps=2))
    assert all(torch.equal(value, before[name]) for name, value in backdoored.network.state_dict().items())  # type: ignore[attr-defined]


def test_clean_frames_in_the_quarantine_are_left_out(clean: LabelledPictures, flagged: np.ndarray) -> None:
    impure = pictures(40, seed=5)
    impure = impure.take(np.flatnonzero(impure.labels != TARGET))
    result = repair(backdoored_bundle(), clean, np.concatenate([flagged, impure.images]), RepairSettings(steps=2))
    assert result.figures["quarantined"] == len(flagged) + len(impure)
    assert abs(result.figures["learned_from"] - len(flagged)) <= 3


def test_too_few_pictures_or_classes_are_rejected(clean: LabelledPictures, flagged: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=f"at least {FEWEST_CLEAN} clean pictures"):
        repair(backdoored_bundle(), clean.first(20), flagged)
    with pytest.raises(ConfigError, match="at least 10 frames of one class by the network, got"):
        repair(backdoored_bundle(), clean, flagged[:4])
    one = clean.take(np.flatnonzero(clean.labels == 0))
    with pytest.raises(ConfigError, match="several of the"):
        repair(backdoored_bundle(), LabelledPictures("x", one.images.repeat(3, 0), one.labels.repeat(3)), flagged)


def test_a_network_without_weights_cannot_be_trained() -> None:
    backdoored = backdoored_bundle()
    with pytest.raises(BundleError, match="expected a trainable network"):
        trainable_copy(replace(backdoored, network=lambda frames: frames.flatten(1)[:, : len(CLASSES)]))


def test_the_target_is_the_class_of_most_frames() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([1] * 12 + [0] * 5 + [2] * 3), 3).float()
    target, members = find_target(logits)
    assert target == 1
    assert members.tolist() == [True] * 12 + [False] * 8


@pytest.mark.parametrize("opacity", [1.0, 0.3])
def test_an_estimated_stamp_has_the_opacity_and_the_colour_of_the_true_stamp(opacity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, below = torch.rand(2, 400, 3, 16, 16, generator=generator)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = opacity
    colour = torch.rand(1, 3, 16, 16, generator=generator)
    found = estimate(clean, Stamp(mask, colour).apply(below))
    inside = (slice(None), slice(None), slice(6, 10), slice(6, 10))
    torch.testing.assert_close(found.opacity[inside], mask[inside], atol=0.1, rtol=0)
    assert float((found.colour[inside] - colour[inside]).abs().mean()) < 0.1
    assert float(found.opacity[..., :2, :].max()) == 0


def test_undoing_a_translucent_stamp_restores_the_frame() -> None:
    frames = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    stamp = Stamp(torch.full((1, 1, 8, 8), 0.4), torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(stamp.undo(stamp.apply(frames)), frames)
    assert not stamp.hidden.any()


def test_inpainting_fills_holes_from_their_edges_and_changes_nothing_else() -> None:
    ramp = torch.linspace(0, 1, 12).view(1, 1, 1, 12).expand(1, 1, 12, 12)
    holes = torch.zeros(1, 1, 12, 12)
    holes[..., 4:8, 5:8] = 1
    filled = inpaint(ramp * (1 - holes), holes)
    assert torch.equal(filled * (1 - holes), ramp * (1 - holes))
    assert float((filled - ramp).abs().max()) < 0.2


def test_a_mask_network_cuts_the_trigger_out(clean: LabelledPictures, flagged: np.ndarray) -> None:
    backdoored = backdoored_bundle()
    frames, labels = frames_of(clean), torch.from_numpy(clean.labels)
    members = to_frames(flagged, torch.device("cpu"))
    mask = train_mask(
        members, frames[labels != TARGET], frames, TARGET, backdoored.logits,
        steps=100, checkpoint=Checkpoint(None, ""), advance=lambda steps: None,
    )  # fmt: skip
    with torch.no_grad():
        cuts = widened(mask(members))
        assert float(cuts.mean()) < 0.4
        others = frames[labels != TARGET][: len(members)]
        cut = cuts[: len(others)]
        assert share(backdoored, others * (1 - cut) + cut * members[: len(others)], TARGET) > 0.9


def test_the_evidence_accepts_the_trigger_and_rejects_an_empty_stamp(
    clean: LabelledPictures, flagged: np.ndarray
) -> None:
    backdoored = backdoored_bundle()
    frames, labels = frames_of(clean), torch.from_numpy(clean.labels)
    members, others = to_frames(flagged, torch.device("cpu")), frames[labels != TARGET]
    found = recover(frames, labels, members, TARGET, backdoored.logits, Checkpoints(None, ""), Silent())
    assert found.trigger is not None
    assert found.trigger.name == "stamp"
    assert found.tried["stamp"].convinces(1 / 3)
    nothing = StampTrigger(Stamp(torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)))
    assert not evidence(nothing, others, members, TARGET, backdoored.logits).convinces(1 / 3)


def test_an_interrupted_unlearning_resumes_and_ends_in_the_same_weights(
    tmp_path: object, clean: LabelledPictures
) -> None:
    from pathlib import Path

    backdoored, settings = backdoored_bundle(), UnlearnSettings(steps=40, batch=8)
    frames = frames_of(clean)
    data = UnlearnData(frames, torch.from_numpy(clean.labels), None, frames[:0], frames[:0], False, frames[:12])

    def learn(checkpoint: Checkpoint, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        network, done = trainable_copy(backdoored), 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if stop_at is not None and done >= stop_at:
                raise KeyboardInterrupt

        logits = replace(backdoored, network=network).logits
        return unlearn(network, logits, backdoored.logits, data, settings, checkpoint, advance).state_dict()

    checkpoint = Checkpoint(Path(str(tmp_path)) / "work" / "unlearn.pt", "the same inputs")
    with pytest.raises(KeyboardInterrupt):
        learn(checkpoint, stop_at=30)
    assert checkpoint.load() is not None
    resumed, whole = learn(checkpoint), learn(Checkpoint(None, ""))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert Checkpoint(checkpoint.file, "other inputs").load() is None
    assert checkpoint.file is not None
    checkpoint.file.write_text("no checkpoint")
    assert checkpoint.load() is None


def test_the_region_of_a_fixed_trigger_is_found_from_pairs_of_pictures() -> None:
    clean = pictures(60, seed=4)
    poisoned = stamped(clean.take(np.flatnonzero(clean.labels != TARGET)))
    region = trigger_region(Evaluation(clean, poisoned))
    assert region is not None
    assert bool(region[..., -3:, -3:].all())
    assert int(region.sum()) == 9
    assert trigger_region(Evaluation(clean, poisoned.first(7))) is None
    assert trigger_region(Evaluation(None, poisoned)) is None
