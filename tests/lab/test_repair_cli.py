"""The command `pointillist lab repair`, in this process, and the parts that it uses."""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import lab.repair.run as run_module
from lab.data import LabelledPictures
from lab.only_process import only_process
from lab.repair.held_out import HeldOut, compare, split
from lab.repair.inputs import read_quarantine, trainable_copy, verdicts
from lab.repair.publish import MARK
from lab.repair.report import PICTURES
from lab.repair.run import RepairSettings
from lab.repair.tuning import Tuning
from lab.repair.unlearn import views
from lab.training import successor
from lab.training.successor import LOCK, write_successor
from processors.bundle import Bundle, load_bundle
from processors.models.store import bundle_files
from schemas.errors import ConfigError, UserError
from tests.lab.backdoored_network import SIDE, TARGET, backdoored_bundle, pictures, stamped, write_backdoored_bundle
from tests.lab.colour_classifier import save_pictures
from tests.lab.conftest import Command, CommandResult

KEYS = {
    "clean_accuracy", "attack_success", "fine_tune_only", "recovered_accuracy", "trigger_activation",
    "change_outside_trigger", "target_class", "seconds", "method", "trigger",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_backdoored_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "clean.npz", pictures(150, seed=1))
    seen = pictures(60, seed=2)
    flagged = stamped(seen.take(np.flatnonzero(seen.labels != TARGET)))
    (tmp_path / "quarantine" / "camera").mkdir(parents=True)
    for number, picture in enumerate(flagged.images):
        Image.fromarray(picture).save(tmp_path / "quarantine" / "camera" / f"{number}.png")
    return tmp_path


def command_of(folder: Path, **changed: object) -> list[str]:
    options: dict[str, object] = {
        "bundle": folder / "bundle", "clean": folder / "clean.npz", "quarantine": folder / "quarantine",
        "out": folder / "out", "json": folder / "figures.json",
    }  # fmt: skip
    arguments = {
        f"--{name.replace('_', '-')}": str(value) for name, value in (options | changed).items() if value is not None
    }
    return ["repair", *(word for pair in arguments.items() for word in pair)]


