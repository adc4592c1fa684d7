"""Micro-batches of the device, quotas of cameras, and the shares of the steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.arrivals.job import Shape
from processors.device import microbatch
from processors.device.fair_queue import FairQueue
from processors.device.microbatch import MicroBatcher
from processors.device.scheduler import DeviceScheduler

SMALL = Shape(32, 32, 3)
GREY = Shape(28, 28, 1)


@dataclass(frozen=True)
class Waiting:
    camera_id: str
    number: int
    shape: Shape = SMALL
    arrived_s: float = 0.0


def batcher(frames: int = 8, pixels: int = 2**30, linger_s: float = 1.0) -> MicroBatcher[Waiting]:
    return MicroBatcher(frames, pixels, linger_s)


ARRIVALS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from((SMALL, GREY)), st.floats(0, 0.3)), max_size=80)


@given(ARRIVALS, st.integers(1, 9), st.lists(st.integers(0, 80), max_size=8))
def test_every_frame_leaves_once_in_its_cameras_order_with_frames_of_its_shape(
    arrivals: list[tuple[str, Shape, float]], size: int, takes: list[int]
) -> None:
    waiting = batcher(size)
    clock = 0.0
    came: defaultdict[tuple[str, Shape], list[int]] = defaultdict(list)
    left: defaultdict[tuple[str, Shape], list[int]] = defaultdict(list)

    def take(now_s: float) -> bool:
        batch = waiting.next_batch(now_s)
        assert len(batch) <= size
        assert len({frame.shape for frame in batch}) <= 1
        for frame in batch:
            left[frame.camera_id, frame.shape].append(frame.number)
        return bool(batch)

    for number, (camera, shape, pause_s) in enumerate(arrivals):
        clock += pause_s
        waiting.put(Waiting(camera, number, shape, clock))
        came[camera, shape].append(number)
        if number in takes:
            take(clock)
    while len(waiting):
        due_s = waiting.due_s()
        assert due_s is not None
        assert take(max(clock, due_s))
    assert waiting.due_s() is None
    assert not take(clock + 100)
    assert came == left


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60), st.integers(1, 12))
def test_no_camera_gets_more_than_its_share_of_a_batch_while_others_wait(cameras: list[str], size: int) -> None:
    waiting = batcher(size, linger_s=0)
    for number, camera in enumerate(cameras):
        waiting.put(Waiting(camera, number))
    left = Counter(cameras)
    while len(waiting):
        served = Counter(frame.camera_id for frame in waiting.next_batch(0.0))
        left -= served
        for camera, count in served.items():
            for other in left:
                if other != camera:
                    assert count <= served[other] + 1


def test_with_more_cameras_than_places_the_next_batch_begins_with_the_unserved() -> None:
    waiting = batcher(2)
    for number in range(2):
        for camera in "abc":
            waiting.put(Waiting(camera, number))
    batches = [[frame.camera_id for frame in waiting.next_batch(9.0)] for _ in range(3)]
    assert batches == [["a", "b"], ["c", "a"], ["b", "c"]]


def test_a_batch_is_ready_when_it_is_full_or_its_oldest_frame_has_lingered() -> None:
    waiting = batcher(3, linger_s=0.5)
    waiting.put(Waiting("a", 0, arrived_s=10.0))
    assert waiting.due_s() == 10.5
    assert waiting.next_batch(10.4) == []
    assert len(waiting.next_batch(10.5)) == 1
    for number in range(3):
        waiting.put(Waiting("a", number, arrived_s=11.0))
    assert waiting.due_s() == 11.0
    assert len(waiting.next_batch(11.0)) == 3


def test_a_full_shape_does_not_starve_another_whose_frame_has_waited_longer() -> None:
    waiting = batcher(2, linger_s=0.5)
    waiting.put(Waiting("a", 0, GREY, arrived_s=0.0))
    for number in range(4):
        waiting.put(Waiting("b", number, SMALL, arrived_s=0.1))
    assert [frame.shape for frame in waiting.next_batch(0.6)] == [GREY]


def test_large_frames_form_smaller_batches() -> None:
    large = Shape(1080, 1920, 3)
    waiting = batcher(64, pixels=2 * 1080 * 1920, linger_s=0)
    for number in range(3):
        waiting.put(Waiting("a", number, large))
    assert [len(waiting.next_batch(0.0)) for _ in range(2)] == [2, 1]
    alone = batcher(64, pixels=1, linger_s=0)
    alone.put(Waiting("a", 0, large))
    assert len(alone.next_batch(0.0)) == 1


LARGE = Shape(1440, 2560, 3)


def measured(large_s: float = 1.0, small_s: float = 0.001) -> MicroBatcher[Waiting]:
    """Return a batcher that has measured the seconds of a large and of a small frame."""
    waiting = batcher(64, pixels=2**20, linger_s=0)
    for _ in range(2):
        waiting.charge([Waiting("known", 0, LARGE)], large_s)
        waiting.charge([Waiting("known", 0, SMALL)], small_s)
    return waiting


def test_a_camera_with_slow_frames_waits_for_cameras_that_had_less_device_time() -> None:
    waiting = batcher(4, pixels=2**20, linger_s=0)
    for number in range(3):
        waiting.put(Waiting("large", number, LARGE))
    assert [frame.camera_id for frame in waiting.next_batch(0.0)] == ["large"]
    waiting.charge([Waiting("large", 0, LARGE)], 1.0)
    # Ten cameras whose frames came later get 600 ms of the device.
    for number in range(60):
        waiting.put(Waiting("abcdefghij"[number % 10], number, SMALL, arrived_s=1.0))
    for _ in range(15):
        batch = waiting.next_batch(2.0)
        assert {frame.shape for frame in batch} == {SMALL}
        waiting.charge(batch, 0.04)
    assert [frame.shape for frame in waiting.next_batch(2.0)] == [LARGE]


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6))
def test_cameras_with_a_constant_backlog_get_equal_device_time(costs: list[float]) -> None:
    waiting = batcher(1, linger_s=0)
    had = [0.0] * len(costs)
    for turn in range(400):
        for camera in range(len(costs)):
            if turn == 0:
                waiting.put(Waiting(str(camera), turn))
        (frame,) = waiting.next_batch(0.0)
        camera = int(frame.camera_id)
        waiting.charge([frame], costs[camera])
        had[camera] += costs[camera]
        waiting.put(Waiting(frame.camera_id, turn))
    assert max(had) - min(had) <= 2 * max(costs)


def test_a_camera_that_was_alone_is_not_charged_for_it_later() -> None:
    waiting = batcher(1, linger_s=0)
    for _ in range(100):
        waiting.charge([Waiting("alone", 0)], 1.0)
    for number in range(4):
        waiting.put(Waiting("alone", number))
        waiting.put(Waiting("new", number))
    served = []
    for _ in range(8):
        batch = waiting.next_batch(0.0)
        served.append(batch[0].camera_id)
        waiting.charge(batch, 1.0)
    assert Counter(served[:5])["alone"] >= 2


def test_above_its_quota_of_device_time_a_camera_loses_its_newest_frames() -> None:
    waiting = measured()
    for number in range(30):
        waiting.put(Waiting("bomber", number, LARGE))
    for number in range(10):
        waiting.put(Waiting("good", number))
        waiting.put(Waiting("bomber", 100 + number))
    assert [frame.number for frame in waiting.over_quota(5.0)] == [*range(29, 4, -1), 4]
    assert waiting.over_quota(5.0) == []
    assert len(waiting) == 4 + 10 + 10


def test_a_camera_alone_has_no_quota() -> None:
    waiting = measured()
    for number in range(30):
        waiting.put(Waiting("only", number, LARGE))
    assert waiting.over_quota(5.0) == []
    waiting.put(Waiting("other", 0))
    assert len(waiting.over_quota(5.0)) == 25
    waiting.next_batch(0.0)
    assert waiting.over_quota(5.0) == []


def test_no_frame_is_dropped_if_all_cameras_overload_the_device() -> None:
    waiting = measured()
    for number in range(10):
        for camera in "abcd":
            waiting.put(Waiting(camera, number, LARGE))
    assert waiting.over_quota(5.0) == []


def test_one_slow_batch_is_not_charged_to_the_camera() -> None:
    waiting = measured(0.1)
    waiting.charge([Waiting("bad luck", 0, LARGE)], 60.0)
    waiting.put(Waiting("other", 0))
    for number in range(30):
        waiting.put(Waiting("bad luck", number, LARGE))
    assert waiting.over_quota(5.0) == []


def test_an_unmeasured_size_costs_as_much_as_similar_ones_and_one_frame_may_always_wait() -> None:
    waiting = measured(10.0)
    waiting.put(Waiting("other", 0))
    for number in range(20):
        waiting.put(Waiting("bomber", number, Shape(1440 - number, 2560, 3)))
    assert len(waiting.over_quota(5.0)) == 19


@dataclass(frozen=True)
class Probe:
    number: int
    held_bytes: int = 10
    camera_id: str = "a"


def test_a_full_queue_rejects_more_of_the_same_camera() -> None:
    by_count: FairQueue[Probe] = FairQueue(2, 1000)
    assert [by_count.offer(Probe(i)) for i in range(3)] == [[], [], [Probe(2)]]
    by_bytes: FairQueue[Probe] = FairQueue(100, 25)
    assert [by_bytes.offer(Probe(i)) for i in range(3)] == [[], [], [Probe(2)]]
    assert [probe.number for probe in by_bytes.pop(5)] == [0, 1]
    assert by_bytes.offer(Probe(9, held_bytes=10**9)) == []
    assert by_bytes.offer(Probe(10, held_bytes=0)) == [Probe(10, held_bytes=0)]


def test_cameras_take_turns_and_the_one_with_the_most_probes_makes_room() -> None:
    queue: FairQueue[Probe] = FairQueue(4, 1000)
    flood = [Probe(i) for i in range(4)]
    assert [queue.offer(probe) for probe in flood] == [[]] * 4
    assert queue.offer(Probe(10, camera_id="b")) == [flood[3]]
    assert queue.offer(Probe(11, camera_id="c")) == [flood[2]]
    assert queue.offer(Probe(12)) == [Probe(12)]
    assert [(probe.camera_id, probe.number) for probe in queue.pop(9)] == [("a", 0), ("b", 10), ("c", 11), ("a", 1)]
    large = Probe(20, held_bytes=900, camera_id="b")
    assert [queue.offer(probe) for probe in (*flood[:2], large)] == [[]] * 3
    assert queue.offer(Probe(21, held_bytes=90, camera_id="b")) == [Probe(21, held_bytes=90, camera_id="b")]
    queue.discard(lambda _: True)
    one_each = [Probe(i, camera_id=camera) for i, camera in enumerate("abcd")]
    assert [queue.offer(probe) for probe in one_each] == [[]] * 4
    last = Probe(4, camera_id="e")
    assert queue.offer(last) == [last]  # of equal cameras, the one whose turn comes last makes room


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 3)), max_size=60))
def test_the_queue_counts_its_probes_and_keeps_the_order_of_each_camera(steps: list[tuple[str, int, int]]) -> None:
    queue: FairQueue[Probe] = FairQueue(5, 100)
    waiting: list[Probe] = []
    for number, (camera, size, count) in enumerate(steps):
        waiting.append(Probe(number, size, camera))
        for displaced in queue.offer(waiting[-1]):
            waiting.remove(displaced)
        assert len(queue) == len(waiting) <= 5
        assert len(waiting) == 1 or sum(probe.held_bytes for probe in waiting) <= 100
        for popped in queue.pop(count):
            assert popped == next(probe for probe in waiting if probe.camera_id == popped.camera_id)
            waiting.remove(popped)
    assert sorted(probe.number for probe in queue.discard(lambda _: True)) == [probe.number for probe in waiting]
    assert len(queue) == 0


def test_discarded_probes_make_room() -> None:
    queue: FairQueue[Probe] = FairQueue(3, 30)
    for i in range(3):
        queue.offer(Probe(i))
    assert [probe.number for probe in queue.discard(lambda probe: probe.number != 1)] == [0, 2]
    assert queue.offer(Probe(5)) == []
    assert [probe.number for probe in queue.pop(9)] == [1, 5]


@given(st.floats(0.05, 0.95), st.lists(st.tuples(st.floats(0.001, 0.1), st.floats(0.001, 0.1)), min_size=50))
def test_under_load_strip_gets_exactly_its_share(share: float, costs: list[tuple[float, float]]) -> None:
    scheduler = DeviceScheduler(share, slice_s=0.1)
    strip_s = batch_s = 0.0
    for strip_cost, batch_cost in costs * 5:
        if scheduler.strip_is_next(batch_ready=True, probe_waits=True):
            scheduler.charge_strip(strip_cost, 1)
            strip_s += strip_cost
        else:
            scheduler.charge_classification(batch_cost, probe_waits=True)
            batch_s += batch_cost
    # The shares differ by at most one turn in progress.
    assert abs(strip_s * (1 - share) - batch_s * share) <= 0.1 + 1e-9


@pytest.mark.parametrize("turn_s", [0.05, 1.0, 5.0])
def test_the_shares_also_hold_for_turns_of_several_seconds(turn_s: float) -> None:
    scheduler = DeviceScheduler(0.25, slice_s=0.1, probe_s=turn_s, comparison_share=0.1)
    strip_s = comparison_s = batch_s = 0.0
    while strip_s + comparison_s + batch_s < 1000:
        if scheduler.comparison_is_next(other_work=True, comparison_waits=True):
            scheduler.charge_comparison(turn_s)
            comparison_s += turn_s
        elif scheduler.strip_is_next(batch_ready=True, probe_waits=True):
            scheduler.charge_strip(turn_s, 1, waited_s=turn_s)
            strip_s += turn_s
        else:
            scheduler.charge_classification(0.1, probe_waits=True)
            batch_s += 0.1
    assert strip_s / (strip_s + batch_s) == pytest.approx(0.25, abs=0.02)
    assert comparison_s / (strip_s + batch_s) == pytest.approx(0.1, abs=0.02)


def test_the_only_step_with_work_gets_the_device() -> None:
    scheduler = DeviceScheduler(0.25, slice_s=0.1)
    scheduler.charge_strip(100.0, 1)
    assert scheduler.strip_is_next(batch_ready=False, probe_waits=True)
    assert not scheduler.strip_is_next(batch_ready=True, probe_waits=True)
    assert not scheduler.strip_is_next(batch_ready=False, probe_waits=False)
    scheduler.charge_classification(10.0, probe_waits=True)
    assert scheduler.strip_is_next(batch_ready=True, probe_waits=True)


def test_a_turn_of_strip_has_as_many_probes_as_fit_into_its_slice() -> None:
    assert DeviceScheduler(0.25, slice_s=0.1).probes_in_turn() == 1
    assert DeviceScheduler(0.25, slice_s=0.1, probe_s=0.02).probes_in_turn() == 5
    assert DeviceScheduler(0.25, slice_s=0.1, probe_s=5.0).probes_in_turn() == 1
    scheduler = DeviceScheduler(0.25, slice_s=0.1)
    scheduler.charge_strip(0.08, 4)
    assert scheduler.probes_in_turn() == 5
    scheduler.expect_probe(0.05)  # that of another model
    assert scheduler.probes_in_turn() == 2


def test_a_cameras_backlog_may_reach_its_quota_and_twice_that_of_the_others() -> None:
    waiting = measured(small_s=0.1)
    for number in range(12):
        waiting.put(Waiting("dear", number, LARGE))
    for camera in ("b", "c"):
        for number in range(3):
            waiting.put(Waiting(camera, number, LARGE))
    # The two other cameras have 3 s each, and a quota below that does not lower the limit.
    share = microbatch._OF_THE_OTHERS * 3
    out = waiting.over_quota(1.0)
    assert {frame.camera_id for frame in out} == {"dear"}
    assert [frame.number for frame in out] == list(range(11, int(share) - 1, -1))
    assert len(waiting) == int(share) + 6


def test_at_its_quota_no_camera_loses_a_frame() -> None:
    waiting = measured(small_s=0.1)
    for number in range(4):
        waiting.put(Waiting("a", number, LARGE))
    waiting.put(Waiting("b", 0, LARGE))
    assert waiting.over_quota(5.0) == []
    assert [frame.number for frame in waiting.over_quota(3.0)] == [3]


def test_an_absent_camera_is_compared_with_all_present_cameras() -> None:
    waiting = measured(small_s=0.1)
    for number in range(6):
        waiting.put(Waiting("left", number, LARGE))
    late_s = microbatch._PRESENT_S + 1.0
    for camera in ("b", "c"):
        waiting.put(Waiting(camera, 0, LARGE, arrived_s=late_s))
    assert list(waiting._present) == ["b", "c"]
    # The two other cameras have two seconds together.
    assert len(waiting.over_quota(1.0)) == 6 - int(max(1.0, microbatch._OF_THE_OTHERS * 2 / 2))


def test_cameras_of_a_lost_partition_do_not_lower_the_limit_of_the_others() -> None:
    def backlog(lost: bool) -> list[Waiting]:
        waiting = measured()
        for camera in ("left", "gone"):
            waiting.put(Waiting(camera, 0, LARGE))
        waiting.next_batch(9.0)
        waiting.put(Waiting("left", 1, LARGE))
        if lost:
            assert len(waiting.discard(lambda frame: frame.camera_id == "left")) == 1
        for camera in ("a", "b"):
            for number in range(6):
                waiting.put(Waiting(camera, number, LARGE))
        return waiting.over_quota(1.0)

    assert len(backlog(lost=False)) > 0
    assert backlog(lost=True) == []


def test_the_most_expensive_frames_are_dropped_first_in_any_order_of_arrival() -> None:
    for order in ((SMALL, LARGE), (LARGE, SMALL)):
        waiting = measured(small_s=0.1)
        for shape in order:
            for number in range(3):
                waiting.put(Waiting("dear", number, shape))
        waiting.put(Waiting("b", 0, SMALL))
        assert {frame.shape for frame in waiting.over_quota(2.0)} == {LARGE}


def test_discarding_frames_keeps_the_count_of_the_others_correct() -> None:
    waiting = batcher(2, linger_s=9.0)
    for number in range(4):
        waiting.put(Waiting("ab"[number % 2], number))
    waiting.put(Waiting("c", 9, GREY))
    assert [frame.number for frame in waiting.discard(lambda frame: frame.number == 0)] == [0]
    # Three frames are left and a batch holds two: a full batch is ready at once.
    assert (len(waiting), waiting.due_s()) == (4, 0.0)
    assert len(waiting.next_batch(0.0)) == 2
    assert waiting.due_s() == 9.0
    assert [frame.number for frame in waiting.discard(lambda _: True)] == [3, 9]
    assert (len(waiting), waiting.due_s(), waiting._queues) == (0, None, {})


def test_the_cost_of_a_frame_is_its_measured_time_and_not_its_size() -> None:
    waiting = measured(large_s=0.1, small_s=1.0)
    for number in range(4):
        waiting.put(Waiting("dear", number, SMALL))
        waiting.put(Waiting("dear", number, LARGE))
    waiting.put(Waiting("b", 0, LARGE))
    assert {frame.shape for frame in waiting.over_quota(2.5)} == {SMALL}
