"""The cache of choices: a known choice is checked and not measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from processors.device.backends import choice_cache as cache_module
from processors.device.backends import choose as module
from processors.device.backends.choice_cache import ChoiceCache, key_of
from processors.device.backends.choose import Choice, Wish, choose
from processors.device.backends.contract import UnsupportedNetworkError
from processors.device.backends.openvino_cpu import OpenVino
from tests.processors.test_backends import ALL, FakeBackend, within

INPUTS = torch.linspace(0, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)
needs_openvino = pytest.mark.skipif(bool(OpenVino().lacks()), reason="needs OpenVINO")


class Weighted(nn.Module):
    """Logits (B, 2) by weights, by which the network is identified."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight, -weight]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.weight


class Trials:
    """Stands in for the trial and counts its calls; OpenVINO is the faster one."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, networks: list[object], inputs: Tensor) -> list[float]:
        self.count += 1
        return [1.0, 0.5, 0.9][: len(networks)]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    made = Trials()
    monkeypatch.setattr(module, "BACKENDS", (FakeBackend(ALL),))
    monkeypatch.setattr(module, "trial", made)
    return made


def chosen(folder: Path, network: nn.Module | None = None, wish: Wish | None = None) -> Choice:
    return choose(network or Weighted(), INPUTS, wish or Wish(), fits=within, cache=ChoiceCache(folder))


def test_a_known_choice_is_not_measured_again(tmp_path: Path, trials: Trials) -> None:
    first, again = chosen(tmp_path), chosen(tmp_path)
    assert trials.count == 1
    assert str(first) == str(again) == "openvino float32"
    assert again.speedup == first.speedup == 2.0
    assert torch.equal(again.network(INPUTS), first.network(INPUTS))


def test_another_network_wish_or_version_is_measured(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(tmp_path)
    chosen(tmp_path, Weighted(1.01))
    chosen(tmp_path, wish=Wish(precision="float32"))
    assert trials.count == 3
    monkeypatch.setattr(cache_module, "_machine", lambda: "another processor")
    chosen(tmp_path)
    assert trials.count == 4


def test_a_cached_model_that_gives_other_outputs_is_measured_again(tmp_path: Path, trials: Trials) -> None:
    chosen(tmp_path)
    (model,) = tmp_path.glob("*/model.xml")
    model.write_text("2.0")
    assert torch.allclose(chosen(tmp_path).network(INPUTS), Weighted()(INPUTS))
    assert trials.count == 2


@pytest.mark.parametrize("content", ["", "[]", '{"backend": "openvino", "precision": "fp4", "speedup": 1}'])
def test_an_unreadable_entry_is_replaced(tmp_path: Path, trials: Trials, content: str) -> None:
    chosen(tmp_path)
    (entry,) = tmp_path.glob("*/choice.json")
    entry.write_text(content)
    assert str(chosen(tmp_path)) == str(chosen(tmp_path)) == "openvino float32"
    assert trials.count == 2


def test_a_backend_that_does_not_restore_is_measured_again(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise UnsupportedNetworkError("another version")

    chosen(tmp_path)
    monkeypatch.setattr(FakeBackend, "restore", fails)
    assert str(chosen(tmp_path)) == "openvino float32"
    assert trials.count == 2


def test_a_folder_that_cannot_be_written_does_not_prevent_the_choice(tmp_path: Path, trials: Trials) -> None:
    (tmp_path / "file").touch()
    assert str(chosen(tmp_path / "file")) == "openvino float32"
    assert trials.count == 1


def test_the_least_recently_used_entries_are_removed(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MOST_BYTES", 150)
    for weight in (1.0, 1.01, 1.02, 1.03):
        chosen(tmp_path, Weighted(weight))
    kept = list(tmp_path.iterdir())
    assert 0 < len(kept) < 4
    chosen(tmp_path, Weighted(1.03))
    assert trials.count == 4


def test_a_network_without_weights_has_no_key() -> None:
    assert key_of(lambda x: x, (INPUTS,), Wish()) is None


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_restored_model_of_openvino_gives_the_same_outputs(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    inputs = torch.rand(8, 3, 8, 8)
    taken = OpenVino().take(network, inputs, free_sides=False)
    made = taken.at(precision, inputs)  # type: ignore[arg-type]  # checked by the parameters
    taken.save(precision, tmp_path / "model.xml")  # type: ignore[arg-type]  # see above
    again = OpenVino().restore(tmp_path / "model.xml", precision)  # type: ignore[arg-type]  # see above
    assert torch.allclose(again(inputs), made(inputs), atol=1e-5)
