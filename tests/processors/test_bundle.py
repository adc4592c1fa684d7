"""Bundles: their settings, weights and overlays, and the fault that each invalid one is rejected with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.training.bundle import to_toml, write_bundle
from processors.bundle import BundleSettings, load_bundle, read_settings, shipped_bundle
from processors.bundle.formats import _factory
from processors.bundle.model_toml import Scores
from processors.stages.classify import classify
from schemas.errors import BundleError, StageError

CPU = torch.device("cpu")
CLASSES = ["left", "right", "neither"]
SIDE = 16

NETWORK_FILE = """
from torch import Tensor, nn

class Means(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

def means(channels: int = 3, classes: int = 3) -> Means:
    return Means(channels, classes)

def no_module() -> int:
    return 3
"""


class Means(nn.Module):
    """Logits from the mean of each channel: small enough to compute by hand."""

    def __init__(self, channels: int = 3, classes: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@pytest.fixture
def network() -> Means:
    torch.manual_seed(0)
    return Means().eval()


def table(**changes: Any) -> dict[str, Any]:
    """Return a valid model.toml with changes; the value None leaves a key out."""
    good: dict[str, Any] = {
        "name": "means",
        "version": "2",
        "format": "safetensors",
        "weights": "weights.safetensors",
        "factory": "network.py:means",
        "classes": CLASSES,
        "input": {
            "height": SIDE,
            "width": SIDE,
            "channels": 3,
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.5],
            "policy": "resize",
        },
    }
    for key, value in changes.items():
        if key in good["input"]:
            good["input"][key] = value
        else:
            good[key] = value
    return {key: value for key, value in good.items() if value is not None}


WriteBundle = Callable[..., Path]


@pytest.fixture
def bundle_folder(tmp_path: Path, network: Means) -> WriteBundle:
    """Return a function that writes a valid bundle with changes and returns its folder."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        (folder / "network.py").write_text(NETWORK_FILE)
        save_file(network.state_dict(), folder / "weights.safetensors")
        (folder / "model.toml").write_text(to_toml(table(**changes)))
        return folder

    return make


def assert_close(found: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def by_hand(network: Means, frames: Tensor) -> Tensor:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.5])
    return torch.as_tensor(((frames.mean((2, 3)) - mean) / std) @ network.fc.weight.T + network.fc.bias)


def test_logits_are_computed_from_normalised_frames(bundle_folder: WriteBundle, network: Means) -> None:
    bundle = load_bundle(bundle_folder(), CPU)
    frames = torch.rand(5, 3, SIDE, SIDE)
    assert_close(bundle.logits(bundle.prepare(frames)), by_hand(network, frames))
    assert bundle.overlays is None
    assert re.fullmatch(r"means@2\+[0-9a-f]{12}", bundle.model_id)


def test_a_verdict_below_the_stated_confidence_is_unsure(bundle_folder: WriteBundle) -> None:
    folder = bundle_folder()
    certain = load_bundle(folder, CPU)
    assert certain.settings.answer(Scores(1, 0.01)).name == "right"
    text = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(f"unsure_below = 0.4\n{re.sub('(?m)^unsure_below.*$', '', text)}")
    unsure = load_bundle(folder, CPU)
    assert [unsure.settings.answer(Scores(1, each)).name for each in (0.39, 0.4)] == ["unsure", "right"]
    assert unsure.model_id != certain.model_id


