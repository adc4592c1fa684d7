from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from torch import Tensor

from processors.arrivals.deltas import Deltas
from processors.arrivals.frames import TakenFrame
from processors.arrivals.key_frames import write_note
from processors.device.work import DeviceWork, Failed, Found
from processors.metrics import ProcessorMetrics
from processors.pipeline import Classified, Pipeline, StageContext, bare
from processors.settings import ProcessorSettings
from processors.stages.packed import Packed
from schemas.errors import Malformed, NoKeyFrame, WireError
from schemas.keys import Purpose
from schemas.pixels.masks import kept_mask
from schemas.pixels.temporal_encoder import KeyCause
from schemas.pointillist_pb2 import Frame
from tests.processors.tiny import KEYS, FakeRecord, TemporalCamera, camera_key, picture, taken, tiny_bundle


class Bench:
    """Deltas with everything that they hand on."""

    def __init__(self, **changes: object) -> None:
        plain: dict[str, object] = {"kafka": "none", "bundle": Path("none")}
        self.registry = CollectorRegistry()
        self.ready: list[TakenFrame] = []
        self.failed: list[tuple[TakenFrame, WireError]] = []
        self.asked: list[TakenFrame] = []
        self.recalls: list[tuple[int, int]] = []
        self.deltas = Deltas(
            ProcessorSettings.model_validate(plain | changes),
            KEYS,
            ProcessorMetrics(self.registry),
            ready=self.ready.append,
            failed=lambda frame, error: self.failed.append((frame, error)),
            ask=self.asked.append,
            recall=self.recall,
        )

    def recall(self, places: Sequence[tuple[int, int]]) -> None:
        self.recalls += places

    def seqs(self) -> list[int]:
        return [frame.frame.seq for frame in self.ready]

    def count(self, kind: str, outcome: str) -> float:
        return self.registry.get_sample_value(f"pointillist_{kind}_frames_total", {"outcome": outcome}) or 0.0


def test_a_delta_whose_key_frame_is_there_goes_on_at_once() -> None:
    bench, camera = Bench(), TemporalCamera()
    bench.deltas.take_key(camera.frame(), False)
    delta = camera.frame()
    bench.deltas.take(delta, 0.0)
    assert bench.ready == [delta]
    assert delta.key_frame is not None
    assert delta.key_frame.identity.seq == 0
    assert bench.count("delta", "with_key") == 1


def test_deltas_before_their_key_frame_wait_for_it() -> None:
    bench, camera = Bench(), TemporalCamera()
    key, first, second = camera.frame(), camera.frame(), camera.frame()
    for delta in (second, first):
        bench.deltas.take(delta, 0.0)
    bench.deltas.tick(0.4)
    assert len(bench.deltas) == 2
    bench.deltas.take_key(key, False)
    assert bench.seqs() == [2, 1]
    assert len(bench.deltas) == 0
    assert not bench.asked
    assert not bench.failed


def test_a_lost_key_frame_is_asked_for_once_and_what_names_it_is_given_up_in_time() -> None:
    bench, camera = Bench(key_wait_s=2.0), TemporalCamera()
    camera.frame()
    first, second, late = camera.frame(), camera.frame(), camera.frame()
    bench.deltas.take(first, 0.0)
    bench.deltas.take(second, 0.3)
    bench.deltas.tick(0.6)
    bench.deltas.tick(1.1)
    assert bench.asked == [first]
    bench.deltas.tick(2.1)
    assert [frame for frame, _ in bench.failed] == [first, second]
    assert all(isinstance(error, NoKeyFrame) and "cam-0" in str(error) for _, error in bench.failed)
    bench.deltas.take(late, 2.7)  # nobody waits for it any more
    assert bench.failed[-1][0] is late
    assert bench.count("delta", "without_key") == 3
    assert bench.count("key", "asked") == len(bench.asked) == 2


