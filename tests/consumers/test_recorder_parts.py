"""Parts of a recorder without Kafka: records that the database rejects, quarantine, thumbnails, metrics."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import fsspec  # type: ignore[import-untyped]  # it ships no types
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from benchmarks.harness.recorder_store import MadeRecord
from consumers.cameras.state import State
from consumers.console.data import store as console_store
from consumers.console.data.store import Store as ConsoleStore
from consumers.database.damage import set_aside
from consumers.database.history import MINUTE_MS
from consumers.database.mutes import new_mute, read_mutes, save_mute
from consumers.database.tables import dead_letters, history, quarantine, sighting_rules
from consumers.database.thread import QuarantineError
from consumers.database.turns import purging_alone
from consumers.evidence import thumbnails
from consumers.evidence.quarantine import Quarantine, name_of
from consumers.evidence.thumbnails import THUMBNAIL_SIDE
from consumers.evidence.watch import _thumbnail
from consumers.recorder.metrics import Meters, StoragePlaces
from consumers.recorder.purge import purge
from consumers.recorder.recorder import Recorder
from consumers.records.batch import Batch, FrameKey, frame_row
from consumers.settings import Bounds, RecorderSettings
from consumers.sightings.rules_table import new_rule, read_rules, save_rule
from schemas.clock import unix_ms
from schemas.evidence.rule import EvidenceRule
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, Status, Turn
from schemas.pointillist_pb2 import State as Reported
from schemas.ranges import RangeSet
from schemas.runtime.health import Health
from schemas.transport.kafka.sender import partition_of
from tests.consumers.recorder_rig import (
    BOOT,
    CAMERA,
    RECORDER_KEYS,
    MakeRig,
    Rig,
    picture,
    sign_as_processor,
    signed,
    verdict,
)
from tests.waiting import until

EVIDENCE_ALERT = cast(Any, type("Alarm", (), {"run": [type("Probe", (), {"seq": 7, "flagged": True})()]})())


@pytest.fixture
async def recorder(rig: Rig) -> AsyncIterator[Recorder]:
    """Yield a recorder on the rig's database that does not run."""
    recorder = Recorder(rig.settings, RECORDER_KEYS, CollectorRegistry(), Health(), asyncio.Event())
    yield recorder
    recorder.close()


@pytest.mark.parametrize("poisoned", [(2,), (0, 3)])
async def test_a_record_that_the_database_rejects_becomes_a_dead_letter_and_all_others_are_recorded(
    rig: Rig, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, poisoned: tuple[int, ...]
) -> None:
    write = recorder._store.write

    def reject_poisoned(batch: Batch, before: Any) -> Any:
        if {seq for _, _, seq in batch.verdicts} & set(poisoned):
            raise IntegrityError("insert", {}, ValueError("out of range"))
        return write(batch, before)

    monkeypatch.setattr(recorder._store, "write", reject_poisoned)
    await recorder._write(rig.verdict_records(verdict(seq) for seq in range(5)))
    with rig.records() as records:
        assert sorted(records.recorded(CAMERA, BOOT)) == [seq for seq in range(5) if seq not in poisoned]
    letters = select(dead_letters.c.verified, dead_letters.c.boot, dead_letters.c.seq, dead_letters.c.error)
    with rig.engine.begin() as connection:
        found = connection.execute(letters.order_by(dead_letters.c.seq)).all()
    # The letters name the frames, which would count as lost otherwise, and no statement of the database.
    assert [(row.verified, row.boot, row.seq) for row in found] == [(True, BOOT, seq) for seq in poisoned]
    assert {row.error for row in found} == {"database: expected a valid record, got out of range"}
    assert recorder._offsets[rig.settings.verdicts_topic, 0] == 5


