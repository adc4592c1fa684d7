"""Weights of a user's network, from files or from a library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from infra.bundling import networks
from infra.bundling.networks import read_state
from processors.networks import library
from schemas.errors import BundleError, ConfigError


def test_weights_are_read_only_from_safetensors_or_a_state_dict(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2, 3)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": state}, tmp_path / "b.pt")
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    header = b'{"weight": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}'
    (tmp_path / "d.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for name in ("a.safetensors", "b.pt"):
        assert torch.equal(read_state(tmp_path / name)["weight"], state["weight"])
    with pytest.raises(BundleError, match=r"^--weights: expected a state dict, tensors by name, got another object"):
        read_state(tmp_path / "c.pt")
    with pytest.raises(BundleError, match=r"^--weights: expected a safetensors file, got d\.safetensors: ") as caught:
        read_state(tmp_path / "d.safetensors")
    assert "\n" not in str(caught.value)


def test_weights_that_a_library_cannot_fetch_are_one_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no host\nat all")

    meta = SimpleNamespace(DEFAULT="weights")
    models = SimpleNamespace(get_model_weights=lambda _: meta, get_model=offline)
    monkeypatch.setattr(networks, "library", lambda _: SimpleNamespace(models=models, create_model=offline))
    monkeypatch.setattr(networks, "torchvision_network", lambda *_, **__: None)
    stored = {"input_size": (3, 8, 8), "mean": (0.0,), "std": (1.0,)}
    monkeypatch.setattr(networks, "timm_network", lambda *_: SimpleNamespace(pretrained_cfg=stored))
    with pytest.raises(BundleError, match=r"^torchvision: expected the weights of net, got no host\. Correct the name"):
        networks.of_torchvision("net", "default", tmp_path, None, None)
    with pytest.raises(BundleError, match=r"^timm: expected the weights of net, got no host\. Correct the name"):
        networks.of_timm("net", "default", tmp_path, None, None)
    for fetch in (networks.of_torchvision, networks.of_timm):
        with pytest.raises(ConfigError, match=r"^--classes is missing"):
            fetch("net", "random", tmp_path, None, None)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_torchvision_network_that_converts_its_input_has_the_same_logits_in_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from torchvision import models  # it imports torch's compiler for seconds, in each worker that collects the tests

    torch.manual_seed(0)
    stored = models.get_model(name, weights=None, aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: stored)
    found = networks.of_torchvision(name, "default", tmp_path, None, None)
    assert found.normalisation is not None
    chosen = models.get_model_weights(name).DEFAULT
    usual, own = chosen.transforms(), models.get_model(name, weights=chosen).eval()
    factory = getattr(library, str(found.factory).partition(":")[2])
    loaded = factory(**found.factory_arguments).eval()
    loaded.load_state_dict(read_state(tmp_path / found.weights))
    pictures = torch.rand(2, 3, found.height, found.width)
    with torch.inference_mode():
        expected, logits = (
            network((pictures - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
            for network, mean, std in ((own, usual.mean, usual.std), (loaded, *found.normalisation))
        )
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_state_dict_with_auxiliary_heads_loads_without_them_and_with_a_note(
    tmp_path: Path,
) -> None:
    from torchvision import models

    network = models.googlenet(weights=None, num_classes=3, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    found = networks.of_torchvision("googlenet", str(tmp_path / "own.pth"), tmp_path, None, 3)
    assert not [key for key in read_state(tmp_path / found.weights) if key.startswith("aux")]
    assert any("need --preset half" in note for note in found.notes)


def test_a_vision_transformer_for_large_pictures_is_rebuilt_in_that_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    def small(**changes: Any) -> models.VisionTransformer:
        return models.VisionTransformer(
            **{"patch_size": 32, "num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8, "image_size": 224}
            | changes
        )

    def get_model(name: str, weights: object, **changes: Any) -> models.VisionTransformer:
        return small(**changes) if weights is None else small(image_size=256, num_classes=1000)

    monkeypatch.setattr(models, "get_model", get_model)
    found = networks.of_torchvision("vit_h_14", "default", tmp_path, None, None)
    loaded = library.torchvision_network(**found.factory_arguments)
    loaded.load_state_dict(read_state(tmp_path / found.weights))
