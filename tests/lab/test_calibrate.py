"""Calibration of STRIP: overlays, the threshold, and the limits for stopping early."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.data import LabelledPictures
from lab.strip.calibrate import (
    CleanVerdicts,
    calibrated,
    clamps,
    clean_verdicts,
    overlay_choice,
    overlay_frames,
    threshold_of,
)
from lab.strip.limits import accepted_by, limits_of
from lab.strip.table import strip_toml, write_strip_table
from processors.bundle import DroppedStripThreshold, StripSettings, load_bundle, read_settings
from processors.pipeline import Pipeline
from processors.stages.strip import Statistic, contributions, log_odds_bits, spread_bits, strip
from schemas.errors import BundleError, ConfigError
from tests.lab import colour_classifier
from tests.lab.colour_classifier import coloured_pictures, write_bundle

CPU = torch.device("cpu")


def test_overlays_cover_the_classes_evenly() -> None:
    labels = np.array([0] * 200 + [1] * 40 + [2] * 200)
    chosen = overlay_choice(labels, ["a", "b", "c"], 0.01)
    assert len(set(chosen.tolist())) == 100
    assert np.bincount(labels[chosen]).tolist() == [34, 33, 33]
    with pytest.raises(ConfigError, match=r"got none of class 3 \(d\)"):
        overlay_choice(labels, ["a", "b", "c", "d"], 0.01)


def test_a_threshold_from_few_frames_rejects_hardly_more_than_its_rate() -> None:
    generator = np.random.default_rng(0)
    # These entropies have a thin tail towards zero with a known quantile: P(x < t) = t ** 3.
    realised = [threshold_of(generator.random(500) ** (1 / 3), 0.01) ** 3 for _ in range(300)]
    assert np.mean(realised) <= 0.01
    assert np.quantile(realised, 0.95) <= 0.018
    assert np.mean(realised) >= 0.005


def test_a_picture_is_not_overlaid_with_itself(tmp_path: Path) -> None:
    pipeline = Pipeline(load_bundle(write_bundle(tmp_path / "bundle"), CPU))
    pictures = coloured_pictures(30, lead=30)
    overlays = overlay_frames(pictures.images[:8], CPU)
    found = clean_verdicts(pipeline, overlays, pictures, False, 0)
    assert len(found.values) == 30
    assert found.given.shape == (22, 8, 3)
    frames = overlay_frames(pictures.images, CPU)
    for i in (3, 20):
        others = [j for j in range(8) if j != i]
        alone = strip(
            frames[i : i + 1], overlays[others], pipeline.bundle.logits, threshold_bits=0, statistic="mixture"
        )
        assert found.values[i] == pytest.approx(alone.entropy_bits.item(), abs=1e-5)


def test_frames_with_dropped_pixels_are_judged_by_odds_against_the_usual_odds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small gain makes the classifier uncertain: the odds of all classes change with the picture.
    monkeypatch.setattr(colour_classifier, "GAIN", 6.0)
    pipeline = Pipeline(load_bundle(write_bundle(tmp_path / "bundle"), CPU))
    overlays = overlay_frames(coloured_pictures(12, seed=1).images, CPU)
    tints = np.random.default_rng(2).integers(0, 120, (240, 1, 1, 3))
    tinted = LabelledPictures("tinted", np.broadcast_to(tints, (240, 16, 16, 3)).astype(np.uint8), np.zeros(240, int))
    found = clean_verdicts(pipeline, overlays, tinted, False, 16)
    assert found.statistic == "odds"
    assert found.usual is not None
    assert found.usual.shape == (3,)
    # For each of the three classes, the odds are above the usual ones in 3 % of the frames.
    assert 0.03 <= (found.values < 1).mean() <= 0.1
    mean = found.given.mean(1)
    excess = log_odds_bits(mean) - found.usual
    np.testing.assert_allclose(torch.exp2(-excess.amax(1)), found.values, rtol=1e-4)
    table, _ = calibrated(found, 0.05)
    assert table.statistic == "odds"
    assert table.usual_odds_bits == pytest.approx(found.usual.tolist(), abs=1e-4)
    assert 0.02 <= (found.values < table.threshold_bits).mean() <= 0.05
    assert all(limit >= table.threshold_bits for limit in table.accept_bits)


@pytest.mark.parametrize(("clamped", "statistic"), [(False, "mixture"), (True, "mean")])
def test_whole_frames_are_judged_by_the_mean_for_strokes_and_by_the_mixture_for_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clamped: bool, statistic: str
) -> None:
    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)  # other tests check the limits
    pipeline = Pipeline(load_bundle(write_bundle(tmp_path / "bundle"), CPU))
    found = clean_verdicts(
        pipeline, overlay_frames(coloured_pictures(5, seed=1).images, CPU), coloured_pictures(30), clamped, 0
    )
    assert (found.statistic, found.usual) == (statistic, None)
    table, _ = calibrated(found, 0.05)
    assert (table.statistic, table.usual_odds_bits) == (statistic, [])


def verdicts(frames: int, seed: int) -> torch.Tensor:
    """Return verdicts (frames, 100, 4). Those of some frames are nearly all of one class."""
    generator = torch.Generator().manual_seed(seed)
    strength = 8 * torch.rand(frames, 1, 1, generator=generator)
    own = torch.eye(4)[torch.randint(4, (frames,), generator=generator)][:, None]
    return (2.5 * torch.randn(frames, 100, 4, generator=generator) + strength * own).softmax(2)


def entropies(p: torch.Tensor) -> torch.Tensor:
    bits: torch.Tensor = -torch.xlogy(p, p).sum(-1) / np.log(2)
    return bits


def test_stopping_early_saves_most_passes_and_keeps_the_flags() -> None:
    calibration, fresh = verdicts(500, 0), verdicts(2000, 1)
    values = entropies(calibration.mean(1))
    table, limits = calibrated(CleanVerdicts("mixture", None, values.double().numpy(), calibration), 0.05)
    frames = torch.arange(2000.0).view(-1, 1, 1, 1)
    overlays = torch.arange(100.0).view(-1, 1, 1, 1) / 1000

    def logits(sums: torch.Tensor) -> torch.Tensor:
        flat = sums.flatten().double()
        frame = (flat + 1e-4).floor().long()
        overlay = ((flat - frame) * 1000).round().long()
        return fresh[frame, overlay.clamp(0, 99)].log()

    plain, sequential = (
        strip(frames.double(), overlays.double(), logits, threshold_bits=table.threshold_bits, rounds=rounds,
              statistic="mixture")
        for rounds in ((), table.rounds)
    )  # fmt: skip
    assert plain.flagged.float().mean().item() == pytest.approx(0.05, abs=0.02)
    assert int((plain.flagged & ~sequential.flagged).sum()) <= 4
    assert not (sequential.flagged & ~plain.flagged).any()
    assert sequential.passes.double().mean().item() < 40
    assert sequential.passes.double().mean().item() == pytest.approx(limits.mean_passes, rel=0.1)
    assert [limit.passes for limit in table.rounds] == limits.stops
    assert [limit.accept_bits for limit in table.rounds] == limits.bits


@pytest.mark.parametrize("statistic", ["mixture", "mean"])
def test_a_trigger_that_fails_under_some_overlays_is_hardly_ever_accepted_early(statistic: Statistic) -> None:
    """Check frames whose trigger fails under nearly a tenth of the overlays: only a few in a hundred are accepted."""
    calibration, fresh = (
        contributions(verdicts(count, seed).log(), accepted_by(statistic)) for count, seed in ((500, 0), (3000, 2))
    )
    clean = CleanVerdicts(statistic, None, spread_bits(calibration.mean(1), statistic).double().numpy(), calibration)
    table, _ = calibrated(clean, 0.01)
    certain = torch.eye(4)[1]
    triggered = torch.cat((torch.zeros(1), certain)) if statistic == "mean" else certain
    # The probability that the trigger fails under an overlay differs between frames.
    generator = torch.Generator().manual_seed(3)
    fails = torch.rand(3000, 100, 1, generator=generator) < 0.2 * torch.rand(3000, 1, 1, generator=generator)
    marked = torch.where(fails, fresh, triggered)
    count = fails.sum((1, 2))
    marked = marked[(spread_bits(marked.mean(1), statistic) < table.threshold_bits) & (count <= 10) & (count >= 8)]
    assert len(marked) > 50
    total = marked.cumsum(1)
    accepted = torch.zeros(len(marked), dtype=torch.bool)
    for stop in table.rounds:
        accepted |= spread_bits(total[:, stop.passes - 1] / stop.passes, accepted_by(statistic)) >= stop.accept_bits
    assert accepted.float().mean().item() < 0.06


def strokes(frames: int, seed: int) -> torch.Tensor:
    """Return verdicts (frames, 100, 4) like those on sums of two drawings: mostly certain, of changing classes."""
    generator = torch.Generator().manual_seed(seed)
    clear = torch.rand(frames, 100, 1, generator=generator) < 0.4 + 0.5 * torch.rand(frames, 1, 1, generator=generator)
    drawn = torch.randn(frames, 100, 4, generator=generator)
    return torch.where(clear, 20 * drawn, drawn).softmax(2)


def test_strokes_with_mostly_certain_verdicts_are_accepted_within_twelve_overlays() -> None:
    calibration = contributions(strokes(500, 0).log(), "joint")
    values = spread_bits(calibration.mean(1), "mean").double().numpy()
    table, limits = calibrated(CleanVerdicts("mean", None, values, calibration), 0.01)
    assert (table.statistic, table.accept_statistic) == ("mean", "joint")
    assert limits.mean_passes <= 12
    assert limits.lost <= 0.08
    # Spare passes allow for triggers that fail under more than a tenth of the overlays.
    assert limits.lets_go > 0.1
    assert f"lets go under {100 * limits.lets_go:.0f} % of the overlays" in limits.describe()


def test_the_expected_passes_are_those_of_other_clean_frames() -> None:
    calibration, fresh = verdicts(500, 0), verdicts(2000, 1)
    limits = limits_of(calibration, "mixture", None, 0.5)
    assert limits.lost <= 0.08
    total, passes = fresh.cumsum(1), torch.full((2000,), 100)
    for stop, bits in reversed(list(zip(limits.stops, limits.bits, strict=True))):
        passes[spread_bits(total[:, stop - 1] / stop, "mixture") >= bits] = stop
    assert passes.float().mean().item() == pytest.approx(limits.mean_passes, rel=0.1)
    assert f"{limits.mean_passes:.1f} of 100 passes" in limits.describe()


def test_strokes_on_black_are_clamped_and_bright_pictures_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    strokes = (torch.rand(20, 1, 8, 8, generator=generator) < 0.15).float()
    assert clamps(strokes)
    assert not clamps(torch.rand(20, 3, 8, 8, generator=generator))


def test_the_strip_table_is_replaced_and_the_rest_of_the_file_is_unchanged(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    path = folder / "model.toml"
    before = path.read_text() + "# a last remark\n"
    path.write_text(before + '\n[strip]\noverlays = "old.npy"\nthreshold_bits = 0.1\nfrr = 0.01\n')
    (folder / "old.npy").touch()
    dropped = DroppedStripThreshold(dropped_per_block=16, threshold_bits=0.9, frr=0.02, statistic="mixture")
    strip = StripSettings(
        overlays="new.npy", threshold_bits=0.25, frr=0.01, accept_after=[2, 4], accept_bits=[1.5, 0.5],
        accept_statistic="joint", clamped=True, dropped=[dropped],
    )  # fmt: skip
    write_strip_table(folder, strip)
    assert read_settings(folder).strip == strip
    assert path.read_text() == before.rstrip() + "\n\n" + strip_toml(strip)
    assert not (folder / "old.npy").exists()
    write_strip_table(folder, strip.model_copy(update={"dropped": []}))
    found = read_settings(folder).strip
    assert found is not None
    assert found.dropped == []


def test_a_strip_table_in_another_form_is_rejected(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    path = folder / "model.toml"
    inline = 'strip = { overlays = "o.npy", threshold_bits = 0.1, frr = 0.01 }\n'
    path.write_text(inline + path.read_text())
    before = path.read_text()
    with pytest.raises(BundleError, match="strip settings in separate tables"):
        write_strip_table(folder, StripSettings(overlays="n.npy", threshold_bits=0.2, frr=0.01))
    assert path.read_text() == before
