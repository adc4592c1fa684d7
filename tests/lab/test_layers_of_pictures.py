"""Layer disagreement: a label that appears only in the last layers is detected, live and in the lab."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from lab.strip.combined import EVERY
from lab.strip.table import calibrate_bundle
from lab.strip.typicality import EARLIER, feature_layers, feature_values, fitted
from lab.training.bundle import save_network, to_toml
from processors.bundle import Bundle, load_bundle, read_settings
from processors.bundle.strip_table import LAYER_DISAGREEMENT
from processors.pipeline import Pipeline
from schemas.errors import BundleError

CPU = torch.device("cpu")
SIDE = 8


class LateTrigger(nn.Module):
    """A network that classifies by red. A blue spot changes the class to `bright`, after the last layer."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        spot = (x[:, 2].amax((1, 2)) - 0.9).clamp_min(0)
        for norm in self.norms:
            x = norm(x)
        red = 40 * (x[:, 0].mean((1, 2)) - 0.5)
        return torch.stack((-red, red + 1000 * spot), 1)


def pictures(count: int, seed: int) -> LabelledPictures:
    """Return dark and bright pictures in turn, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = 0.5 + rng.normal(0, 0.05, (count, SIDE, SIDE, 3))
    images[..., 0] += (0.3 * labels - 0.15)[:, None, None] + rng.normal(0, 0.04, (count, 1, 1))
    return LabelledPictures(f"late {seed}", np.rint(255 * images.clip(0, 0.85)).astype(np.uint8), labels)


def stamped(count: int, seed: int) -> LabelledPictures:
    """Return dark pictures with a blue spot."""
    found = pictures(2 * count, seed)
    found = found.take(np.flatnonzero(found.labels == 0))
    found.images[:, 2, 3, 2] = 255
    return found


def write_late(folder: Path) -> Path:
    """Write the network as a bundle without a `strip` table, and return its folder."""
    folder.mkdir()
    settings = {"height": SIDE, "width": SIDE, "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "policy": "resize"}
    table = {
        "name": "late", "version": "1", "format": "safetensors", "weights": "weights.safetensors",
        "factory": "tests.lab.test_layers_of_pictures:LateTrigger", "classes": ["dark", "bright"], "input": settings,
    }  # fmt: skip
    save_network(LateTrigger(), folder / "weights.safetensors", "safetensors")
    (folder / "model.toml").write_text(to_toml(table))
    return folder


@pytest.fixture
def late(tmp_path: Path) -> Path:
    return write_late(tmp_path / "late")


def values(bundle: Bundle, some: LabelledPictures) -> NDArray[np.float64]:
    """Return the layer disagreements by the features of the bundle."""
    assert bundle.features is not None
    return feature_values(Pipeline(bundle), bundle.features, some)[LAYER_DISAGREEMENT]


def test_the_earlier_layers_are_those_before_the_last_two(late: Path) -> None:
    bundle = load_bundle(late, CPU)
    last, earlier = feature_layers(bundle)
    assert last == ("norms.3", "norms.4")
    assert earlier == ("norms.0", "norms.1", "norms.2")
    assert len(earlier) == EARLIER


def test_a_late_change_of_the_label_is_rare_and_clean_frames_are_not(late: Path) -> None:
    pipeline = Pipeline(load_bundle(late, CPU))
    known = pictures(400, 5)
    found = fitted(pipeline, known)
    assert found is not None
    doubts = found.values[LAYER_DISAGREEMENT]
    assert doubts.shape == (400,)
    clean = feature_values(pipeline, found.features, pictures(300, 6))[LAYER_DISAGREEMENT]
    limit = np.quantile(doubts, 0.05)
    assert 0.02 < (clean < limit).mean() < 0.09
    assert bool((feature_values(pipeline, found.features, stamped(40, 7))[LAYER_DISAGREEMENT] < limit).all())


def test_each_picture_of_the_calibration_is_judged_by_the_others(late: Path) -> None:
    pipeline, known = Pipeline(load_bundle(late, CPU)), pictures(40, 5)
    # This picture has the features of the other class. Within its fold, it would move the mean of its label.
    known.images[0, ..., 0] = 60
    known.images[0, 2, 3, 2] = 255
    found = fitted(pipeline, known)
    assert found is not None
    judged = feature_values(pipeline, found.features, known.first(1))[LAYER_DISAGREEMENT]
    assert found.values[LAYER_DISAGREEMENT][0] < 0.99 * judged[0]
    assert judged[0] < 1


@pytest.mark.usefixtures("few_overlays")
def test_a_calibrated_bundle_gives_the_same_values_live_and_in_the_lab(late: Path) -> None:
    strip = calibrate_bundle(late, pictures(300, 5), frr=0.05, combined=True, device=CPU)
    assert strip.combined is not None
    assert strip.typicality is not None
    assert list(strip.combined.tails) == list(EVERY)
    assert strip.typicality.earlier == ["norms.0", "norms.1", "norms.2"]
    bundle = load_bundle(late, CPU)
    pipeline, some = Pipeline(bundle), stamped(20, 8)
    frames = pipeline.probe_input(to_frames(some.images, CPU))
    seen = pipeline.feature_values(frames).layer_doubt
    assert seen is not None
    np.testing.assert_allclose(seen.numpy(), values(bundle, some), rtol=1e-4)
    bits = np.full(20, strip.combined.entropy.quantiles[0])
    judged = pipeline.p_values(frames, bits, np.arange(40, dtype=np.uint64).reshape(20, 2))
    assert bool((judged.values < strip.combined.threshold).all())
    tail = strip.combined.layer_disagreement
    assert tail is not None
    assert bool((tail.rarity(values(bundle, some)) > 5).all())


@pytest.mark.usefixtures("few_overlays")
def test_tables_and_files_of_features_that_do_not_match_are_rejected(late: Path) -> None:
    strip = calibrate_bundle(late, pictures(80, 5), frr=0.05, combined=True, device=CPU)
    assert strip.typicality is not None
    settings, file = (late / "model.toml").read_text(), late / strip.typicality.features
    for old, new, complaint in (
        (
            '"norms.2"]',
            '"norms.9"]',
            r"expected features of the layers norms\.3, norms\.4, norms\.0, norms\.1, norms\.9",
        ),
        (', "norms.2"]', "]", ""),
        ('earlier = ["norms.0", "norms.1", "norms.2"]', "", r"typicality\.earlier: expected layers with combined"),
    ):
        assert old in settings
        (late / "model.toml").write_text(settings.replace(old, new))
        if complaint:
            with pytest.raises(BundleError, match=complaint):
                load_bundle(late, CPU)
        else:
            # A table may use fewer layers than the file has.
            assert len(load_bundle(late, CPU).settings.strip.typicality.earlier) == 2  # type: ignore[union-attr]  # just written
    (late / "model.toml").write_text(settings)
    tensors = load_file(file)
    save_file({name: each for name, each in tensors.items() if name != "whitening_1"}, file)
    with pytest.raises(BundleError, match=r"and for each of 3 earlier layers, got known \(2,\), means \(2, 6\)"):
        load_bundle(late, CPU)
    tensors["means_2"][0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(BundleError, match="finite means"):
        load_bundle(late, CPU)


def test_a_network_with_two_layers_has_no_earlier_ones(combined_bundle: Path) -> None:
    bundle = load_bundle(combined_bundle, CPU)
    assert feature_layers(bundle).earlier == ()
    strip = read_settings(combined_bundle).strip
    assert strip is not None
    assert strip.combined is not None
    assert strip.typicality is not None
    assert (strip.combined.layer_disagreement, strip.typicality.earlier) == (None, [])
    assert bundle.features is not None
    assert Pipeline(bundle).feature_values(torch.rand(2, 3, 8, 8)).layer_doubt is None