async def test_frames_beyond_the_bounds_are_purged_as_fast_as_they_are_recorded(make_rig: MakeRig) -> None:
    """Check that writes purge too, since a round of housekeeping deletes only one row here."""
    rig = make_rig(bounds=Bounds(database_rows=10, purge_rows=1))
    made = Recorder(rig.settings, RECORDER_KEYS, CollectorRegistry(), Health(), asyncio.Event())
    housekeeping = asyncio.create_task(made._housekeep())
    try:
        for start in range(0, 1000, 100):
            await made._write(rig.verdict_records(verdict(seq) for seq in range(start, start + 100)))
            await until(lambda: made._has_excess)
    finally:
        housekeeping.cancel()
        await asyncio.gather(housekeeping, return_exceptions=True)
        made.close()
    assert rig.count("frames") <= 200
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == RangeSet([(0, 999)])


async def test_a_recorder_purges_by_age_once_its_clock_has_settled(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(bounds=Bounds(database_age_s=1e-9))
    monkeypatch.setattr("consumers.recorder.recorder._PURGE_S", 0.0)
    monkeypatch.setattr("consumers.recorder.recorder._TICK_S", 0.01)
    made = Recorder(rig.settings, RECORDER_KEYS, CollectorRegistry(), Health(), asyncio.Event())
    rounds: list[None] = []
    monkeypatch.setattr(made._states, "purge", lambda: rounds.append(None))
    await made._write(rig.verdict_records(verdict(seq) for seq in range(3)))
    housekeeping = asyncio.create_task(made._housekeep())
    try:
        await until(lambda: len(rounds) > 2)
        assert rig.count("frames") == 3
        monkeypatch.setattr("schemas.runtime.settled_clock.SETTLED_S", 0.0)
        await until(lambda: rig.count("frames") == 0)
    finally:
        housekeeping.cancel()
        await asyncio.gather(housekeeping, return_exceptions=True)
        made.close()


@pytest.mark.parametrize(("recorded_ago_s", "is_purged"), [(0, True), (366 * 86_400, False)])
async def test_a_recorder_purges_by_age_at_its_start_if_the_last_hour_agrees_with_its_clock(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, recorded_ago_s: int, is_purged: bool
) -> None:
    rig, stop = make_rig(bounds=Bounds(database_age_s=1e-9)), asyncio.Event()
    monkeypatch.setattr("consumers.recorder.recorder._PURGE_S", 0.0)
    monkeypatch.setattr("consumers.recorder.recorder._TICK_S", 0.01)
    written = rig.verdicts(verdict(seq) for seq in range(3)).rows
    before_ms = unix_ms() - 1000 * recorded_ago_s
    with rig.engine.begin() as connection:
        connection.execute(delete(history))
        for minute in range(1, 55):
            rig.store.history.add(connection, written, before_ms - minute * MINUTE_MS)
    made = Recorder(rig.settings, RECORDER_KEYS, CollectorRegistry(), Health(), stop)
    rounds: list[None] = []
    monkeypatch.setattr(made._states, "purge", lambda: rounds.append(None))
    running = asyncio.create_task(made.run())
    try:
        await until(lambda: len(rounds) > 2)
        assert rig.count("frames") == (0 if is_purged else 3)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        made.close()


async def test_lag_and_silent_cameras_are_reported_while_the_database_is_unreachable(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, stop = CollectorRegistry(), asyncio.Event()
    settings = rig.settings.model_copy(update={"silent_after_s": 0.05, "shutdown_s": 0.1})
    made = Recorder(settings, RECORDER_KEYS, registry, Health(), stop)
    waiting = 5

    async def lag() -> int:
        return waiting

    def fail(*_: object) -> None:
        raise OperationalError("insert", {}, ConnectionError("refused"))

    monkeypatch.setattr(made._log, "lag", lag)
    monkeypatch.setattr(made._states, "save", fail)
    monkeypatch.setattr(made._snapshots, "save", fail)
    monkeypatch.setattr("consumers.recorder.recorder._TICK_S", 0.01)
    await made._write(rig.verdict_records([verdict(0)]))
    running = asyncio.create_task(made.run())
    try:
        for waiting in (5, 900):
            await until(lambda: registry.get_sample_value("pointillist_recorder_lag_records") == waiting)  # noqa: B023
        silent = {"camera_id": CAMERA, "state": "silent"}
        await until(lambda: registry.get_sample_value("pointillist_camera_impaired", silent) == 1)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        made.close()


@pytest.mark.parametrize("cause", ["database", "quarantine"])
async def test_a_recorder_is_not_ready_while_it_cannot_write_although_it_can_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    health = Health()
    made = Recorder(rig.settings, RECORDER_KEYS, CollectorRegistry(), health, asyncio.Event())
    health.set("kafka", True)
    await made._database.run(made._store.bytes_held)
    assert health.report()[0]
    of, name = {"database": (made._store, "_write"), "quarantine": (made._store.quarantine._files, "pipe_file")}[cause]
    write, failing = getattr(of, name), True

    def write_or_fail(*args: Any, **kwargs: Any) -> Any:
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(of, name, write_or_fail)
    try:
        writing = asyncio.create_task(made._write(rig.verdict_records([verdict(0, flagged=True)])))
        await until(lambda: not health.report()[0])
        for _ in range(3):
            await made._database.run(made._store.bytes_held)
            ready, conditions = health.report()
            assert not ready
            assert [name for name, each in conditions.items() if not each["ok"]] == [cause]
            assert "No space left on device" in str(conditions[cause]["detail"])
        failing = False
        await writing
        assert health.report()[0]
        assert rig.count("frames") == 1
    finally:
        made.close()


async def test_a_recorder_is_not_ready_while_a_write_hangs(
    rig: Rig, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.database.thread.LATE_S", 0.05)
    health, answers = recorder._health, threading.Event()
    health.set("kafka", True)
    await recorder._database.run(recorder._store.bytes_held)
    write = recorder._store._write

    def hang_and_write(*args: Any, **kwargs: Any) -> Any:
        answers.wait()
        return write(*args, **kwargs)

    monkeypatch.setattr(recorder._store, "_write", hang_and_write)
    writing = asyncio.create_task(recorder._write(rig.verdict_records([verdict(0)])))
    try:
        await until(lambda: not health.report()[0])
        assert health.report()[1]["database"] == {"ok": False, "detail": "an action takes longer than 0.05 s"}
    finally:
        answers.set()
        await writing
    assert health.report()[0]
    assert rig.count("frames") == 1


async def test_neither_a_wait_for_another_action_nor_a_failed_quarantine_is_a_late_database(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.database.thread.LATE_S", 0.2)
    health, run = recorder._health, recorder._database.run

    def state(condition: str) -> bool:
        return bool(health.report()[1][condition]["ok"])

    await run(recorder._store.bytes_held)
    first, second = threading.Event(), threading.Event()
    actions = [asyncio.create_task(run(each.wait)) for each in (first, second)]
    try:
        await until(lambda: not state("database"), "the late first action")
        first.set()
        await until(lambda: state("database"), "the second action, which has just begun")
        await until(lambda: not state("database"), "the late second action")
    finally:
        first.set()
        second.set()
        await asyncio.gather(*actions)
    hangs, tries = threading.Event(), 0

    def fail_and_hang() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise QuarantineError("no response")
        hangs.wait()

    retried = asyncio.create_task(run(fail_and_hang))
    try:
        await until(lambda: not state("database"), "the late second try")
        assert not state("quarantine")
    finally:
        hangs.set()
        await retried
    assert state("database")
    assert state("quarantine")


async def test_a_recorder_takes_over_the_cameras_of_its_partitions_in_their_saved_state(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = rig.settings.model_copy(update={"group": "recorders"})
    topics = verdicts, events = settings.verdicts_topic, settings.events_topic
    camera_of = {partition_of(name.encode(), (0, 1)): name for name in (f"lab/{number}" for number in range(9))}

    def recorder() -> Recorder:
        made = Recorder(settings, RECORDER_KEYS, CollectorRegistry(), Health(), asyncio.Event())
        monkeypatch.setattr(made._log, "partitions_of", lambda _: {0, 1})
        return made

    async def assign(made: Recorder, *partitions: int) -> None:
        await made._claim(topics, {(topic, each): (0, 99) for topic in topics for each in partitions})

    async def record(made: Recorder, partition: int, topic: str, kind: str, value: bytes) -> None:
        at, key = made._offsets[topic, partition], camera_of[partition].encode()
        await made._write(
            [MadeRecord(topic, partition, at, key, value, [("ce_type", f"pointillist.v1.{kind}".encode())])]
        )

    async def report(made: Recorder, partition: int, state: Reported, number: int) -> None:
        status = Status(state=state, boot_id=BOOT, turn=Turn(connection=1, message=number, at_ms=number))
        await record(made, partition, events, "Status", signed(status, camera_of[partition]))

    async def faulty_cameras(made: Recorder) -> set[str]:
        made._judge_cameras()
        await made._save_cameras()
        return {camera for camera, _ in made._cameras.worst(10)}

    first, second = recorder(), recorder()
    await assign(first, 0, 1)
    await assign(second)
    for partition, camera in camera_of.items():
        await record(first, partition, verdicts, "Verdict", sign_as_processor(verdict(0), camera))
        await report(first, partition, DEGRADED, 1)
    assert (await faulty_cameras(first), await faulty_cameras(second)) == (set(camera_of.values()), set())
    await assign(first, 0)
    await assign(second, 1)
    assert (await faulty_cameras(first), await faulty_cameras(second)) == ({camera_of[0]}, {camera_of[1]})
    await report(second, 1, ONLINE, 2)
    assert await faulty_cameras(second) == set()
    await assign(second)
    await assign(first, 0, 1)
    assert (await faulty_cameras(first), await faulty_cameras(second)) == ({camera_of[0]}, set())
    assert [camera.name for camera in first._cameras.all()] == sorted(camera_of.values())
    assert second._cameras.all() == []
    for made in (first, second):
        made.close()


async def test_an_offline_camera_is_faulty_after_a_restart_until_it_is_removed(
    rig: Rig, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = signed(Status(state=OFFLINE, boot_id=BOOT, turn=Turn(connection=1, message=1, at_ms=1)))
    await recorder._write(rig.verdict_records([verdict(0)]))
    await recorder._write([rig.record(rig.settings.events_topic, CAMERA.encode(), offline, "Status")])
    recorder._judge_cameras()
    await recorder._save_cameras()
    assert recorder._cameras.worst(10) == [(CAMERA, State.OFFLINE)]

    console = ConsoleStore(f"sqlite:///{tmp_path}/console.sqlite")
    console.prepare()
    settings = rig.settings.model_copy(update={"console_store": f"sqlite:///{tmp_path}/console.sqlite"})
    restarted = Recorder(settings, RECORDER_KEYS, CollectorRegistry(), Health(), asyncio.Event())
    restarted._cameras.restore(restarted._restore())
    restarted._judge_cameras()
    await restarted._read_removed()
    assert restarted._cameras.worst(10) == [(CAMERA, State.OFFLINE)]
    console.forget(CAMERA)
    console.close()
    await restarted._read_removed()
    assert restarted._cameras.worst(10) == []
    monkeypatch.setattr(console_store, "open_engine", Mock(side_effect=PermissionError))
    await restarted._read_removed()
    assert restarted._cameras.worst(10) == []
    restarted.close()


def removed(files: Quarantine, engine: Engine, limit_bytes: int, before_ms: int = 0) -> int:
    """Return the number of frames that one step of the purge removes."""
    with engine.begin() as connection:
        names = files.excess(connection, limit_bytes, before_ms, 10)
    gone, _ = files.remove(names, within_s=60)
    with engine.begin() as connection:
        files.forget(connection, gone)
    return len(gone)


def purging_alone_elsewhere(rig: Rig) -> bool:
    """Return whether another recorder of the same database may purge now."""
    with purging_alone(rig.engine) as is_alone:
        return is_alone


def test_a_store_that_fails_slowly_ends_a_step_which_is_not_repeated_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, now_s = rig.store.quarantine, 0.0
    with rig.engine.begin() as connection:
        for seq in range(6):
            stored.enter(connection, (CAMERA, BOOT, seq), 100, seq)

    def hang(_: str) -> None:
        nonlocal now_s
        now_s += 60
        raise OSError("no answer")

    monkeypatch.setattr(stored, "_remove", hang)
    monkeypatch.setattr("consumers.evidence.quarantine.time.monotonic", lambda: now_s)
    assert not purge(rig.store, Bounds(quarantine_bytes=50))
    assert now_s == 60


def test_no_transaction_is_open_while_files_of_the_quarantine_are_removed_and_a_step_ends_in_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = rig.store.quarantine
    with rig.engine.begin() as connection:
        for seq in range(4):
            stored.enter(connection, (CAMERA, BOOT, seq), 100, seq)
    now_s, gone = 0.0, []
    others_may: list[bool] = []

    def slowly(name: str) -> None:
        nonlocal now_s
        now_s += 0.15
        gone.append(name)
        with rig.engine.begin() as other:  # SQLite would wait for a transaction of the purge, and fail
            other.execute(history.delete())
        others_may.append(purging_alone_elsewhere(rig))

    monkeypatch.setattr(stored, "_remove", slowly)
    monkeypatch.setattr("consumers.evidence.quarantine.time.monotonic", lambda: now_s)
    bounds = Bounds(quarantine_bytes=50)
    assert [purge(rig.store, bounds), len(gone)] == [True, 2]
    assert [purge(rig.store, bounds), len(gone)] == [True, 4]
    assert [purge(rig.store, bounds), len(gone)] == [False, 4]
    assert gone == [name_of((CAMERA, BOOT, seq)) for seq in range(4)]
    assert set(others_may) == {rig.engine.dialect.name == "sqlite"}
    with rig.engine.begin() as connection:
        assert stored.bytes_held(connection) == 0


def test_a_missing_picture_of_the_quarantine_is_read_as_empty_and_purged(rig: Rig) -> None:
    files = Quarantine(str(rig.folder / "quarantine"), rig.engine, RECORDER_KEYS.previews)
    key = (CAMERA, BOOT, 7)
    assert files.read(key) == b""
    with rig.engine.begin() as connection:
        connection.execute(quarantine.insert(), {"name": name_of(key), "bytes": 9, "at_ms": 1})
        assert files.bytes_held(connection) == 9
    assert removed(files, rig.engine, 0) == 1
    with rig.engine.begin() as connection:
        assert files.bytes_held(connection) == 0


def without_clips(ls: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Return a listing of folders that raises `error` in the folder `clips`."""

    def listing(files: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if path.rstrip("/").endswith("clips"):
            raise error
        return ls(files, path, *arguments, **options)

    return listing


@pytest.mark.parametrize("url", ["", "memory://adopted"])
def test_a_database_that_replaces_a_damaged_one_lists_the_quarantined_files_and_purges_them(
    rig: Rig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_local = not url
    url = url or str(rig.folder / "quarantine")
    stored = Quarantine(url, rig.engine, RECORDER_KEYS.previews)
    files, root = fsspec.core.url_to_fs(url)
    rows = [frame_row((CAMERA, BOOT, seq), verdict(seq), 1) for seq in range(3)]
    others = [f"{root}/{CAMERA}/notes.txt", f"{root}/clips/{CAMERA}/00000000000001.sealed"]
    with rig.engine.begin() as connection:
        for row in rows:
            stored.enter(connection, row[:3], stored.write(row, b"png"), 1)
        before = connection.execute(select(quarantine.c.name, quarantine.c.bytes).order_by(quarantine.c.name)).all()
        connection.execute(quarantine.delete())
    for other in others:
        files.makedirs(other.rpartition("/")[0], exist_ok=True)
        files.pipe_file(other, b"of another program")
    if is_local:
        for ending in ("png.sealed", "json"):
            os.utime(f"{root}/{name_of((CAMERA, BOOT, 0))}.{ending}", (7, 7))
    rig.store.quarantine = stored
    rig.store.prepare()
    with rig.engine.begin() as connection:  # the files may belong to another database
        assert stored.bytes_held(connection) == 0
    if rig.engine.dialect.name != "sqlite":  # only SQLite sets damaged files aside
        return
    file = Path(rig.engine.url.database or "")
    file.with_name(f"{file.name}.damaged-1").touch()
    for error in (PermissionError("clips"), RuntimeError("no answer")):
        with monkeypatch.context() as broken:
            broken.setattr(type(files), "ls", without_clips(type(files).ls, error))
            rig.store.prepare()
        with rig.engine.begin() as connection:  # an incomplete list would hide the other files for ever
            assert stored.bytes_held(connection) == 0
    rig.store.prepare()
    rig.store.prepare()
    with rig.engine.begin() as connection:
        found = connection.execute(select(quarantine).order_by(quarantine.c.name)).all()
        assert [(row.name, row.bytes) for row in found] == before
    if is_local:
        assert (found[0].at_ms, removed(stored, rig.engine, 2**30, 7001)) == (7000, 1)
    assert removed(stored, rig.engine, 0) == (2 if is_local else 3)
    assert sorted(files.find(root)) == sorted(others)


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_database_that_replaces_a_damaged_one_gets_its_sighting_rules_and_mutes_once(
    tmp_path: Path, is_readable: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'records.sqlite'}"
    rule, mute = (
        new_rule({"cameras": "lab/*", "wanted": "person"}, "anna", 1),
        new_mute(CAMERA, "1d", "paint", "anna", 2),
    )
    rig = Rig(tmp_path, url)
    with rig.engine.begin() as connection:
        save_rule(connection, rule)
        save_mute(connection, mute)
    rig.close()
    aside = set_aside(url, 1000)
    if not is_readable:
        aside.write_bytes(b"no database" * 100)
    with capture_logs() as logs:
        rig = Rig(tmp_path, url)
    assert [line["event"] for line in logs] == [f"decisions_{'' if is_readable else 'not_'}adopted"] * 2
    with rig.engine.begin() as connection:
        assert read_rules(connection) == ((rule,) if is_readable else ())
        assert read_mutes(connection, 3) == ({CAMERA: mute} if is_readable else {})
        connection.execute(delete(sighting_rules))
    rig.store.prepare()
    with rig.engine.begin() as connection:
        assert read_rules(connection) == ()
    rig.close()


def reader_of(picture: bytes) -> Callable[[FrameKey], bytes]:
    """Return the reader of a quarantine with this one picture."""

    def read(key: FrameKey) -> bytes:
        assert key == (CAMERA, BOOT, 7)
        return picture

    return read


def test_a_baseline_longer_than_the_history_of_probes_is_rejected() -> None:
    with pytest.raises(
        ValidationError, match="baseline_probes: expected at most history_probes, 48, got 60: no camera"
    ):
        RecorderSettings(evidence=EvidenceRule(baseline_probes=60))


def damaged() -> bytes:
    """Return a PNG with a wrong length of its pixel data, so that the next chunk is not found."""
    data = bytearray(picture("PNG"))
    data[data.index(b"IDAT") - 1] ^= 8
    return bytes(data)


@pytest.mark.parametrize("content", [b"", b"no picture", picture("PNG")[:40], picture("JPEG"), damaged()])
def test_an_alert_has_no_thumbnail_of_a_file_that_is_no_png(content: bytes) -> None:
    assert _thumbnail((CAMERA, BOOT), EVIDENCE_ALERT, reader_of(content)) == b""


def test_a_thumbnail_is_small_and_not_made_of_a_huge_file(monkeypatch: pytest.MonkeyPatch) -> None:
    large = reader_of(picture("PNG", 4 * THUMBNAIL_SIDE))
    with Image.open(io.BytesIO(_thumbnail((CAMERA, BOOT), EVIDENCE_ALERT, large))) as small:
        assert (small.format, small.size) == ("PNG", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    monkeypatch.setattr(thumbnails, "_LARGEST", 10)
    assert _thumbnail((CAMERA, BOOT), EVIDENCE_ALERT, large) == b""


@pytest.mark.parametrize(
    ("stage", "reason"),
    [("key", "no_key_frame"), ("key", "malformed"), ("decode", "missing_reference"), ("decode", "bad_pixels")],
)
def test_dead_letters_of_the_stages_key_and_decode_count_from_0(stage: str, reason: str) -> None:
    registry = CollectorRegistry()
    Meters(registry, StoragePlaces({}, None))
    assert registry.get_sample_value("pointillist_dead_letters_total", {"stage": stage, "reason": reason}) == 0
