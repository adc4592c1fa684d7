"""Scaled batch norms: the amplified forms of a network, the doubt in a label, and the bundles that use them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from processors.bundle import Bundle, load_bundle
from processors.pipeline import Pipeline
from processors.stages.scaled_norms import NETWORKS, SCALE, ScaledNorms, amplified, batch_norms, doubt, label_odds
from schemas.errors import BundleError, StageError
from tests.processors.preprocess_rig import CHAIN, smooth_pictures, staged_bundle
from tests.processors.tiny import combined_table, tail_table, tiny_bundle, write_bundle

CPU = torch.device("cpu")


class RepeatedNorm(nn.Module):
    """A network that runs its first batch norm twice, and its second once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.out = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 4)."""
        seen = self.last(torch.relu(self.first(torch.relu(self.first(x)))))
        logits: Tensor = self.out(seen.amax((2, 3)))
        return logits


def plain() -> nn.Module:
    """Return a network with three batch norms that can be amplified, and one that cannot."""
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(5), nn.Linear(5, 4),
    )  # fmt: skip


def randomised(network: nn.Module, start: int = 0) -> nn.Module:
    """Return the network with random weights, biases and statistics of its batch norms."""
    chance = torch.Generator().manual_seed(start)
    with torch.no_grad():
        for each in network.modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                for part in (each.weight, each.bias, each.running_mean):
                    if part is not None:
                        part.copy_(torch.randn(part.shape, generator=chance))
                assert each.running_var is not None
                each.running_var.copy_(0.5 + torch.rand(each.running_var.shape, generator=chance))
    return network.eval()


def multiplied(network: nn.Module, names: list[str]) -> nn.Module:
    """Return a copy with the weights and biases of the batch norms `names` times the scale."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for name in names:
            for part in other.get_submodule(name).parameters(recurse=False):
                part.mul_(SCALE)
    return other


def test_batch_norms_are_listed_in_their_order() -> None:
    assert batch_norms(plain()) == ["0", "4", "8"]
    assert batch_norms(RepeatedNorm()) == ["first", "last"]
    assert batch_norms(nn.Linear(2, 2)) == []
    assert batch_norms(lambda x: x) == []


@pytest.mark.parametrize(
    ("build", "count", "names"),
    [
        (plain, 1, ["8"]),
        (plain, 2, ["4", "8"]),
        (plain, 3, ["0", "4", "8"]),
        (RepeatedNorm, 1, ["last"]),
        (RepeatedNorm, 2, ["first", "last"]),
    ],
)
def test_an_amplified_form_is_a_copy_with_multiplied_weights(
    build: Callable[[], nn.Module], count: int, names: list[str]
) -> None:
    torch.manual_seed(0)
    network, frames = randomised(build()), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, own = amplified(network, count)(frames), network(frames)
        torch.testing.assert_close(found, multiplied(network, names)(frames))
        assert float((found - own).abs().max()) > 0.01


def test_amplified_forms_do_not_change_the_network() -> None:
    torch.manual_seed(0)
    network, frames = randomised(plain()), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    before, own = copy.deepcopy(network.state_dict()), dict(network.named_parameters())
    with torch.inference_mode():
        first = network(frames)
        form = amplified(network, 3)
        form(frames)
        torch.testing.assert_close(network(frames), first)
        with pytest.raises(RuntimeError):
            form(torch.rand(6, 4, 8, 8))
        torch.testing.assert_close(network(frames), first)
    assert all(each is own[name] for name, each in network.named_parameters())
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_a_batch_norm_without_a_bias_is_amplified() -> None:
    torch.manual_seed(0)
    network = plain()
    assert isinstance(network, nn.Sequential)
    network[4].register_parameter("bias", None)
    randomised(network)
    frames = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(amplified(network, 2)(frames), multiplied(network, ["4", "8"])(frames))


