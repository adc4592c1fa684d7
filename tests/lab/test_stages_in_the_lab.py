"""Evaluation, calibration and repair use a bundle's stages, and a seed always gives the same figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.data import LabelledPictures
from lab.repair.inputs import verdicts
from lab.restoration.evaluate import evaluate
from lab.strip.calibrate import clean_verdicts, overlay_frames
from lab.strip.measure import check
from lab.strip.table import calibrate_bundle
from processors.bundle import Bundle, load_bundle, read_settings
from processors.pipeline import Pipeline
from processors.stages.preprocess.contract import seeds_of_sums
from processors.stages.strip import overlaid_logits
from tests.lab.colour_classifier import coloured_pictures, write_bundle

CPU = torch.device("cpu")
GRID = '[[preprocess]]\nstage = "grid-distortion"\nlimit = 0.9\ncell = 4\n'
BITS = '[[preprocess]]\nstage = "bit-depth"\nbits = 1\n'


def staged(folder: Path, tables: str) -> Path:
    write_bundle(folder)
    with (folder / "model.toml").open("a") as settings:
        settings.write(tables)
    return folder


def loaded(folder: Path, tables: str) -> Bundle:
    return load_bundle(staged(folder, tables), CPU)


def uneven(count: int) -> LabelledPictures:
    """Return coloured pictures with noise, so that a distortion changes their means."""
    pictures = coloured_pictures(count, lead=30)
    noise = np.random.default_rng(0).integers(-60, 60, pictures.images.shape)
    return LabelledPictures(
        "uneven", (pictures.images.astype(int) + noise).clip(0, 255).astype(np.uint8), pictures.labels
    )


def test_the_evaluation_attacks_the_bare_network_and_classifies_by_the_whole_chain(tmp_path: Path) -> None:
    from lab.attacks import make_attack

    pictures = coloured_pictures(40)
    # One bit removes a lead of three levels, so that only the bare network classifies the colours.
    pipeline = Pipeline(loaded(tmp_path, BITS))
    found = evaluate(pipeline, pictures, drop_ratio=0.25, attack=make_attack("fgsm", 0.05))
    assert found.undefended.all()
    assert found.plain.mean() < 0.2
    assert found.denoised.mean() < 0.6
    assert found.reconstructed.mean() < 0.6


def test_the_evaluation_of_a_bundle_with_a_random_stage_follows_from_its_seed(tmp_path: Path) -> None:
    pipeline, pictures = Pipeline(loaded(tmp_path, GRID)), uneven(60)
    pictures = LabelledPictures("some", pictures.images, np.zeros(60, np.int64))
    first, again, other = (evaluate(pipeline, pictures, drop_ratio=0.25, seed=seed) for seed in (0, 0, 1))
    assert first.denoised.tolist() == again.denoised.tolist()
    assert first.reconstructed.tolist() == again.reconstructed.tolist()
    assert other.psnr.tolist() != first.psnr.tolist()


@pytest.mark.parametrize("dropped", [0, 16])
def test_strips_calibration_puts_overlays_before_the_stages_and_draws_from_its_seed(
    tmp_path: Path, dropped: int
) -> None:
    pipeline, pictures = Pipeline(loaded(tmp_path, GRID)), uneven(40)
    overlays = overlay_frames(uneven(50).images[40:], CPU)
    torch.manual_seed(0)
    first = clean_verdicts(pipeline, overlays, pictures, False, dropped)
    torch.manual_seed(1)
    again = clean_verdicts(pipeline, overlays, pictures, False, dropped)
    np.testing.assert_array_equal(first.values, again.values)
    assert torch.equal(first.given, again.given)
    without = clean_verdicts(Pipeline(pipeline.bundle.bare), overlays, pictures, False, dropped)
    assert np.abs(first.values - without.values).max() > 1e-6
    if not dropped:
        frames = overlay_frames(pictures.images, CPU)
        seeds = pipeline.bundle.seeds(40, torch.Generator().manual_seed(1))
        assert seeds is not None
        expected_logits = overlaid_logits(
            frames, overlays, pipeline.bundle.logits, seeds=seeds_of_sums(seeds, len(overlays))
        )
        shares = expected_logits.softmax(2)
        torch.testing.assert_close(first.given, shares, atol=1e-5, rtol=0)


def test_a_calibrated_bundle_keeps_its_stages_and_its_false_rejection_rate(tmp_path: Path) -> None:
    folder = staged(tmp_path / "bundle", GRID)
    before = read_settings(folder).preprocess
    calibrate_bundle(folder, uneven(300), frr=0.05, device=CPU)
    bundle = load_bundle(folder, CPU)
    assert bundle.settings.preprocess == before
    assert [stage.name for stage in bundle.stages] == ["grid-distortion"]
    first, again = (check(Pipeline(bundle), uneven(300), seed=5) for _ in range(2))
    assert first.bits.tolist() == again.bits.tolist()
    assert first.flagged.mean() <= 0.1


def test_repair_classifies_through_the_stages(tmp_path: Path) -> None:
    frames = overlay_frames(coloured_pictures(20).images, CPU)
    bundle = loaded(tmp_path, BITS)
    torch.testing.assert_close(verdicts(bundle, frames), bundle.logits(frames))
    drawing = loaded(tmp_path / "grid", GRID)
    assert torch.equal(verdicts(drawing, frames), verdicts(drawing, frames))