def test_after_one_round_trip_the_camera_goes_on_with_a_new_key_frame() -> None:
    bench, camera = Bench(), TemporalCamera()
    camera.frame()
    bench.deltas.take(camera.frame(), 0.0)
    bench.deltas.tick(5.0)
    camera.encoder.renew(KeyCause.ASKED)
    bench.deltas.take_key(camera.frame(), False)
    for _ in range(3):
        bench.deltas.take(camera.frame(), 5.0)
    assert bench.seqs() == [3, 4, 5]
    assert len(bench.failed) == 1


def test_a_key_frame_that_comes_after_all_is_taken_again() -> None:
    bench, camera = Bench(), TemporalCamera()
    key = camera.frame()
    bench.deltas.take(camera.frame(), 0.0)
    bench.deltas.tick(5.0)
    bench.deltas.take_key(key, False)
    bench.deltas.take(camera.frame(), 5.0)
    assert bench.seqs() == [2]


def test_the_number_that_wait_is_bounded_and_the_oldest_give_way() -> None:
    bench = Bench(key_wait_frames=4)
    for number in range(6):
        camera = TemporalCamera(f"site/cam-{number}")
        camera.frame()
        bench.deltas.take(camera.frame(), float(number))
    assert len(bench.deltas) == 4
    assert [frame.camera_id for frame, _ in bench.failed] == ["site/cam-0", "site/cam-1"]


def test_a_key_frame_that_gave_way_is_read_back_and_its_deltas_neither_expire_nor_count() -> None:
    bench, first, second = Bench(key_cache_bytes=1, key_wait_frames=1), TemporalCamera(), TemporalCamera("site/other")
    message = first.message()
    bench.deltas.take_key(taken(message, first.name, 40), False)
    bench.deltas.take_key(second.frame(), False)
    for _ in range(3):
        bench.deltas.take(first.frame(), 0.0)
    bench.deltas.tick(100.0)
    assert bench.recalls == [(0, 40)]
    assert not bench.failed
    bench.deltas.recalled((0, 40), FakeRecord(message, first.name.encode(), 40))
    assert bench.seqs() == [1, 2, 3]
    assert bench.count("key", "read_back") == 1


@pytest.mark.parametrize("record", [None, FakeRecord(b"rubbish"), FakeRecord(TemporalCamera().message(), b"site/else")])
def test_a_key_frame_that_kafka_does_not_hold_any_more_is_asked_for(record: FakeRecord | None) -> None:
    bench, camera, other = Bench(key_cache_bytes=1), TemporalCamera(), TemporalCamera("site/other")
    bench.deltas.take_key(camera.frame(), False)
    bench.deltas.take_key(other.frame(), False)
    delta = camera.frame()
    bench.deltas.take(delta, 0.0)
    bench.deltas.recalled((0, 0), record)
    assert bench.asked == [delta]
    assert isinstance(bench.failed[0][1], NoKeyFrame)


def test_a_partition_is_taken_up_when_all_that_its_note_names_is_read_back() -> None:
    bench, camera = Bench(), TemporalCamera()
    message, done = camera.message(), []
    assert not bench.deltas.recall_partition(0, "", lambda: done.append(0))
    assert bench.deltas.recall_partition(0, write_note([3, 40]), lambda: done.append(1))
    assert bench.recalls == [(0, 3), (0, 40)]
    bench.deltas.recalled((0, 3), None)
    assert not done
    bench.deltas.recalled((0, 40), FakeRecord(message, camera.name.encode(), 40))
    assert done == [1]
    bench.deltas.take(camera.frame(), 0.0)
    assert bench.seqs() == [1]
    assert not bench.deltas.recall_partition(0, write_note([40]), lambda: done.append(2))


def test_replayed_key_frames_push_nothing_out() -> None:
    bench, camera = Bench(), TemporalCamera()
    old = [camera.frame()]
    for _ in range(9):
        camera.encoder.renew(KeyCause.ASKED)
        old.append(camera.frame())
    bench.deltas.take_key(old[-1], False)
    for frame in old[:-1]:
        bench.deltas.take_key(frame, True)
    bench.deltas.take(camera.frame(), 0.0)
    assert bench.seqs() == [10]
    assert len(bench.deltas.held) == 1