@pytest.mark.parametrize(("depth", "counts"), [(1, (1, 2, 3, 3, 3)), (2, (2, 3, 3, 3, 3)), (3, (3, 3, 3, 3, 3))])
def test_each_form_has_one_more_batch_norm_until_all_are_amplified(depth: int, counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, frames = randomised(plain()), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    scaled = ScaledNorms.of(network, depth)
    assert scaled.network is network
    assert len(scaled.forms) == len(counts)
    with torch.inference_mode():
        for form, count in zip(scaled.forms, counts, strict=True):
            torch.testing.assert_close(form(frames), multiplied(network, ["0", "4", "8"][-count:])(frames))


@seed(7)
@settings(max_examples=25)
@given(st.integers(1, 12), st.data())
def test_no_form_has_more_batch_norms_than_the_network(norms: int, data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, norms))
    network = nn.Sequential(*(nn.BatchNorm1d(1, eps=1e-12) for _ in range(norms))).eval()
    # Each norm returns its input unchanged, or multiplied by the scale.
    found = [float(form(torch.ones(1, 1))[0, 0].detach()) for form in ScaledNorms.of(network, depth).forms]
    assert found == pytest.approx([SCALE ** min(norms, depth + more) for more in range(NETWORKS)], rel=1e-4)


@seed(7)
@given(st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=6), st.data())
def test_the_odds_equal_those_of_the_softmax(logits: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(logits) - 1))
    shares = torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()
    rest = math.fsum(each for place, each in enumerate(shares) if place != label)
    expected = math.log2(shares[label] / rest)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        found = label_odds(torch.tensor([logits], dtype=dtype), torch.tensor([label]))
        assert found.tolist() == pytest.approx([expected], abs=tolerance)


@pytest.mark.parametrize("large", [1e3, 1e4])
def test_the_odds_of_a_certain_label_do_not_overflow(large: float) -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [large, 0.0, 0.0], [0.0, large, 0.0]])
    found = label_odds(logits, torch.tensor([0, 0, 0]))
    assert found.tolist() == pytest.approx([-1.0, large / math.log(2) - 1, -large / math.log(2)], rel=1e-5)


