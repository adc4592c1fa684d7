"""Weights of a user's network: read from files, or fetched by a library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from infra.bundling import networks
from infra.bundling.networks import read_state
from schemas.errors import BundleError, ConfigError


def test_weights_are_read_from_safetensors_or_a_state_dict_and_from_nothing_else(tmp_path: Path) -> None:
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
    with pytest.raises(BundleError, match=r"^--weights: expected a safetensors file, got d\.safetensors: ") as refused:
        read_state(tmp_path / "d.safetensors")
    assert "\n" not in str(refused.value)


def test_weights_that_a_library_cannot_fetch_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no host\nat all")

    meta = SimpleNamespace(DEFAULT="weights")
    models = SimpleNamespace(get_model_weights=lambda _: meta, get_model=offline)
    monkeypatch.setattr(networks, "library", lambda _: SimpleNamespace(models=models, create_model=offline))
    monkeypatch.setattr(networks, "torchvision_network", lambda *_: None)
    kept = {"input_size": (3, 8, 8), "mean": (0.0,), "std": (1.0,)}
    monkeypatch.setattr(networks, "timm_network", lambda *_: SimpleNamespace(pretrained_cfg=kept))
    with pytest.raises(BundleError, match=r"^torchvision: expected the weights of net, got no host\. Correct the name"):
        networks.of_torchvision("net", "default", tmp_path, None, None)
    with pytest.raises(BundleError, match=r"^timm: expected the weights of net, got no host\. Correct the name"):
        networks.of_timm("net", "default", tmp_path, None, None)
    for fetch in (networks.of_torchvision, networks.of_timm):
        with pytest.raises(ConfigError, match=r"^--classes is missing"):
            fetch("net", "random", tmp_path, None, None)