def test_a_repeated_key_frame_that_is_waited_for_is_taken() -> None:
    bench, camera = Bench(), TemporalCamera()
    key = camera.frame()
    bench.deltas.take(camera.frame(), 0.0)
    bench.deltas.take_key(key, True)
    assert bench.seqs() == [1]


@pytest.mark.parametrize(("drop", "size"), [(8, 32), (16, 40)])
def test_a_delta_that_does_not_fit_its_key_frame_fails(drop: int, size: int) -> None:
    bench, camera, odd = Bench(), TemporalCamera(), TemporalCamera(drop=drop, size=size)
    bench.deltas.take_key(camera.frame(), False)
    odd.frame()
    bench.deltas.take(odd.frame(), 0.0)
    assert isinstance(bench.failed[0][1], Malformed)
    assert not bench.ready


def test_the_key_frame_of_another_boot_or_camera_is_not_taken_for_ones_own() -> None:
    bench, camera = Bench(), TemporalCamera()
    camera.frame()
    bench.deltas.take_key(TemporalCamera(boot_id=8).frame(), False)
    bench.deltas.take_key(TemporalCamera("site/cam-1").frame(), False)
    bench.deltas.take(camera.frame(), 0.0)
    assert not bench.ready


def test_waiting_frames_of_a_partition_that_is_gone_are_taken_out() -> None:
    bench, camera = Bench(), TemporalCamera()
    key, mine, other = camera.frame(), camera.frame(), camera.frame()
    bench.deltas.take(mine, 0.0)
    bench.deltas.take(other, 0.0)
    assert bench.deltas.discard(lambda frame: frame is mine) == [mine]
    bench.deltas.take_key(key, False)
    assert bench.ready == [other]


class Watched(Pipeline):
    """A pipeline that keeps what it is given."""

    def __call__(
        self, frames: Tensor | Packed, kept: Tensor, stage: StageContext = bare, *, seeds: Tensor | None = None
    ) -> Classified:
        assert isinstance(frames, Tensor)
        self.given = (frames.clone(), kept.clone())
        return super().__call__(frames, kept, stage, seeds=seeds)


def test_the_device_composes_each_block_from_one_mask_and_fails_single_frames(tmp_path: Path) -> None:
    bench, camera = Bench(), TemporalCamera()
    key, *deltas = (camera.frame() for _ in range(4))
    broken = Frame.FromString(camera.message())
    broken.pixels = broken.pixels[:-1]
    broken.ClearField("tag")
    bad = taken(camera_key(camera.name).sign(Purpose.FRAME, broken.SerializeToString()), camera.name, 9)
    bench.deltas.take_key(key, False)
    for delta in (*deltas, bad):
        bench.deltas.take(delta, 0.0)
    pipeline = Watched(tiny_bundle(tmp_path))
    work = DeviceWork(pipeline, ProcessorMetrics(CollectorRegistry()))
    outcomes = work.classify([key, deltas[0], bad, deltas[1], deltas[2]], [False] * 5)
    assert [isinstance(outcome, Found) for outcome in outcomes] == [True, True, False, True, True]
    assert isinstance(outcomes[2], Failed)
    assert outcomes[2].stage == "unpack"
    frames, kept = pipeline.given
    for pixels, mask, frame in zip(frames, kept[:, 0].numpy(), (key, *deltas), strict=True):
        own = kept_mask(frame.key, 7, frame.frame.seq, 32, 32, 16)
        wanted = kept_mask(key.key, 7, 0, 32, 32, 16)
        wanted[:8, :8] = own[:8, :8]
        np.testing.assert_array_equal(mask, wanted)
        shown = picture(1)
        shown[:8, :8] = 20 * frame.frame.seq
        seen = pixels.permute(1, 2, 0).mul(255).round().byte().numpy()
        np.testing.assert_array_equal(seen, np.where(wanted[..., None], shown, 0))
