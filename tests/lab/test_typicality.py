"""Typicality: features unlike those of clean frames with the same label are rare, and a bundle stores the features."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from lab.data import LabelledPictures, to_frames
from lab.strip import typicality as module
from lab.strip.typicality import feature_layers, feature_values, fitted, shrunk
from processors.bundle import BundleSettings, load_bundle, read_settings
from processors.bundle.strip_table import TYPICALITY
from processors.pipeline import Pipeline
from processors.stages.typicality import CleanFeatures, channel_means, distances, tail, watched
from schemas.errors import BundleError, ConfigError, StageError
from tests.lab.nonrobust_network import nonrobust_bundle, pictures

CPU = torch.device("cpu")


def _typicalities(pipeline: Pipeline, features: CleanFeatures, some: LabelledPictures) -> NDArray[np.float64]:
    return feature_values(pipeline, features, some)[TYPICALITY]


def test_the_distance_is_the_mahalanobis_distance() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 3, generator=rng, dtype=torch.float64) @ torch.tensor(
        [[2.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.1]], dtype=torch.float64
    )
    covariance = rows.T @ rows / len(rows)
    whitening = torch.linalg.cholesky(torch.linalg.inv(covariance))
    means = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = distances(rows, torch.zeros(500, dtype=torch.int64), means, whitening)
    apart = rows - means[0]
    expected = torch.einsum("ij,jk,ik->i", apart, torch.linalg.inv(covariance), apart).sqrt()
    torch.testing.assert_close(found, expected)


def test_the_tail_is_the_share_of_clean_frames_with_a_larger_distance() -> None:
    lengths = torch.exp(torch.tensor([2.0, 2.0 + 1.6448536 * 0.3, 2.0 + 2.3263479 * 0.3]))
    torch.testing.assert_close(tail(lengths, 2.0, 0.3), torch.tensor([0.5, 0.05, 0.01]), atol=1e-4, rtol=0)
    assert float(tail(torch.tensor([0.0]), 2.0, 0.3)) == 1


@pytest.mark.parametrize(("shape", "dimensions"), [((2, 3, 4, 5), (2, 3)), ((2, 4, 3), (1,)), ((2, 3), ())])
def test_channels_are_averaged_over_places(shape: tuple[int, ...], dimensions: tuple[int, ...]) -> None:
    values = torch.rand(shape)
    torch.testing.assert_close(channel_means(values), values.mean(dimensions) if dimensions else values)
    with pytest.raises(StageError, match=r"features: expected .* got \(2,\)"):
        channel_means(torch.rand(2))


def test_a_missing_layer_is_rejected_and_hooks_are_removed() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with pytest.raises(StageError, match="expected a layer 7"), watched(network, ["7"]):
        pass
    with watched(network, ["0"]) as found:
        network(torch.rand(4, 2))
    assert found["0"].shape == (4, 3)
    found.clear()
    network(torch.rand(4, 2))
    assert not found


class InReverseOrder(nn.Module):
    """A network whose first normalisation runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.out = nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.last(self.first(x)).mean((2, 3)))
        return logits


def test_the_features_come_from_the_last_layers_that_run() -> None:
    bundle = nonrobust_bundle()
    assert feature_layers(bundle).last == ("1",)
    assert feature_layers(replace(bundle, network=InReverseOrder().eval())).last == ("first", "last")
    plain = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.LazyLinear(2))
    assert feature_layers(replace(bundle, network=plain)) == (("1", "2"), ("0",))
    onnx = bundle.settings.model_copy(update={"format": "onnx"})
    for other in (
        replace(bundle, network=nn.Sequential(nn.Flatten(), nn.LazyLinear(2))),
        replace(bundle, network=lambda x: x.mean((2, 3))),
        replace(bundle, settings=onnx),
    ):
        assert feature_layers(other) == ((), ())
        assert fitted(Pipeline(other), pictures(20, 5)) is None