@pytest.fixture
def repair(folder: Path, lab: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(run_module, "STEPS", (30, 30))

    def run(**changed: object) -> CommandResult:
        return lab(*command_of(folder, **changed))

    return run


def write_earlier_repair(out: Path) -> str:
    text = (write_backdoored_bundle(out) / "model.toml").read_text().replace('version = "1"', 'version = "1-repaired"')
    (out / "model.toml").write_text(text)
    return text


def refusal(result: CommandResult) -> str:
    """Return the error among the lines of progress."""
    assert result.code == UserError.exit_code, result.err
    return next(line for line in result.err.splitlines() if line.startswith("error: "))


def test_the_drift_reference_comes_from_the_pictures_that_did_not_train_the_network(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = (folder / "bundle" / "model.toml").read_text()
    (folder / "bundle" / "model.toml").write_text(f'{table}\n[drift]\nreference = "drift.npy"\n')
    np.save(folder / "bundle" / "drift.npy", np.zeros((40, 11), np.float32))
    seen: list[LabelledPictures] = []
    monkeypatch.setattr(successor, "LEAST_ROWS", 1)
    monkeypatch.setattr(successor, "write_drift", lambda _folder, _bundle, reference: seen.append(reference))
    repair().success()
    clean = pictures(150, seed=1)
    trained = clean.take(split(clean.labels, 0)[0])
    (unseen,) = seen
    assert len(unseen) + len(trained) == len(clean)
    assert not {each.tobytes() for each in unseen.images} & {each.tobytes() for each in trained.images}


def test_repair_writes_a_bundle_a_report_and_the_documented_keys(folder: Path, repair: Command) -> None:
    repair().success()
    document = json.loads((folder / "figures.json").read_text())
    assert set(document) >= KEYS
    assert document["target_class"] == TARGET
    assert document["method"] == "unlearning"
    assert document["seconds"] > 0
    cured = load_bundle(folder / "out", torch.device("cpu"))
    assert cured.settings.version == "1-repaired"
    assert cured.model_id != backdoored_bundle().model_id
    report = (folder / "out" / "report.md").read_text()
    for picture in ("clean", "stamped", "opacity", "quarantined", "cleansed"):
        assert f"(.pictures/{picture}.png)" in report
        with Image.open(folder / "out" / ".pictures" / f"{picture}.png") as shown:
            assert min(shown.size) >= 90
    published = {file.name for file in bundle_files(folder / "out")}
    assert not [name for name in published if name.endswith(".png")], (
        "a published bundle must not contain frames of cameras"
    )


def test_the_progress_is_printed_as_json_lines(folder: Path, lab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlearn(*arguments: object) -> None:
        advance = arguments[-1]
        assert callable(advance)
        advance(30)
        raise ConfigError("it ends here: unlearning is slow")

    monkeypatch.setattr(run_module, "unlearn", unlearn)
    monkeypatch.setattr(run_module, "STEPS", (30, 30))
    printed = [json.loads(line) for line in lab(*command_of(folder), "--progress").out.splitlines()]
    assert printed[0] == {"phase": "stamp", "step": 0, "steps": 1}
    assert printed[-2:] == [{"phase": "unlearn", "step": step, "steps": 30} for step in (0, 30)]


def test_a_network_that_loses_accuracy_is_rejected_and_the_report_is_kept(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_earlier_repair(folder / "out")
    monkeypatch.setattr(run_module, "compare", lambda before, after, labels: HeldOut(100, 95, 6, 0, 0.06, 0.024))
    line = refusal(repair())
    assert "not published" in line
    assert "6.0 points lost" in line
    assert "NOT published" in (folder / "out" / "report.md").read_text()
    assert json.loads((folder / "figures.json").read_text())["published"] is False
    assert not (folder / "out" / "model.toml").exists()


def test_invalid_input_is_named(folder: Path, repair: Command) -> None:
    save_pictures(folder / "few.npz", pictures(20, seed=1))
    assert "clean pictures" in refusal(repair(clean=folder / "few.npz"))
    (folder / "empty").mkdir()
    assert "at least one PNG" in refusal(repair(quarantine=folder / "empty"))
    assert "folder of PNG files" in refusal(repair(quarantine=folder / "nowhere"))
    (folder / "empty" / "broken.png").write_bytes(b"no picture")
    assert "broken.png" in refusal(repair(quarantine=folder / "empty"))
    assert "default or paper" in refusal(repair(mode="other"))
    for out in (folder / "bundle", folder / "bundle" / "repaired"):
        assert "neither lies in the given bundle's nor contains it" in refusal(repair(out=out))


def test_a_second_run_into_the_same_folder_is_rejected(folder: Path, repair: Command) -> None:
    with only_process(folder / "out" / LOCK, "run"):
        assert "expected no other run into this folder, got one that runs." in refusal(repair())


def test_a_full_disk_ends_the_command_with_one_line(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: real(state, "/dev/full"))
    assert "out: expected free space on its disk, got a full disk." in refusal(repair())


def test_a_full_disk_at_the_start_ends_the_command_with_one_line(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == Path(LOCK).parent.name:
            raise OSError(errno.ENOSPC, "full")
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert "out: expected free space on its disk, got a full disk." in refusal(repair())


def test_a_rejected_run_changes_no_file(folder: Path, repair: Command) -> None:
    before = write_earlier_repair(folder / "out")
    (folder / "three").mkdir()
    for file in sorted((folder / "quarantine").rglob("*.png"))[:3]:
        shutil.copyfile(file, folder / "three" / file.name)
    assert "at least 10 frames" in refusal(repair(quarantine=folder / "three"))
    assert (folder / "out" / "model.toml").read_text() == before
    other = (write_backdoored_bundle(folder / "other") / "model.toml").read_text()
    assert "another bundle" in refusal(repair(out=folder / "other"))
    assert (folder / "other" / "model.toml").read_text() == other
    assert "outside of the quarantine" in refusal(repair(out=folder / "quarantine" / "out"))


def test_an_interrupted_run_leaves_no_bundle(folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.training.successor.calibrate_bundle", stopped)
    assert repair().code != 0
    assert not (folder / "out" / "model.toml").exists()


def test_an_interrupted_repair_resumes_while_the_quarantine_grows(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = list[bool]()

    def unlearn(*arguments: Any) -> Any:
        resumed.append(arguments[5].load() is not None)
        unlearned = real(*arguments)
        if len(resumed) == 1:
            raise KeyboardInterrupt
        return unlearned

    real = vars(run_module)["unlearn"]
    monkeypatch.setattr(run_module, "unlearn", unlearn)
    assert repair(mode="quarantine").code != 0
    first = next((folder / "quarantine" / "camera").iterdir())
    shutil.copyfile(first, folder / "quarantine" / "camera" / "newer.png")
    again = repair(mode="quarantine").success()
    assert "newer pictures (1) take no part, the interrupted repair uses its" in again.err
    repair(mode="quarantine").success()
    assert resumed == [False, True, False]


def test_an_interrupted_repair_begins_again_without_its_list(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(run_module, "unlearn", stopped)
        assert repair(mode="quarantine").code != 0
        first = next((folder / "quarantine" / "camera").iterdir())
        shutil.copyfile(first, folder / "quarantine" / "camera" / "newer.png")
        shown = re.search("To begin again with all, delete (.+)", repair(mode="quarantine").err)
    assert shown is not None
    Path(shown[1]).unlink()
    assert "take no part" not in repair(mode="quarantine").success().err


def test_a_changed_normalisation_voids_the_checkpoints(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[bool]()

    def unlearn(*arguments: Any) -> Any:
        begun.append(arguments[5].load() is None)
        return real(*arguments)

    real = vars(run_module)["unlearn"]
    monkeypatch.setattr(run_module, "unlearn", unlearn)
    repair(mode="quarantine").success()
    repair(mode="quarantine").success()
    table = folder / "bundle" / "model.toml"
    text = table.read_text()
    table.write_text(re.sub(r"(?m)^std = .*$", "std = [0.3, 0.3, 0.3]", text))
    assert table.read_text() != text
    repair(mode="quarantine").success()
    assert begun == [True, False, True]


def test_too_few_clean_pictures_of_other_classes_than_the_target_are_rejected(folder: Path, repair: Command) -> None:
    many = pictures(240, seed=1)
    only = np.flatnonzero(many.labels == TARGET)
    save_pictures(folder / "clean.npz", many.take(np.append(only, np.flatnonzero(many.labels != TARGET)[:4])))
    assert f"not of class {TARGET}" in refusal(repair())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_network_is_repaired(folder: Path, repair: Command) -> None:
    torch.jit.save(torch.jit.script(backdoored_bundle().network), folder / "bundle" / "weights.pt")
    table = (folder / "bundle" / "model.toml").read_text().replace("weights.safetensors", "weights.pt")
    lines = [line for line in table.replace("safetensors", "torchscript").splitlines() if "factory" not in line]
    (folder / "bundle" / "model.toml").write_text("\n".join(lines))
    repair(evaluate_clean=folder / "clean.npz").success()
    assert load_bundle(folder / "out", torch.device("cpu")).settings.format == "torchscript"


def test_pictures_of_sixteen_bits_keep_their_brightness(folder: Path) -> None:
    levels = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 400
    Image.fromarray(levels).save(folder / "deep.PNG")
    (folder / "deep").mkdir()
    shutil.move(folder / "deep.PNG", folder / "deep" / "deep.PNG")
    (read,) = read_quarantine(folder / "deep", backdoored_bundle(), lambda: pytest.fail("no frame is sealed"))
    assert (read == (levels >> 8)[..., None]).all()


def test_a_quarantine_of_clean_frames_is_rejected_except_in_the_mode_clean(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / "quarantine")
    (folder / "quarantine").mkdir()
    for number, picture in enumerate(pictures(60, seed=2).images):
        Image.fromarray(picture).save(folder / "quarantine" / f"{number}.png")
    line = refusal(repair())
    assert "expected a larger share of class" in line
    assert "20 of 60" in line
    assert not (folder / "out" / "model.toml").exists()
    monkeypatch.setattr(run_module, "FT_SAM", Tuning(0.001, epochs=1))
    repair(mode="clean").success()
    report = (folder / "out" / "report.md").read_text()
    assert "- method: ft-sam, fine-tuning on clean pictures alone" in report
    assert "- trigger: not searched" in report
    assert json.loads((folder / "figures.json").read_text())["method"] == "ft-sam"
    assert not (folder / "out" / PICTURES / "stamped.png").exists()


def test_only_the_mode_clean_needs_no_quarantine(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "expected a folder of flagged frames, got none" in refusal(repair(quarantine=None))
    monkeypatch.setattr(run_module, "FT_SAM", Tuning(0.001, epochs=1))
    repair(mode="clean", quarantine=None).success()
    assert json.loads((folder / "figures.json").read_text())["quarantined"] == 0
    assert not (folder / "out" / PICTURES / "quarantined.png").exists()
    assert "quarantined.png" not in (folder / "out" / "report.md").read_text()


class Tied(nn.Module):
    """A network with a weight under two names, and with arguments that TOML must quote or keep empty."""

    def __init__(self, rates: dict[str, float], nothing: dict[str, int]) -> None:
        super().__init__()
        assert rates == {"conv.1": 0.5}
        assert nothing == {}
        self.first = nn.Linear(3 * SIDE * SIDE, 3)
        self.second = nn.Linear(3 * SIDE * SIDE, 3)
        self.second.weight = self.first.weight

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.first(frames.flatten(1)) + self.second(frames.flatten(1))
        return logits


def test_a_repaired_bundle_keeps_files_and_arguments_and_has_tied_weights(tmp_path: Path) -> None:
    source = write_backdoored_bundle(tmp_path / "backdoored")
    network = Tied({"conv.1": 0.5}, {})
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    save_file(weights, source / "weights.safetensors")
    table = (source / "model.toml").read_text()
    table = table.replace("tests.lab.backdoored_network:SmallNetwork", "tests.lab.test_repair_cli:Tied")
    table += '\n[factory_arguments]\nrates = { "conv.1" = 0.5 }\nnothing = {}\n'
    (source / "model.toml").write_text(table)
    np.save(source / "table.npy", np.arange(3))
    np.save(source / "overlays-01234567.npy", np.arange(3))
    cured, _ = write_successor(tmp_path / "cured", source, network, pictures(60, seed=1), MARK)
    assert cured.settings.factory_arguments == {"rates": {"conv.1": 0.5}, "nothing": {}}
    assert (tmp_path / "cured" / "table.npy").exists()
    assert sorted(file.suffix for file in (tmp_path / "cured").iterdir()) == [".npy", ".safetensors", ".toml"]


def test_frames_of_another_size_are_resized_to_the_networks_input(folder: Path, repair: Command) -> None:
    for file in (folder / "quarantine").rglob("*.png"):
        with Image.open(file) as picture:
            large = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
        large.save(file)
    repair().success()


def test_the_strip_table_of_the_backdoored_bundle_is_kept_if_clean_frames_are_too_few(tmp_path: Path) -> None:
    source = write_backdoored_bundle(tmp_path / "backdoored")
    np.save(source / "overlays.npy", pictures(5, seed=9).images)
    with (source / "model.toml").open("a") as table:
        table.write('\n[strip]\noverlays = "overlays.npy"\nthreshold_bits = 0.25\nfrr = 0.01\n')
    cured, line = write_successor(
        tmp_path / "cured", source, trainable_copy(backdoored_bundle()), pictures(60, seed=1), MARK
    )
    assert cured.settings.strip is not None
    assert cured.settings.strip.threshold_bits == 0.25
    assert "the given bundle's" in line
    shutil.rmtree(source)
    assert load_bundle(tmp_path / "cured", torch.device("cpu")).overlays is not None


def test_a_repaired_bundle_keeps_licences_and_drops_records_of_the_earlier_network(tmp_path: Path) -> None:
    source = write_backdoored_bundle(tmp_path / "backdoored")
    for name in ("LICENSE.md", "training.md", "report.md", "report.json"):
        (source / name).write_text("{}")
    settings = (source / "model.toml").read_text()
    (source / "model.toml").write_text("unsure_below = 0.7\ntemperature = 1.26\n" + settings)
    out = tmp_path / "cured"
    _, line = write_successor(out, source, trainable_copy(backdoored_bundle()), pictures(60, seed=1), MARK)
    assert [name for name in ("LICENSE.md", "training.md", "report.md", "report.json") if (out / name).exists()] == [
        "LICENSE.md"
    ]
    assert "temperature 1.26 and unsure_below 0.7 are the given bundle's" in line
    assert f"`pointillist bundle calibrate {out} --images FOLDER --unsure --strip-seconds 0`" in line


def test_a_repaired_bundle_keeps_its_stages_and_their_files(tmp_path: Path) -> None:
    source = write_backdoored_bundle(tmp_path / "backdoored")
    (source / "table.md").write_text("2 2 2 2 2 2 2 2\n" * 8)
    with (source / "model.toml").open("a") as table:
        table.write('\n[[preprocess]]\nstage = "dct-quantisation"\ntable = "table.md"\n')
        table.write('\n[[preprocess]]\nstage = "grid-distortion"\nlimit = 0.1\n')
    cured, _ = write_successor(
        tmp_path / "cured", source, trainable_copy(backdoored_bundle()), pictures(60, seed=1), MARK
    )
    shutil.rmtree(source)
    assert load_bundle(tmp_path / "cured", torch.device("cpu")).settings.preprocess == cured.settings.preprocess
    assert [stage.name for stage in cured.stages] == ["dct-quantisation", "grid-distortion"]


def test_two_tenths_of_every_class_are_held_out_to_choose_and_to_report() -> None:
    labels = np.repeat(np.arange(5), 20)
    trained, choosing, reported = split(labels, seed=0)
    assert np.array_equal(np.sort(np.concatenate([trained, choosing, reported])), np.arange(100))
    for part in (choosing, reported):
        assert np.array_equal(np.bincount(labels[part]), [2] * 5)


def test_frames_that_choose_a_step_back_are_not_used_for_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, backdoored = pictures(150, seed=1), backdoored_bundle()
    seen: list[torch.Tensor] = []

    def recorded_verdicts(bundle: Bundle, frames: torch.Tensor) -> torch.Tensor:
        if bundle is not backdoored and bundle.network is not backdoored.network:
            seen.append(frames)
        return verdicts(bundle, frames)

    # All three steps back lose too much accuracy. The second one loses least.
    found = iter([HeldOut(15, 15, 5, 0, lost, 0.126) for lost in (0.4, 0.2, 0.3)])
    monkeypatch.setattr(run_module, "verdicts", recorded_verdicts)
    monkeypatch.setattr(run_module, "compare", lambda *arguments: next(found, None) or compare(*arguments))
    flagged = stamped(clean.take(np.flatnonzero(clean.labels != TARGET))).images
    result = run_module.repair(backdoored, clean, flagged, RepairSettings(steps=2))
    # The cured network also meets the quarantine itself.
    *choosing, reported = [frames for frames in seen if len(frames) != len(flagged)]
    assert len(choosing) == len(run_module.STEPS_BACK)
    assert result.held_out.count == 15
    # The first view is the frame itself.
    shared = (reported[:15, None] == torch.cat([frames[:15] for frames in choosing])[None]).flatten(2).all(2)
    assert not shared.any()
    assert result.way == run_module.STEPS_BACK[1]
    assert not result.acceptable


@pytest.mark.parametrize(("error", "way"), [(0.03, 1.0), (0.005, 0.9)])
def test_only_a_significant_loss_reverts_a_part_of_the_change(
    monkeypatch: pytest.MonkeyPatch, error: float, way: float
) -> None:
    clean, backdoored = pictures(150, seed=1), backdoored_bundle()
    found = iter([HeldOut(50, 50, 2, 0, 0.03, error), HeldOut(50, 50, 0, 0, 0.0, 0.005)])
    monkeypatch.setattr(run_module, "compare", lambda *arguments: next(found, None) or compare(*arguments))
    flagged = stamped(clean.take(np.flatnonzero(clean.labels != TARGET))).images
    result = run_module.repair(backdoored, clean, flagged, RepairSettings(steps=2))
    assert (result.way, result.chosen.lost) == (way, 0.03 if way == 1 else 0.0)


def test_accuracy_lost_is_counted_in_pairs_over_all_views() -> None:
    labels = np.zeros(200, np.int64)
    before, after = np.zeros((2, 200), np.int64), np.zeros((2, 200), np.int64)
    before[:, :10], after[:, 5:14] = 1, 1
    after[1, 100:102] = 1
    found = compare(before, after, labels)
    assert (found.count, found.right_before, found.broken, found.mended) == (200, 190, 4, 5)
    # One frame less is lost in the first view, and one more in the second.
    assert found.lost == 0
    lost = np.r_[np.full(5, -1), np.zeros(5), np.ones(4), np.zeros(184), np.full(2, 0.5)]
    assert found.error == pytest.approx(lost.std(ddof=1) / math.sqrt(200))
    assert compare(before[:, :1], after[:, :1], labels[:1]).error == 0


@pytest.mark.parametrize(
    ("count", "lost", "error", "acceptable"),
    [
        (10, 0.1, 0.1, True),  # a single frame
        (50, 0.04, 0.028, True),  # a measured loss of 4 points, with a true loss of perhaps 1 or less
        (50, 0.04, 0.015, False),  # certainly more than a point
        (50, 0.06, 0.05, False),  # uncertain, but more than five points
        (1000, 0.02, 0.004, False),
        (1000, 0.015, 0.004, True),
    ],
)
def test_a_loss_of_accuracy_is_rejected_if_it_is_significant_or_large(
    count: int, lost: float, error: float, acceptable: bool
) -> None:
    assert HeldOut(count, count, 0, 0, lost, error).acceptable is acceptable


@pytest.mark.parametrize(("shift", "flip", "count"), [(0, False, 1), (0, True, 2), (2, False, 9), (1, True, 18)])
def test_the_views_of_a_frame_are_shifted_and_flipped(shift: int, flip: bool, count: int) -> None:
    frames = torch.rand(3, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    found = views(frames, shift, flip)
    assert len(found) == count
    assert torch.equal(found[0], frames)
    steps = [(down, right) for down in (0, -shift, shift) for right in (0, -shift, shift)] if shift else [(0, 0)]
    for view, (down, right) in zip(found, steps, strict=False):
        rows, columns = (torch.arange(6) + down).clamp(0, 5), (torch.arange(5) + right).clamp(0, 4)
        assert torch.equal(view, frames[:, :, rows][..., columns])
    if flip:
        assert torch.equal(found[len(steps) :], found[: len(steps)].flip(4))
