"""Drift: features, the permutation test and its false alarms, the sampler, and the live chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from torch import Tensor

from infra.bundling.gallery import fit_to_network
from lab.data import LabelledPictures
from lab.drift import drift_rows, write_drift
from processors.bundle import Bundle, load_bundle
from processors.device.drift import WINDOW, DriftSampler, DriftState
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.models.feed import ModelFeed
from processors.models.swap import ModelLoader, ModelSwap
from processors.pipeline import Pipeline
from processors.results.delivery import Emitter
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from processors.stages.discrepancy import LEVEL, Features, discrepancy, features_of
from schemas.errors import BundleError, ConfigError
from schemas.messages.frame import Encoding
from schemas.messages.models import DRIFT_WINDOWS
from schemas.pointillist_pb2 import Models, ServedModel
from schemas.runtime.health import Health
from tests.clocks import Clock
from tests.processors.tiny import batch_executor, classify_copies, payload, picture, tiny_bundle, verified_job

CPU = torch.device("cpu")
Draw = Callable[[int, torch.Generator], Tensor]
SHAPES: dict[str, Draw] = {
    "normal": lambda n, chance: torch.randn(n, 6, generator=chance),
    "heavy tails": lambda n, chance: torch.randn(n, 6, generator=chance) / torch.rand(n, 1, generator=chance),
    "two scenes": lambda n, chance: (
        torch.randn(n, 6, generator=chance) / 10 + torch.randint(2, (n, 1), generator=chance)
    ),
    "one-hot answers": lambda n, chance: torch.eye(6)[torch.randint(6, (n,), generator=chance)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_without_drift_a_window_exceeds_its_limit_as_rarely_as_stated(shape: str) -> None:
    chance, draw, windows = torch.Generator().manual_seed(3), SHAPES[shape], 200
    exceeded = sum(discrepancy(draw(40, chance), draw(24, chance), chance).ratio > 1 for _ in range(windows))
    # The bound lies three standard deviations above the level.
    assert exceeded <= windows * LEVEL + 3 * (windows * LEVEL) ** 0.5


@seed(7)
@settings(max_examples=25, deadline=None, database=None)
@given(st.integers(0, 2**32), st.floats(-100, 100), st.floats(0.01, 100))
def test_a_shift_is_detected_at_any_scale_and_offset_of_the_features(start: int, place: float, scale: float) -> None:
    chance = torch.Generator().manual_seed(start)
    reference, window = torch.randn(64, 6, generator=chance), torch.randn(WINDOW, 6, generator=chance)
    assert discrepancy(place + scale * reference, place + scale * (window + 1), chance).ratio > 1


def test_the_discrepancy_follows_the_paper() -> None:
    chance = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, 2, generator=chance).double(), torch.randn(5, 2, generator=chance).double()
    rows = np.concatenate([x.numpy(), y.numpy()])
    rows = (rows - rows.mean(0)) / rows.std(0, ddof=1)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(2)
    # torch's median is the lower of the two middle values.
    kernel = np.exp(-squared / np.sort(squared[squared > 0])[(14 * 13 - 1) // 2])
    wanted = kernel[:9, :9].mean() + kernel[9:, 9:].mean() - 2 * kernel[:9, 9:].mean()
    assert discrepancy(x, y, chance).value == pytest.approx(float(wanted), rel=1e-9)


def test_equal_rows_are_no_drift() -> None:
    assert discrepancy(torch.ones(32, 3), torch.ones(64, 3), torch.Generator()).ratio <= 1


def test_features_describe_the_picture_and_the_answer() -> None:
    bright = torch.zeros(1, 3, 32, 32)
    bright[:, 0] = 0.5
    logits = torch.tensor([[0.0, np.log(3.0)]])
    found = features_of(bright, logits)
    assert found.pictures[0].tolist() == pytest.approx([1 / 6, 0, 0, 0, 0.5, 0], abs=1e-6)
    assert found.answers[0].tolist() == pytest.approx([0.75, 0.8112781, 0.25, 0.75], abs=1e-6)


def test_many_classes_share_columns_and_keep_their_sum() -> None:
    found = features_of(torch.rand(2, 1, 32, 32), torch.randn(2, 1000))
    assert found.answers.shape == (2, 18)
    assert found.answers[:, 2:].sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_a_grey_picture_has_the_features_of_the_same_colours() -> None:
    logits = torch.zeros(2, 3)
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(features_of(grey, logits), features_of(grey.expand(-1, 3, -1, -1), logits))


def reference(chance: torch.Generator) -> Features:
    shown = torch.rand(64, 3, 16, 16, generator=chance)
    return features_of(shown, torch.randn(64, 3, generator=chance))


def fill(sampler: DriftSampler, clock: Clock, chance: torch.Generator, windows: int, *, darker: float = 1.0) -> None:
    for _ in range(windows * WINDOW):
        clock.now_s += 15
        shown = darker * torch.rand(1, 3, 16, 16, generator=chance)
        sampler.sample(shown, torch.randn(1, 3, generator=chance))


def test_drift_needs_several_successive_windows() -> None:
    clock, chance = Clock(), torch.Generator().manual_seed(1)
    sampler = DriftSampler(reference(chance), 15.0, clock)
    fill(sampler, clock, chance, DRIFT_WINDOWS - 1, darker=0.2)
    assert sampler.state == DriftState(DRIFT_WINDOWS - 1, 0.0, 0.0)
    fill(sampler, clock, chance, 1, darker=0.2)
    assert sampler.state is not None
    assert sampler.state.pictures > 1 > sampler.state.answers
    fill(sampler, clock, chance, 1)
    assert sampler.state is not None
    assert sampler.state.pictures < 1


def test_frames_between_two_intervals_and_with_nan_values_are_ignored() -> None:
    clock, chance = Clock(), torch.Generator().manual_seed(1)
    sampler = DriftSampler(reference(chance), 15.0, clock)
    clock.now_s += 15
    for _ in range(10 * WINDOW):  # only the first of these frames is due
        clock.now_s += 0.01
        sampler.sample(torch.rand(1, 3, 16, 16), torch.randn(1, 3))
    for _ in range(WINDOW):
        clock.now_s += 15
        sampler.sample(torch.full((1, 3, 16, 16), torch.nan), torch.randn(1, 3))
    assert sampler.state == DriftState()


def dim(number: int, part: float) -> NDArray[np.uint8]:
    return (part * picture(number)).astype(np.uint8)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("calibrated")
    bundle = tiny_bundle(folder)
    images = np.stack([picture(1000 + number) for number in range(80)])
    assert write_drift(folder, bundle, LabelledPictures("own", images, np.zeros(80, np.int64))) == 80
    return load_bundle(folder, CPU)


@pytest.mark.parametrize(("part", "drifts"), [(1.0, False), (0.4, True)])
def test_the_live_chain_compares_rebuilt_frames_with_the_calibration(
    calibrated: Bundle, part: float, drifts: bool
) -> None:
    executor, clock = batch_executor(calibrated), Clock()
    executor.drift = DriftSampler(calibrated.drift, 15.0, clock)
    for number in range(DRIFT_WINDOWS * WINDOW):
        clock.now_s += 15
        classify_copies(
            executor, [verified_job(payload("site/cam-0", number, encoding=Encoding(16), shown=dim(number, part)))]
        )
    assert executor.drift.state is not None
    assert executor.drift.state.windows == DRIFT_WINDOWS
    assert (executor.drift.state.pictures > 1) is drifts


def test_drift_compares_the_tile_that_decides_and_not_the_mean_of_all(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, policy="tile")
    scenes = [np.concatenate([dim(number, 0.3), picture(number)], 1) for number in range(80 + DRIFT_WINDOWS * WINDOW)]
    images = np.concatenate([fit_to_network(Pipeline(bundle), scene) for scene in scenes[:80]])
    write_drift(tmp_path, bundle, LabelledPictures("own", images, np.zeros(80, np.int64)))
    executor, clock = batch_executor(load_bundle(tmp_path, CPU)), Clock()
    executor.drift = DriftSampler(executor.pipeline.bundle.drift, 15.0, clock)
    for number, scene in enumerate(scenes[80:]):
        clock.now_s += 15
        classify_copies(executor, [verified_job(payload("site/cam-0", number, encoding=Encoding(16), shown=scene))])
    assert executor.drift.state is not None
    assert executor.drift.state.windows == DRIFT_WINDOWS
    assert max(executor.drift.state.pictures, executor.drift.state.answers) < 1


def test_the_features_of_a_tiled_picture_are_those_of_the_tile_that_decides(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, policy="tile")
    tile, black = np.stack([picture(number) for number in range(32)]), np.zeros((32, 32, 32, 3), np.uint8)
    both = np.concatenate([tile, black], 2)
    bright, found, dark = (
        drift_rows(bundle, LabelledPictures("own", images, np.zeros(32, np.int64)))[:, 0]
        for images in (tile, both, black)
    )
    assert np.minimum(np.abs(found - bright), np.abs(found - dark)).max() < 0.1


def test_frames_of_a_second_model_and_bundles_without_a_reference_have_no_drift(
    calibrated: Bundle, tmp_path: Path
) -> None:
    plain = batch_executor(tiny_bundle(tmp_path / "plain"))
    classify_copies(plain, [verified_job(payload("site/cam-0", 1))])
    assert plain.drift.state is None
    executor, clock = batch_executor(calibrated), Clock()
    executor.drift = DriftSampler(calibrated.drift, 15.0, clock)
    for number in range(WINDOW):
        clock.now_s += 15
        job = verified_job(payload("site/cam-0", number))
        job.judged_before = True
        classify_copies(executor, [job])
    assert executor.drift.state == DriftState()


def test_too_few_pictures_are_rejected_as_a_reference(calibrated: Bundle, tmp_path: Path) -> None:
    few = LabelledPictures("few", np.zeros((31, 32, 32, 3), np.uint8), np.zeros(31, np.int64))
    with pytest.raises(ConfigError, match="expected at least 32"):
        write_drift(tmp_path, calibrated, few)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((40, 10), np.float32), np.zeros((40, 11), np.float64), np.zeros((31, 11), np.float32),
     np.full((40, 11), np.nan, np.float32)],
)  # fmt: skip
def test_a_reference_of_another_shape_or_type_is_rejected(tmp_path: Path, rows: NDArray[np.generic]) -> None:
    folder = tmp_path / "bundle"
    tiny_bundle(folder)
    np.save(folder / "drift.npy", rows)
    with (folder / "model.toml").open("a") as opened:
        opened.write('\n[drift]\nreference = "drift.npy"\n')
    with pytest.raises(BundleError, match=r"drift\.npy: expected finite float32"):
        load_bundle(folder, CPU)


class Sent:
    """An emitter that keeps the reports instead of sending them."""

    def __init__(self) -> None:
        self.reports: list[ServedModel] = []

    async def send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        self.reports += [ServedModel.FromString(record.value or b"") for record in records]


async def test_each_new_window_updates_the_metric_and_sends_a_report(calibrated: Bundle) -> None:
    sampler = DriftSampler(calibrated.drift, 15.0, Clock())
    loaded = SimpleNamespace(model_id="own", digest="", runs=(), executor=SimpleNamespace(drift=sampler))
    feed = SimpleNamespace(refused=None, found=1, exists=True, models=Models())
    registry, sent = CollectorRegistry(), Sent()
    swap = ModelSwap(
        ProcessorSettings(), cast(ModelFeed, feed), cast(ModelLoader, SimpleNamespace(load=None, count_loss=None)),
        cast(LoadedModel, loaded), lambda model: None, lambda candidate: None, cast(Emitter, sent),
        ProcessorMetrics(registry), Health(),
    )  # fmt: skip
    for state in (DriftState(), DriftState(1), DriftState(1), DriftState(DRIFT_WINDOWS, 1.5, 0.5)):
        sampler.state = state
        swap.poll()
        await asyncio.sleep(0)
    assert [report.drift.windows for report in sent.reports] == [0, 1, DRIFT_WINDOWS]
    assert registry.get_sample_value("pointillist_drift_ratio", {"of": "pictures"}) == 1.5
    sampler.state = None
    swap.poll()
    await asyncio.sleep(0)
    assert not sent.reports[-1].HasField("drift")
    assert registry.get_sample_value("pointillist_drift_ratio", {"of": "pictures"}) is None