def test_the_doubt_decreases_with_the_odds_and_stays_positive() -> None:
    odds = torch.tensor([-1e5, -900.0, -1.0, 0.0, 1.0, 60.0, 900.0, 1e5])
    found = doubt(odds)
    assert bool((found > 0).all())
    assert bool(found.isfinite().all())
    assert bool((found.diff() < 0).all())
    assert float(found[3] / found[4]) == pytest.approx(2 ** (1 / 16))
    assert float(found[3] / found[5]) == pytest.approx(2 ** (60 / 16))
    assert bool(doubt(torch.tensor([math.nan])).isnan().all())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle whose network has seven batch norms, of which three to seven are amplified."""
    return tiny_bundle(tmp_path_factory.mktemp("scaled"), combined=0.01, norms=3)


def by_hand(network: nn.Module, seen: Tensor, counts: tuple[int, ...]) -> list[float]:
    """Return the doubts (B,) in the labels of normalised pictures, from copies of the network and float64."""
    labels, every = network(seen).argmax(1).tolist(), batch_norms(network)
    odds = [0.0] * len(labels)
    for count in counts:
        shares = multiplied(network, every[-count:])(seen).double().softmax(1).tolist()
        for place, (label, own) in enumerate(zip(labels, shares, strict=True)):
            rest = math.fsum(each for number, each in enumerate(own) if number != label)
            odds[place] += math.log2(own[label] / rest) / len(counts)
    return [2.0 ** (-each / 16) for each in odds]


@torch.inference_mode()
def test_the_doubt_follows_from_the_mean_odds_of_amplified_copies(bundle: Bundle) -> None:
    frames = smooth_pictures(5, seed=3)
    found = Pipeline(bundle).doubt(frames)
    assert isinstance(bundle.network, nn.Module)
    expected = by_hand(bundle.network, (frames - 0.5) / 0.25, (3, 4, 5, 6, 7))
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 1.003 * min(expected)


@torch.inference_mode()
def test_the_doubt_is_computed_behind_the_stages_of_the_bundle(tmp_path: Path) -> None:
    bundle = staged_bundle(tmp_path, combined_table(0.01, 3) + CHAIN)
    frames, seeds = smooth_pictures(4, seed=3), torch.arange(4)
    pipeline = Pipeline(bundle)
    found = pipeline.doubt(frames, seeds=seeds)
    torch.testing.assert_close(found, pipeline.doubt(frames, seeds=seeds))
    assert isinstance(bundle.network, nn.Module)
    seen = bundle.normalised(bundle.preprocess(frames, seeds))
    assert found.tolist() == pytest.approx(by_hand(bundle.network, seen, (3, 4, 5, 6, 7)), rel=1e-3)
    assert found.tolist() != pytest.approx(pipeline.doubt(frames, seeds=seeds + 9).tolist(), rel=1e-5)


@torch.inference_mode()
def test_a_converted_network_does_not_change_the_doubt(bundle: Bundle) -> None:
    frames = smooth_pictures(3, seed=3)
    other = replace(bundle, network=lambda pictures: torch.zeros(len(pictures), 3))
    torch.testing.assert_close(Pipeline(other).doubt(frames), Pipeline(bundle).doubt(frames))


def test_a_bundle_without_amplified_norms_has_no_doubt(tmp_path: Path) -> None:
    pipeline = Pipeline(tiny_bundle(tmp_path, combined=0.01))
    with pytest.raises(StageError, match=r"scaled norms: expected a bundle with strip\.combined\.norms"):
        pipeline.doubt(torch.rand(1, 3, 32, 32))


def test_a_bundle_that_amplifies_more_norms_than_its_network_has_is_rejected(tmp_path: Path) -> None:
    scaled = tiny_bundle(tmp_path / "all", combined=0.01, norms=7).scaled
    assert scaled is not None
    assert len(scaled.forms) == NETWORKS
    assert tiny_bundle(tmp_path / "none", combined=0.01).scaled is None
    with pytest.raises(BundleError, match=r"strip\.combined\.norms: expected at most 7, .* got 8\. Run ") as caught:
        tiny_bundle(tmp_path / "more", combined=0.01, norms=8)
    assert "\n" not in str(caught.value)


def change_settings(folder: Path, old: str, new: str, more: str = "") -> Path:
    """Replace a line of the folder's settings, and append tables."""
    path = folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) + more)
    return folder


FEATURES = """
[strip.typicality]
features = "features.safetensors"
layers = ["bn1"]
log_mean = 2.0
log_spread = 0.2
"""


@pytest.mark.parametrize("more", [FEATURES, tail_table("typicality", 1.0)])
def test_features_and_the_tail_of_their_typicality_need_each_other(tmp_path: Path, more: str) -> None:
    folder = change_settings(write_bundle(tmp_path, combined=0.01), 'version = "1"', 'version = "2"', more)
    with pytest.raises(BundleError, match=r"typicality: expected a table with combined\.typicality") as caught:
        load_bundle(folder, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("norms", "more"), [(3, ""), (None, FEATURES + tail_table("typicality", 1.0))])
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "tflite"])
def test_other_formats_than_safetensors_reject_norms_and_features(
    tmp_path: Path, kind: str, norms: int | None, more: str
) -> None:
    folder = change_settings(
        write_bundle(tmp_path, combined=0.01, norms=norms), 'factory = "tests.processors.tiny:network"\n', "", more
    )
    change_settings(folder, 'format = "safetensors"', f'format = "{kind}"')
    with pytest.raises(BundleError, match=f"typicality and norms, got {kind}") as caught:
        load_bundle(folder, CPU)
    assert "\n" not in str(caught.value)
