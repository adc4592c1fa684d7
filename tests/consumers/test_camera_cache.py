"""The cache of cameras: states and ages by the monotonic clock, snapshots, and series."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import delete

from consumers.cameras import cache
from consumers.cameras.cache import CameraCache
from consumers.cameras.camera import Camera
from consumers.cameras.snapshots import Snapshots
from consumers.cameras.state import State
from consumers.database.tables import boots, frames
from consumers.evidence.probe_shares import ProbeCandidate
from consumers.recorder.metrics import Meters, places_of
from consumers.records.rows import CameraRow
from consumers.settings import Bounds
from schemas.limits import LEAST_FRAMES_PER_SECOND
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, PAUSED, RAW, Meta, Status, Turn
from tests.clocks import MsClock
from tests.consumers.recorder_rig import BOOT, CAMERA, PNG, MakeRig, Rig, signed, verdict

SILENT_AFTER_S = 10.0
HOUR_MS = 3_600_000


def load_cameras(rig: Rig) -> list[Camera]:
    """Return the cameras that a recorder restores at its start."""
    return Snapshots(rig.engine, rig.bounds.strangers).load()


def save_cameras(rig: Rig, count: int = 1_000) -> None:
    """Save at most `count` changed cameras, as a round of housekeeping does."""
    changed, left_from_ms = rig.cameras.unsaved(count)
    Snapshots(rig.engine, rig.bounds.strangers).save(changed, left_from_ms)


@pytest.fixture
def clock(rig: Rig) -> MsClock:
    clock = MsClock(1_000_000)
    rig.cameras = CameraCache(rig.settings, clock)
    online = signed(Status(state=ONLINE, boot_id=BOOT))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), online, "Status")])
    return clock


class Scrape:
    """Scrapes of a metric: the cameras with a series, of which housekeeping shows at most `most`."""

    def __init__(self, rig: Rig, clock: MsClock, most: int = 10) -> None:
        self._rig, self._clock, self._most = rig, clock, most
        self._registry = CollectorRegistry()
        self._meters = Meters(self._registry, places_of(rig.settings))

    def __call__(self, metric: str) -> set[str]:
        cameras, now_ms = self._rig.cameras, self._clock()
        cameras.judge(now_ms, 0)
        self._meters.show_cameras(cameras.for_metrics(self._most, now_ms), cameras.worst(self._most), now_ms)
        [family] = [each for each in self._registry.collect() if each.name == metric]
        return {sample.labels["camera_id"] for sample in family.samples}


def only_camera(rig: Rig) -> Camera:
    [camera] = rig.cameras.all()
    return camera


def state(rig: Rig, clock: MsClock) -> State:
    return only_camera(rig).judge(clock(), SILENT_AFTER_S).state


def last_class(rig: Rig) -> str | None:
    last = only_camera(rig).last
    return last and last.class_name


def pictures(rig: Rig) -> list[bytes]:
    """Remove and return the unchecked previews."""
    return [jpeg for _, jpeg in rig.cameras.pop_previews(10)]


def test_frames_that_another_recorder_has_recorded_and_not_saved_are_restored(rig: Rig) -> None:
    rig.verdicts([verdict(0)])
    save_cameras(rig)
    rig.verdicts([verdict(7)], "lab/other")
    rig.verdicts([verdict(1)])
    # A recorder of other cameras goes on until it takes over.
    Snapshots(rig.engine, rig.bounds.strangers).save([], time.time_ns() // 10**6 + 40_000)
    last = {camera.name: camera.last and camera.last.seq for camera in load_cameras(rig)}
    assert last == {CAMERA: 1, "lab/other": 7}


def test_unchecked_previews_take_no_more_memory_than_their_bound(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(preview_bytes=3 * len(PNG)))
    for number in range(5):
        rig.verdicts([verdict(0, preview=PNG)], f"lab/{number}")
    rig.verdicts([verdict(1, preview=PNG + b"longer")], "lab/0")  # no room: the former one stays
    assert pictures(rig) == [PNG] * 3
    rig.verdicts([verdict(2, preview=PNG + b"longer")], "lab/0")
    assert pictures(rig) == [PNG + b"longer"]
    assert pictures(rig) == []


def test_a_camera_whose_clock_was_set_back_an_hour_is_not_silent(rig: Rig, clock: MsClock) -> None:
    now_ms = time.time_ns() // 10**6
    rig.verdicts([verdict(0, captured_ms=now_ms, class_name="before", preview=PNG)])
    for seq in range(1, 9):
        clock.now_ms += 5000
        late = verdict(seq, captured_ms=now_ms - HOUR_MS + 5000 * seq, class_name="after", preview=b"JPEG")
        rig.verdicts([late])
        assert state(rig, clock) is State.ONLINE
        assert only_camera(rig).age_s(clock()) == 0
    assert last_class(rig) == "after"
    assert pictures(rig) == [b"JPEG"]
    registry = CollectorRegistry()
    Meters(registry, places_of(rig.settings)).show_cameras(rig.cameras.all(), [], clock())
    assert registry.get_sample_value("pointillist_camera_age_seconds", {"camera_id": CAMERA}) == 0


def test_a_degraded_offline_or_silent_camera_has_a_series_until_it_recovers(rig: Rig, clock: MsClock) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))

    def impaired() -> set[str]:
        rig.cameras.judge(clock(), 0)
        meters.show_cameras(rig.cameras.all(), rig.cameras.worst(10), clock())
        return {
            sample.labels["state"]
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "pointillist_camera_impaired" and sample.labels["camera_id"] == CAMERA
        }

    rig.verdicts([verdict(0)])
    assert impaired() == set()
    statuses = ((DEGRADED, {"degraded"}), (OFFLINE, {"offline"}), (ONLINE, set[str]()))
    for number, (state, expected) in enumerate(statuses, 1):
        message = signed(Status(state=state, boot_id=BOOT, turn=Turn(connection=1, message=number, at_ms=100 * number)))
        rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), message, "Status")])
        assert impaired() == expected
    clock.now_ms += 60_000
    assert impaired() == {"silent"}


def test_a_camera_that_stops_after_its_rate_was_raised_is_silent_by_the_new_rate(rig: Rig, clock: MsClock) -> None:
    def sends(fps: float) -> None:
        turn = Turn(connection=1, message=clock.now_ms, at_ms=clock.now_ms)
        meta = signed(Meta(boot_id=BOOT, frames_per_second=fps, turn=turn))
        rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), meta, "Meta")])
        rig.verdicts([verdict(clock.now_ms)])

    for fps in (1 / 1500, 10):
        sends(fps)
        clock.now_ms += 5_000
    rig.cameras.judge(clock(), 0)
    clock.now_ms += 6_000
    [(saved, _)] = rig.cameras.judge(clock(), 0)
    assert saved.judged.state is State.SILENT
    sends(10)
    [(saved, _)] = rig.cameras.judge(clock(), 0)
    assert saved.judged.state is State.ONLINE


def test_a_camera_that_restarts_in_1970_is_not_silent(rig: Rig, clock: MsClock) -> None:
    rig.verdicts([verdict(50)])
    clock.now_ms += 60_000
    assert state(rig, clock) is State.SILENT
    rig.verdicts([verdict(0, boot=77, captured_ms=60_000, class_name="after", preview=b"JPEG")])
    assert (state(rig, clock), only_camera(rig).age_s(clock())) == (State.ONLINE, 0)
    assert pictures(rig) == [b"JPEG"]


def test_a_jump_of_the_recorders_clock_makes_no_camera_silent(
    rig: Rig, clock: MsClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.verdicts([verdict(0)])
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    clock.now_ms += 5000
    assert state(rig, clock) is State.ONLINE
    clock.now_ms += 6000
    assert (state(rig, clock), only_camera(rig).age_s(clock())) == (State.SILENT, 11)


def test_a_restarted_recorder_restores_the_age_of_a_silent_camera(rig: Rig, clock: MsClock) -> None:
    rig.verdicts([verdict(0)])
    found = load_cameras(rig)
    for camera in found:
        assert camera.last is not None
        camera.last = camera.last._replace(recorded_ms=camera.last.recorded_ms - 60_000)
    cache = CameraCache(rig.settings, clock)
    cache.restore(found)
    [camera] = cache.all()
    age_s = camera.age_s(clock())
    assert age_s is not None
    assert 60 <= age_s < 120
    assert camera.judge(clock(), SILENT_AFTER_S).state is State.SILENT


def facts(camera: Camera) -> tuple[object, ...]:
    return (
        camera.frames,
        camera.last,
        camera.entropy_bits,
        list(camera.probes),
        camera.level,
        camera.is_new,
        camera.meta,
    )


def test_saved_cameras_are_the_same_after_a_restart(rig: Rig, clock: MsClock) -> None:
    rig.verdicts([verdict(n, flagged=n % 3 == 0) for n in range(60)])
    rig.verdicts([verdict(n) for n in range(4)], "lab/b")
    save_cameras(rig)
    before = {camera.name: facts(camera) for camera in rig.cameras.all()}
    rig.close()
    rig.open()
    rig.cameras = CameraCache(rig.settings, clock)
    rig.cameras.restore(load_cameras(rig))
    after = {camera.name: facts(camera) for camera in rig.cameras.all()}
    assert after == before
    assert next(each for each in rig.cameras.all() if each.name == CAMERA).flagged_share() == pytest.approx(16 / 50)


def test_frames_recorded_after_the_snapshots_are_counted_after_a_restart(rig: Rig, clock: MsClock) -> None:
    rig.verdicts([verdict(0, class_name="before")])
    rig.verdicts([verdict(0, class_name="before")], "lab/b")
    save_cameras(rig, 1)
    time.sleep(0.002)
    rig.verdicts([verdict(1, class_name="after")])
    rig.verdicts([verdict(0, class_name="after")], "lab/c")
    restored = {camera.name: camera for camera in load_cameras(rig)}
    shown = {name: (camera.frames, camera.last and camera.last.class_name) for name, camera in restored.items()}
    assert shown == {CAMERA: (2, "after"), "lab/b": (1, "before"), "lab/c": (1, "after")}


def test_a_recorder_that_takes_over_a_camera_counts_the_frames_of_all_recorders(make_rig: MakeRig) -> None:
    first, second = make_rig(group="recorders"), make_rig(group="recorders")
    partition = (first.settings.verdicts_topic, 0)
    first.offsets |= first.store.claim({partition[0]}, {partition: (0, 0)})
    first.verdicts([verdict(0)])
    save_cameras(first)
    second.cameras.restore(load_cameras(second))
    first.verdicts([verdict(n) for n in range(1, 50)])
    save_cameras(first)
    second.offsets |= second.store.claim({partition[0]}, {partition: (0, 50)})
    second.verdicts([verdict(50)])
    save_cameras(second)
    (camera,) = load_cameras(second)
    assert (camera.frames, camera.last and camera.last.seq) == (51, 50)


def test_a_restart_reads_neither_frames_nor_boots_of_saved_cameras(rig: Rig) -> None:
    for boot in range(1, 5):
        rig.verdicts([verdict(n, boot=boot) for n in range(20)])
    save_cameras(rig)
    with rig.engine.begin() as connection:
        connection.execute(delete(boots))
        connection.execute(delete(frames).where(frames.c.boot < 4))
    (camera,) = load_cameras(rig)
    assert (camera.frames, camera.last and camera.last.boot) == (80, 4)


def test_the_plan_of_probes_gets_a_camera_when_it_begins_and_when_it_stops(rig: Rig, clock: MsClock) -> None:
    meta = Meta(boot_id=BOOT, frames_per_second=2, probe_share=0.05, dropped_per_block=16, profile=RAW)
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), signed(meta), "Meta")])
    assert rig.cameras.pop_probe_changes(clock()) == [CAMERA]
    rig.verdicts([verdict(0)])
    (seen,) = rig.cameras.pop_probe_changes(clock())
    assert isinstance(seen, ProbeCandidate)
    assert (seen.camera, seen.is_new, seen.meta.probe_share) == (CAMERA, True, 0.05)
    clock.now_ms += 5_000
    rig.verdicts([verdict(1)])
    assert rig.cameras.pop_probe_changes(clock()) == []
    clock.now_ms += 9_000
    assert rig.cameras.pop_probe_changes(clock()) == []
    clock.now_ms += 2_000
    assert rig.cameras.pop_probe_changes(clock()) == [CAMERA]


def test_the_series_of_a_camera_are_removed_after_a_long_pause(rig: Rig, clock: MsClock) -> None:
    rig.verdicts([verdict(0)])
    paused = signed(Status(state=PAUSED, boot_id=BOOT, turn=Turn(connection=1, message=1, at_ms=1)))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), paused, "Status")])
    scrape = Scrape(rig, clock)
    assert scrape("pointillist_camera_age_seconds") == {CAMERA}
    clock.now_ms += 2 * HOUR_MS
    assert scrape("pointillist_camera_age_seconds") == set()


@pytest.mark.parametrize("fps", [2, 1 / 1440, LEAST_FRAMES_PER_SECOND])
def test_a_dead_camera_has_its_series_until_it_is_removed_or_its_key_is_revoked(
    rig: Rig, clock: MsClock, fps: float
) -> None:
    meta = Meta(boot_id=BOOT, frames_per_second=fps, turn=Turn(connection=1, message=1, at_ms=1))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), signed(meta), "Meta")])
    rig.verdicts([verdict(0)])
    scrape = Scrape(rig, clock)
    assert scrape("pointillist_camera_impaired") == set()
    for hour in range(1, 31):
        clock.now_ms += HOUR_MS + 1_000
        is_silent = hour >= 2.5 or fps > LEAST_FRAMES_PER_SECOND
        assert scrape("pointillist_camera_impaired") == ({CAMERA} if is_silent else set())
        assert scrape("pointillist_camera_age_seconds") == {CAMERA}
    rig.cameras.remove({CAMERA: 2**50})
    assert scrape("pointillist_camera_impaired") == scrape("pointillist_camera_age_seconds") == set()
    rig.cameras.remove({CAMERA: 1})
    assert scrape("pointillist_camera_impaired") == {CAMERA}
    rig.cameras.revoke({CAMERA: 1})
    assert scrape("pointillist_camera_impaired") == scrape("pointillist_camera_age_seconds") == set()


def test_faulty_and_suspect_cameras_have_series_when_there_are_too_many_for_all(rig: Rig, clock: MsClock) -> None:
    names = [f"site/c{number}" for number in range(6)]
    dead, flagged = names[:2]
    for name in names:
        rig.verdicts([verdict(0, flagged=name == flagged)], name)
    scrape = Scrape(rig, clock, most=3)
    scrape("pointillist_camera_age_seconds")
    for seq in range(1, 9):
        clock.now_ms += 2_000
        for name in names[1:]:
            rig.verdicts([verdict(seq)], name)
        ages = scrape("pointillist_camera_age_seconds")
        assert flagged in ages
        assert len(ages) == 3
    assert dead in ages
    assert scrape("pointillist_camera_impaired") == {dead}
    [third] = ages - {dead, flagged}
    for seq in range(9, 12):
        clock.now_ms += 1_000
        for name in (third, *sorted(set(names[1:]) - {third})):
            rig.verdicts([verdict(seq)], name)
        assert scrape("pointillist_camera_age_seconds") == ages


def test_the_clock_skew_of_a_single_frame_is_reported_for_three_scrapes(rig: Rig, clock: MsClock) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    ahead_ms = time.time_ns() // 10**6 + 60_000
    meters.count_transaction(rig.verdicts([verdict(0, captured_ms=ahead_ms + 60_000)]))
    found = []
    for second in range(40):
        if second == 5:
            meters.count_transaction(rig.verdicts([verdict(1, captured_ms=ahead_ms)]))
        meters.show_cameras([], [], clock())
        if second % 5 == 4:
            found.append(round(registry.get_sample_value("pointillist_clock_skew_seconds") or 0, -1))
        clock.now_ms += 1_000
    assert found == [120] * 3 + [60] * 3 + [0] * 2


def test_an_unknown_camera_is_neither_revoked_nor_judged(rig: Rig, clock: MsClock) -> None:
    rig.cameras.judge(clock(), 0)
    rig.cameras.revoke({"lab/unknown": 9, CAMERA: 9})
    assert rig.cameras.judge(clock(), 0) == []  # one camera has announced no key generation, the other is unknown


def test_cameras_beyond_the_bound_are_dropped_by_the_age_of_their_last_frame(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_CAMERAS", 2)
    rig = make_rig(bounds=Bounds(strangers=1))
    for number in range(4):
        rig.verdicts([verdict(0)], f"lab/{number}")
    assert sorted(camera.name for camera in rig.cameras.all()) == ["lab/2", "lab/3"]
    rig.cameras.expire(2**62)
    assert {saved.camera for saved, _ in rig.cameras.judge(2**62, 2**62)} == {"lab/2", "lab/3"}


def test_the_last_record_of_a_camera_is_its_frame_or_its_status() -> None:
    camera = Camera(CAMERA)
    assert camera.recorded_ms == 0
    camera.status = CameraRow(CAMERA, seen_ms=7)
    assert camera.recorded_ms == 7