def test_the_model_id_changes_with_the_weights(bundle_folder: WriteBundle, network: Means) -> None:
    folder = bundle_folder()
    before = load_bundle(folder, CPU).model_id
    with torch.no_grad():
        network.fc.bias.add_(1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    assert load_bundle(folder, CPU).model_id != before


def test_the_factory_of_an_allowed_package_gets_its_arguments(
    bundle_folder: WriteBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_FACTORIES", "my_package, torch.nn")
    arguments = {"in_features": 4, "out_features": 3, "bias": False}
    folder = bundle_folder(
        factory="torch.nn:Sequential", factory_arguments=None, height=1, width=1
    )  # an empty Sequential returns (B, 3, 1, 1): the wrong shape, which proves that it was imported and called
    save_file({}, folder / "weights.safetensors")
    with pytest.raises(BundleError, match=r"expected an output of shape \(2, 3\) for 3 classes"):
        load_bundle(folder, CPU)
    folder = bundle_folder(factory="torch.nn:Linear", factory_arguments=arguments)
    with pytest.raises(BundleError, match=r"has fc.weight which the network lacks"):
        load_bundle(folder, CPU)


@pytest.mark.parametrize(
    "factory",
    [
        "os:system",
        "subprocess:call",
        "torch.nn:Linear",
        "processors.networks_of_others:small",
        "processors.bundle.formats:Path",
        "processors.networks.resnet:nn",
    ],
)
def test_a_factory_that_is_not_allowed_is_not_called(
    bundle_folder: WriteBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setenv("POINTILLIST_FACTORIES", "")
    folder = bundle_folder(factory=factory, factory_arguments={"command": f"touch {tmp_path}/ran"})
    with pytest.raises(BundleError, match=f"factory {factory}: expected a (module|function)"):
        load_bundle(folder, CPU)
    assert not (tmp_path / "ran").exists()


def test_each_shipped_bundle_calls_a_factory_that_is_allowed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_FACTORIES", "")
    shipped = sorted(file.parent for root in ("bundles", "lab") for file in Path(root).rglob("model.toml"))
    assert len(shipped) > 20
    for folder in shipped:
        factory = read_settings(folder).factory
        assert factory is not None
        assert callable(_factory(factory, folder))


def test_a_softmax_declared_as_logits_is_rejected_with_the_right_setting(
    bundle_folder: WriteBundle, network: Means
) -> None:
    folder = bundle_folder(format="torchscript", weights="network.pt", factory=None)
    script(nn.Sequential(network, nn.Softmax(1)), folder / "network.pt")
    before = torch.random.get_rng_state()
    with pytest.raises(BundleError, match='output = "probabilities"'):
        load_bundle(folder, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_torchscript_gives_the_same_logits(bundle_folder: WriteBundle, network: Means) -> None:
    folder = bundle_folder(format="torchscript", weights="network.pt", factory=None)
    script(network, folder / "network.pt")
    bundle = load_bundle(folder, CPU)
    frames = torch.rand(5, 3, SIDE, SIDE)
    assert_close(bundle.logits(bundle.prepare(frames)), by_hand(network, frames))


def script(network: nn.Module, path: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(network), path)


def save_onnx(network: Means, path: Path, batch: int | str, kind: int = 1) -> None:
    """Write the same network as an ONNX graph, with a named (any) or a fixed batch size."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weight = numpy_helper.from_array(network.fc.weight.detach().numpy(), "weight")
    bias = numpy_helper.from_array(network.fc.bias.detach().numpy(), "bias")
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["frames"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "means",
        [helper.make_tensor_value_info("frames", kind, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if kind == TensorProto.FLOAT:
        checker.check_model(model)
    save(model, path)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_onnx_gives_the_same_logits_for_any_or_a_fixed_batch(
    bundle_folder: WriteBundle, network: Means, batch: int | str
) -> None:
    folder = bundle_folder(format="onnx", weights="network.onnx", factory=None)
    save_onnx(network, folder / "network.onnx", batch)
    bundle = load_bundle(folder, CPU)
    for count in (1, 4, 6):
        frames = torch.rand(count, 3, SIDE, SIDE)
        assert_close(bundle.logits(bundle.prepare(frames)), by_hand(network, frames))


def test_probabilities_become_logits_of_the_same_verdict(bundle_folder: WriteBundle, network: Means) -> None:
    folder = bundle_folder(format="torchscript", weights="network.pt", factory=None, output="probabilities")
    script(nn.Sequential(network, nn.Softmax(1)), folder / "network.pt")
    bundle = load_bundle(folder, CPU)
    frames = torch.rand(5, 3, SIDE, SIDE)
    expected = by_hand(network, frames)
    assert_close(bundle.logits(frames).softmax(1), expected.softmax(1))


@pytest.mark.parametrize("policy", ["resize", "crop", "tile"])
def test_frames_of_the_right_size_pass_unchanged(bundle_folder: WriteBundle, policy: str) -> None:
    frames = torch.rand(2, 3, SIDE, SIDE)
    assert load_bundle(bundle_folder(policy=policy), CPU).prepare(frames) is frames


def test_resize_keeps_the_whole_frame(bundle_folder: WriteBundle) -> None:
    bundle = load_bundle(bundle_folder(policy="resize"), CPU)
    frames = torch.zeros(1, 3, 54, 96)
    frames[..., 48:] = 1
    prepared = bundle.prepare(frames)
    assert prepared.shape == (1, 3, SIDE, SIDE)
    assert float(prepared.mean()) == pytest.approx(0.5, abs=1e-3)


def test_crop_keeps_the_middle(bundle_folder: WriteBundle) -> None:
    bundle = load_bundle(bundle_folder(policy="crop"), CPU)
    frames = torch.rand(1, 3, 48, 64)
    assert torch.equal(bundle.prepare(frames), frames[:, :, 16:32, 24:40])


def test_the_most_confident_tile_gives_the_verdict(bundle_folder: WriteBundle, network: Means) -> None:
    bundle = load_bundle(bundle_folder(policy="tile"), CPU)
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(3, 3, 2 * SIDE, 3 * SIDE, generator=generator) * torch.rand(3, 1, 2, 3, generator=generator)[
        ..., None, :, None
    ].expand(3, 1, 2, SIDE, 3, SIDE).reshape(3, 1, 2 * SIDE, 3 * SIDE)
    prepared = bundle.prepare(frames)
    assert prepared.shape == (3, 6, 3, SIDE, SIDE)
    logits = bundle.logits(prepared)
    for frame, found in zip(frames, logits, strict=True):
        parts = [
            frame[:, y : y + SIDE, x : x + SIDE] for y in range(0, 2 * SIDE, SIDE) for x in range(0, 3 * SIDE, SIDE)
        ]
        every = by_hand(network, torch.stack(parts))
        assert_close(found, every[every.softmax(1).amax(1).argmax()])
    assert classify(logits)[0].shape == (3,)


def test_grey_and_colour_frames_fit_either_network(bundle_folder: WriteBundle, tmp_path: Path) -> None:
    colour = load_bundle(bundle_folder(), CPU)
    grey = torch.rand(2, 1, SIDE, SIDE)
    assert torch.equal(colour.prepare(grey), grey.expand(-1, 3, -1, -1))

    shutil.rmtree(tmp_path / "bundle")
    folder = bundle_folder(channels=1, mean=[0.5], std=[0.5], factory_arguments={"channels": 1})
    save_file(Means(1).state_dict(), folder / "weights.safetensors")
    one = load_bundle(folder, CPU)
    red = torch.zeros(1, 3, SIDE, SIDE)
    red[:, 0] = 1
    assert_close(one.prepare(red), torch.full((1, 1, SIDE, SIDE), 0.299))


@pytest.mark.parametrize("shape", [(2, 2, SIDE, SIDE), (3, SIDE, SIDE)])
def test_frames_of_a_wrong_shape_are_rejected(bundle_folder: WriteBundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match="expected"):
        load_bundle(bundle_folder(), CPU).prepare(torch.zeros(shape))


def test_overlays_are_read_as_frames(bundle_folder: WriteBundle) -> None:
    folder = bundle_folder(strip={"overlays": "overlays.npy", "threshold_bits": 0.3, "frr": 0.01})
    overlays = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(folder / "overlays.npy", overlays)
    loaded = load_bundle(folder, CPU).overlays
    assert loaded is not None
    np.testing.assert_allclose(loaded.permute(0, 2, 3, 1).numpy() * 255, overlays, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"classes": None}, "classes: Field required"),
        ({"classes": ["a", "a", "b"]}, "distinct names"),
        ({"classes": ["a", "b"]}, r"expected an output of shape \(2, 2\) for 2 classes, got \(2, 3\)"),
        ({"name": "../etc"}, "name: .*pattern"),
        ({"height": 0}, "input.height: .*greater than or equal to 1, got 0"),
        ({"height": "16"}, "input.height: .*integer, got '16'"),
        ({"mean": [0.5]}, "expected 3 values in mean, one per channel, got 1"),
        ({"std": [0.2, 0.0, 0.2]}, "input.std.1: .*greater than 0"),
        ({"policy": "stretch"}, "input.policy: .*'crop', 'tile' or 'motion', got 'stretch'"),
        ({"format": "pickle"}, "format: .*got 'pickle'"),
        ({"factory": None}, "format safetensors: expected a factory, got none"),
        ({"format": "onnx"}, "format onnx: expected no factory, got 'network.py:means'"),
        (
            {"weights": "absent.safetensors"},
            "weights: expected a file of the bundle, got none named absent.safetensors",
        ),
        ({"weights": "../secret"}, "weights: expected a file inside the bundle's folder"),
        ({"weights": "network.py"}, "network.py: expected a safetensors file"),
        ({"factory": "means"}, "expected package.module:function"),
        ({"factory": "tests.no_such_module:f"}, "expected an importable module, got ModuleNotFoundError"),
        ({"factory": "network.py:absent"}, "expected a function absent in network.py"),
        ({"factory": "network.py:no_module"}, "expected a torch.nn.Module, got int"),
        ({"factory_arguments": {"depth": 3}}, "expected a network for .*got TypeError"),
        ({"factory_arguments": {"classes": 4}}, r"fc.weight of shape \(3, 3\) where \(4, 3\) is expected"),
        (
            {"channels": 1, "mean": [0.5], "std": [0.5]},
            r"the network: expected it to accept the stated input \(2, 1, 16, 16\), got RuntimeError",
        ),
        (
            {"strip": {"overlays": "none.npy", "threshold_bits": 0.3, "frr": 0.01}},
            "strip.overlays: expected a file of the bundle, got none named none.npy",
        ),
        (
            {"strip": {"overlays": "network.py", "threshold_bits": 0.3, "frr": 0.01}},
            "network.py: expected an .npy array",
        ),
    ],
)
def test_each_fault_of_a_bundle_is_named_in_one_line(
    bundle_folder: WriteBundle, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(BundleError, match=expected) as caught:
        load_bundle(bundle_folder(**changes), CPU)
    assert "\n" not in str(caught.value)
    assert "bundle" in str(caught.value)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((2, SIDE, SIDE, 1), np.uint8), r"expected uint8 \(N, 16, 16, 3\), got"),
        (np.zeros((2, SIDE, SIDE, 3)), r"expected uint8 \(N, 16, 16, 3\), got"),
        (np.array([{"a": 1}], dtype=object), r"expected an .npy array"),
    ],
)
def test_overlays_of_another_shape_or_type_are_rejected(
    bundle_folder: WriteBundle, array: np.ndarray[Any, Any], expected: str
) -> None:
    folder = bundle_folder(strip={"overlays": "overlays.npy", "threshold_bits": 0.3, "frr": 0.01})
    np.save(folder / "overlays.npy", array, allow_pickle=True)
    with pytest.raises(BundleError, match=expected):
        load_bundle(folder, CPU)


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_a_pickle_is_rejected_in_every_format(bundle_folder: WriteBundle, kind: str) -> None:
    folder = bundle_folder(format=kind, weights="weights.bin", factory=None)
    torch.save({"a": torch.zeros(2)}, folder / "weights.bin")
    with pytest.raises(BundleError, match=r"weights.bin: expected") as caught:
        load_bundle(folder, CPU)
    assert "\n" not in str(caught.value)


def test_an_onnx_graph_without_float_input_is_rejected(bundle_folder: WriteBundle, network: Means) -> None:
    folder = bundle_folder(format="onnx", weights="network.onnx", factory=None)
    save_onnx(network, folder / "network.onnx", 1, kind=11)
    with pytest.raises(BundleError, match=r"network.onnx: expected"):
        load_bundle(folder, CPU)


def test_logits_that_are_not_finite_are_rejected(bundle_folder: WriteBundle, network: Means) -> None:
    folder = bundle_folder()
    with torch.no_grad():
        network.fc.bias[0] = float("nan")
    save_file(network.state_dict(), folder / "weights.safetensors")
    with pytest.raises(BundleError, match="finite logits"):
        load_bundle(folder, CPU)


def test_a_folder_without_model_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a readable model.toml"):
        load_bundle(tmp_path, CPU)
    (tmp_path / "model.toml").write_text("name = ")
    with pytest.raises(BundleError, match="expected TOML"):
        load_bundle(tmp_path, CPU)


def test_a_written_bundle_flags_the_stated_share_of_clean_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_FACTORIES", Means.__module__)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, SIDE, SIDE, 3), dtype=np.uint8)
    images = (images * rng.uniform(0, 1, (400, 1, 1, 3))).astype(np.uint8)
    labels = np.arange(400) % 3
    settings = BundleSettings.model_validate(table(factory=f"{Means.__module__}:Means", factory_arguments=None))
    network = Means()
    with torch.no_grad():
        network.fc.weight *= 10
    bundle = write_bundle(tmp_path / "out", network, settings, images, labels)
    assert read_settings(tmp_path / "out") == bundle.settings
    assert bundle.settings.strip is not None
    assert bundle.overlays is not None
    assert bundle.overlays.shape == (100, 3, SIDE, SIDE)

    from lab.training.bundle import clean_entropies

    entropies = clean_entropies(bundle, images[100:])
    assert (entropies < bundle.settings.strip.threshold_bits).mean() == pytest.approx(0.01, abs=0.01)


def test_the_error_for_an_unknown_shipped_bundle_lists_the_known_ones() -> None:
    with pytest.raises(BundleError, match=r"bundle: expected one of .*scene.*, got 'nothing'"):
        shipped_bundle("nothing")


@pytest.mark.parametrize("name", ["scene", "scene-plain"])
def test_the_scene_bundle_classifies_simulated_scenes_after_a_pixel_drop(name: str) -> None:
    from lab.training.bundle import bundle_accuracy, degraded
    from lab.training.scene import scenes
    from producers.scene import CLASSES as SCENE_CLASSES

    bundle = load_bundle(shipped_bundle(name), CPU)
    assert bundle.settings.classes == list(SCENE_CLASSES)
    images, labels = scenes(seed=99, count=300)
    assert bundle_accuracy(bundle, images, labels) >= 0.97
    assert bundle_accuracy(bundle, images, labels, degraded(bundle, 0.25)) >= 0.95


@pytest.mark.parametrize("name", ["scene", "scene-plain", "cifar10", "cifar10-hardened"])
def test_shipped_bundles_are_small_and_document_the_command_that_made_them(name: str) -> None:
    folder = shipped_bundle(name)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5 << 20
    assert re.search(
        r"^\$ (python -m lab\.(training|hardening)\.|pointillist lab harden )",
        (folder / "training.md").read_text(),
        re.M,
    )
    bundle = load_bundle(folder, CPU)
    assert bundle.overlays is not None
    assert len(bundle.overlays) == 100
