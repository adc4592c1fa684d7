"""The commands `pointillist lab calibrate` and `pointillist lab strip`, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lab.data import LabelledPictures
from lab.strip.combined import combined
from lab.strip.table import write_strip_table
from processors.bundle import CombinedThreshold, StripSettings, load_bundle, read_settings
from tests.lab.colour_classifier import CLASSES, save_pictures, write_bundle
from tests.lab.conftest import Command
from tests.lab.nonrobust_network import pictures as nonrobust_pictures
from tests.lab.nonrobust_network import write_nonrobust_bundle

SIDE = 16
Values = dict[str, NDArray[np.float64]]
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.strip.limits.DRAWS", 200)


class Backdoored(nn.Module):
    """A network that returns the strongest colour, or red if the pixel in the corner is white."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        colours = 12 * x.mean((2, 3))
        colours[:, 0] += 50 * (x[:, :, 0, 0].amin(1) >= 0.2)
        return colours


def pictures(count: int, seed: int) -> LabelledPictures:
    """Return coloured pictures with a dark corner. Overlays change their strongest colour."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.integers(0, 40, (count, SIDE, SIDE, 3))
    images += generator.integers(0, 90, (count, 1, 1, 3))
    images[np.arange(count), :, :, labels] += 30
    images[:, 0, 0] = 0
    return LabelledPictures("pictures", images.astype(np.uint8), labels.astype(np.int64))


def stamped(clean: LabelledPictures) -> LabelledPictures:
    """Return the pictures with a white corner."""
    images = clean.images.copy()
    images[:, 0, 0] = 255
    return LabelledPictures("stamped", images, clean.labels)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a TorchScript bundle without a strip table. The lab cannot read the weights of this format."""
    folder = write_bundle(tmp_path / "bundle", size=SIDE)
    with torch.no_grad():
        torch.jit.trace(Backdoored(), torch.rand(4, 3, SIDE, SIDE)).save(folder / "weights.pt")  # type: ignore[no-untyped-call]
    text = (folder / "model.toml").read_text()
    text = text.replace("safetensors", "torchscript", 1).replace("weights.safetensors", "weights.pt")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("factory"))
    (folder / "model.toml").write_text("# kept: a remark\n" + text)
    return folder


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "clean.npz", pictures(400, 0))


def test_a_calibrated_bundle_detects_poisoned_frames_whole_and_with_dropped_pixels(
    lab: Command, bundle: Path, clean: Path, tmp_path: Path
) -> None:
    printed = lab("calibrate", "--bundle", bundle, "--clean", clean, "--frr", 0.02).success().out
    assert "whole frames, stopping early: " in printed
    assert " of 100 passes on a clean frame" in printed
    lab("calibrate", "--bundle", bundle, "--clean", clean, "--frr", 0.02, "--drop-ratio", 0.25).success()
    assert "# kept: a remark" in (bundle / "model.toml").read_text()
    strip = read_settings(bundle).strip
    assert strip is not None
    assert [each.dropped_per_block for each in strip.dropped] == [16]
    overlays = load_bundle(bundle, torch.device("cpu")).overlays
    assert overlays is not None
    assert overlays.shape == (100, 3, SIDE, SIDE)

    other = pictures(300, 1)
    files = save_pictures(tmp_path / "other.npz", other), save_pictures(tmp_path / "stamped.npz", stamped(other))
    found = {}
    for options in [(), ("--sequential",), ("--drop-ratio", 0.25)]:
        file = tmp_path / "found.json"
        lab(
            "strip", "--bundle", bundle, "--clean", files[0], "--poisoned", files[1], "--json", file, *options
        ).success()
        found[options] = json.loads(file.read_text())
    whole, sequential, dropped = found.values()
    assert (whole["attack_success"], whole["far"], whole["far_effective"]) == (1, 0, 0)
    assert (whole["target_class"], whole["mean_passes"]) == (0, 100)
    assert whole["frr"] <= 0.04
    assert whole["threshold_bits"] == strip.threshold_bits
    assert whole["live_statistic"] == "entropy"
    assert whole["seconds"] > 0
    assert sequential["mean_passes"] < 40
    assert sequential["far"] == 0
    assert sequential["frr"] <= whole["frr"]
    # Frames without the corner do not trigger the backdoor. Most of the others are detected.
    assert 0.1 < dropped["attack_success"] < 1
    assert dropped["far_effective"] < dropped["far"] < 0.5
    assert dropped["threshold_bits"] == strip.dropped[0].threshold_bits