def test_the_shrunk_covariance_is_invertible_and_near_the_true_covariance() -> None:
    rng = torch.Generator().manual_seed(1)
    few = torch.randn(20, 50, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(shrunk(few), torch.eye(50, dtype=torch.float64), atol=0.25, rtol=0)
    assert float(torch.linalg.eigvalsh(shrunk(few)).min()) > 0.5
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    many = torch.randn(20_000, 3, generator=rng, dtype=torch.float64) * scales
    torch.testing.assert_close(shrunk(many), torch.diag(scales**2), atol=0.2, rtol=0)


@pytest.mark.parametrize("most", [512, 4])
def test_unusual_features_are_rare_and_clean_ones_are_not(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", most)
    pipeline = Pipeline(nonrobust_bundle())
    found = fitted(pipeline, pictures(400, 5))
    assert found is not None
    assert found.values[TYPICALITY].shape == (400,)
    assert 0.3 < np.median(found.values[TYPICALITY]) < 0.7
    clean = _typicalities(pipeline, found.features, pictures(300, 6))
    assert 0.3 < np.median(clean) < 0.7
    dotted = pictures(40, 7)
    dotted.images[:, ::2, ::2, 2] = 255  # dots in blue, the colour that the network uses
    assert np.median(_typicalities(pipeline, found.features, dotted)) < 1e-3


def test_a_label_without_enough_clean_frames_has_typicality_1() -> None:
    pipeline, some = Pipeline(nonrobust_bundle()), pictures(400, 5)
    first = some.take(np.flatnonzero(some.labels == 0))
    found = fitted(pipeline, first)
    assert found is not None
    assert found.features.known.tolist() == [True, False]
    others = some.take(np.flatnonzero(some.labels == 1))
    assert _typicalities(pipeline, found.features, others).tolist() == [1.0] * len(others)
    with pytest.raises(ConfigError, match="expected at least 8 with the same label, got 3"):
        fitted(pipeline, first.first(3))


def test_the_typicality_of_a_loaded_bundle_follows_from_its_features(combined_bundle: Path) -> None:
    bundle = load_bundle(combined_bundle, CPU)
    assert bundle.features is not None
    frames = to_frames(pictures(50, 8).images, CPU)
    found = Pipeline(bundle).feature_values(frames).typicality.double().numpy()
    np.testing.assert_allclose(found, _typicalities(Pipeline(bundle), bundle.features, pictures(50, 8)), rtol=1e-4)
    # Features that are fitted again to the same pictures give the same distances.
    again = fitted(Pipeline(bundle), pictures(300, 5))
    assert again is not None
    np.testing.assert_allclose(found, _typicalities(Pipeline(bundle), again.features, pictures(50, 8)), rtol=1e-2)


def replace_in_settings(folder: Path, old: str, new: str) -> None:
    file = folder / "model.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_features_that_do_not_match_the_bundle_are_rejected(combined_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(combined_bundle, tmp_path / "nonrobust"))
    strip = read_settings(folder).strip
    assert strip is not None
    assert strip.typicality is not None
    text, file = (folder / "model.toml").read_text(), folder / strip.typicality.features
    for old, new, complaint in (
        ('layers = ["1"]', 'layers = ["9"]', r"layers 9, got .*Run `pointillist lab calibrate --combined`"),
        ('layers = ["1"]', 'layers = ["0", "1"]', "layers 0, 1, got "),
        (file.name, "missing.safetensors", "got none named missing.safetensors"),
        (file.name, "weights.safetensors", r"expected known \(2,\), and finite means \(2, D\) and whitening"),
    ):
        replace_in_settings(folder, old, new)
        with pytest.raises(BundleError, match=complaint):
            load_bundle(folder, CPU)
        (folder / "model.toml").write_text(text)
    wider = load_file(file)
    wider["whitening"] = torch.cat((wider["whitening"], wider["whitening"]))
    save_file(wider, file)
    with pytest.raises(BundleError, match=r"got known \(2,\), means \(2, 8\), whitening \(16, 8\)"):
        load_bundle(folder, CPU)
    file.write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="expected a safetensors file"):
        load_bundle(folder, CPU)


def test_another_format_has_no_typicality(combined_bundle: Path) -> None:
    table = read_settings(combined_bundle).model_dump(exclude={"factory", "factory_arguments"}, exclude_none=True)
    with pytest.raises(ValueError, match=r"strip: expected the format safetensors for typicality and norms, got onnx"):
        BundleSettings.model_validate(table | {"format": "onnx"})


def test_a_bundle_without_features_has_no_typicality() -> None:
    with pytest.raises(StageError, match="features of clean frames, this one has none"):
        Pipeline(nonrobust_bundle()).feature_values(torch.rand(1, 3, 8, 8))