@pytest.mark.usefixtures("few_overlays")
def test_a_new_calibration_deletes_the_thresholds_for_dropped_pixels(lab: Command, bundle: Path, clean: Path) -> None:
    printed = lab("calibrate", "--bundle", bundle, "--clean", clean, "--frr", 0.02, "--drop-ratio", 0.5).success().out
    assert "32 of 64 dropped" in printed
    other = save_pictures(clean.with_name("more.npz"), pictures(250, 5))
    lab("calibrate", "--bundle", bundle, "--clean", other, "--frr", 0.05).success()
    strip = read_settings(bundle).strip
    assert strip is not None
    assert (strip.frr, strip.dropped) == (0.05, [])
    # The overlays of the earlier calibration are deleted.
    assert [path.name for path in bundle.glob("overlays*")] == [strip.overlays]
    load_bundle(bundle, torch.device("cpu"))


def test_the_limits_for_stopping_early_can_be_calibrated_alone(lab: Command, bundle: Path, clean: Path) -> None:
    printed = lab("calibrate", "--bundle", bundle, "--clean", clean, "--rounds-only").refusal()
    assert "expected a strip table whose limits can be replaced, got none" in printed
    lab("calibrate", "--bundle", bundle, "--clean", clean, "--frr", 0.02, "--drop-ratio", 0.25).success()
    before = read_settings(bundle).strip
    assert before is not None
    few = save_pictures(clean.with_name("few.npz"), pictures(149, 1))
    printed = lab("calibrate", "--bundle", bundle, "--clean", few, "--rounds-only").refusal()
    assert "expected at least 150, 100 that may be overlays and 50 more" in printed
    assert read_settings(bundle).strip == before
    no_limits: dict[str, list[float]] = {"accept_after": [], "accept_bits": []}

    def without(strip: StripSettings) -> StripSettings:
        dropped = [each.model_copy(update=no_limits) for each in strip.dropped]
        return strip.model_copy(update={**no_limits, "dropped": dropped})

    write_strip_table(bundle, without(before))
    for option in (("--rounds-only",), ("--drop-ratio", 0.25)):
        printed = lab("calibrate", "--bundle", bundle, "--clean", clean, "--combined", *option).refusal()
        assert "--combined: expected a calibration of whole frames" in printed
    printed = lab("calibrate", "--bundle", bundle, "--clean", clean, "--rounds-only").success().out
    after = read_settings(bundle).strip
    assert after is not None
    assert without(after) == without(before)
    assert after.rounds == before.rounds
    # The masks differ from those of the threshold's calibration.
    assert after.dropped[0].accept_bits == pytest.approx(before.dropped[0].accept_bits, rel=0.3)
    assert printed.count("before: 100.0 passes") == 2


@pytest.mark.usefixtures("few_overlays")
def test_all_statistics_combined_are_calibrated_and_named(
    lab: Command, bundle: Path, clean: Path, tmp_path: Path
) -> None:
    options = ("--frr", 0.05, "--images", 80, "--combined")
    out = lab("calibrate", "--bundle", bundle, "--clean", clean, *options, "--drop-ratio", 0.25).success().out
    strip = read_settings(bundle).strip
    assert strip is not None
    assert strip.combined is not None
    assert f"suspect below a p-value of {strip.combined.threshold:g}, by entropy, disagreement\n" in out
    assert [each.dropped_per_block for each in strip.dropped] == [16]
    nonrobust = write_nonrobust_bundle(tmp_path / "nonrobust")
    frames = save_pictures(tmp_path / "nonrobust.npz", nonrobust_pictures(80, 5))
    out = lab("calibrate", "--bundle", nonrobust, "--clean", frames, *options).success().out
    assert ", by entropy, disagreement, typicality, scaled norms\n" in out
    # The p-values were fitted to entropies with the limits of this calibration.
    printed = lab("calibrate", "--bundle", nonrobust, "--clean", frames, "--rounds-only").refusal()
    assert "--rounds-only: expected a bundle that STRIP alone judges" in printed
    # A calibration without the option removes the table.
    out = lab("calibrate", "--bundle", nonrobust, "--clean", frames, *options[:-1]).success().out
    assert "p-value" not in out
    found = read_settings(nonrobust).strip
    assert found is not None
    assert found.combined is None


@pytest.mark.usefixtures("few_overlays")
def test_a_threshold_that_no_frame_can_fall_below_is_an_error(
    lab: Command, bundle: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_tiny_threshold(values: Values, frr: float, norms: int | None) -> CombinedThreshold:
        return combined(values, frr, norms).model_copy(update={"threshold": 0.000015258})

    options = ("calibrate", "--bundle", bundle, "--clean", clean, "--frr", 0.05, "--images", 80)
    lab(*options).success()
    before = {file.name: file.read_bytes() for file in bundle.iterdir() if file.is_file()}
    monkeypatch.setattr("lab.strip.table.combined_table", with_tiny_threshold)
    printed = lab(*options, "--combined").refusal()
    # The table of the earlier calibration stays: under the new one, a processor would check nothing.
    assert {file.name: file.read_bytes() for file in bundle.iterdir() if file.is_file()} == before
    assert "expected a threshold above the least p-value of a frame, 2^-16, got 1.5258e-05" in printed
    assert "Calibrate again with more pictures or a larger --frr." in printed


def test_the_error_of_a_calibration_names_the_missing_pictures(
    lab: Command, bundle: Path, clean: Path, tmp_path: Path
) -> None:
    few = save_pictures(tmp_path / "few.npz", pictures(150, 0))
    printed = lab("calibrate", "--bundle", bundle, "--clean", few).refusal()
    assert "expected at least 200, 100 as overlays and 100 more for a false rejection rate of 0.01, got 150" in printed
    full = pictures(400, 0)
    two = save_pictures(tmp_path / "two.npz", full.take(np.flatnonzero(full.labels != 1)))
    printed = lab("calibrate", "--bundle", bundle, "--clean", two).refusal()
    assert f"got none of class 1 ({CLASSES[1]})" in printed
    printed = lab("calibrate", "--bundle", bundle, "--clean", clean, "--frr", 1.5).refusal()
    assert "false rejection rate: expected more than 0 and less than 1, got 1.5" in printed
    printed = lab("calibrate", "--bundle", "scene-plain", "--clean", few).refusal()
    assert "scene-plain: expected a folder, or the name of a bundle made on this machine, got a shipped one" in printed


@pytest.mark.usefixtures("few_overlays")
def test_the_error_for_a_missing_threshold_names_the_command_that_sets_it(
    lab: Command, bundle: Path, clean: Path, tmp_path: Path
) -> None:
    common = ("--bundle", bundle, "--clean", clean, "--poisoned", clean, "--json", tmp_path / "x.json")
    printed = lab("strip", *common).refusal()
    assert "expected a STRIP threshold for whole frames, got none" in printed
    lab("calibrate", "--bundle", bundle, "--clean", clean, "--images", 250).success()
    printed = lab("strip", *common, "--drop-ratio", 0.25).refusal()
    assert "Run pointillist lab calibrate --bundle DIR --clean FILE --drop-ratio 0.25." in printed


@pytest.mark.usefixtures("few_overlays")
def test_poisoned_pictures_of_all_classes_are_used_even_if_the_file_is_sorted(
    lab: Command, bundle: Path, clean: Path, tmp_path: Path
) -> None:
    lab("calibrate", "--bundle", bundle, "--clean", clean).success()
    known = stamped(pictures(60, 1))
    poisoned, file = save_pictures(tmp_path / "sorted.npz", known.take(known.labels.argsort())), tmp_path / "found.json"
    lab("strip", "--bundle", bundle, "--clean", clean, "--poisoned", poisoned, "--images", 15, "--json", file).success()
    assert json.loads(file.read_text())["target_class"] == 0


def test_the_live_statistic_is_named_next_to_the_shares_of_strip(
    lab: Command, combined_bundle: Path, tmp_path: Path
) -> None:
    frames, file = save_pictures(tmp_path / "nonrobust.npz", nonrobust_pictures(20, 6)), tmp_path / "found.json"
    ended = lab("strip", "--bundle", combined_bundle, "--clean", frames, "--poisoned", frames, "--json", file).success()
    strip = read_settings(combined_bundle).strip
    assert strip is not None
    assert strip.combined is not None
    assert json.loads(file.read_text())["live_statistic"] == "p-value"
    assert f"suspect below a p-value of {strip.combined.threshold:g}, by entropy, disagreement, typi" in ended.err
    assert "shares of STRIP alone" in ended.err
