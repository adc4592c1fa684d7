"""Clips: the pictures of one camera around a moment, read from a real Kafka, as a film."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from pathlib import Path

import av
import pytest
from aiokafka import AIOKafkaProducer

from consumers.console import role
from consumers.console.background import clip_keeper, tasks
from consumers.console.background.clip_keeper import keep_clips
from consumers.console.data.clips import AFTER_MS, BEFORE_MS, LATE_MS, ClipPicture, film, read_shots
from consumers.console.data.kept_clips import ALERT, ASKED, GIVEN_UP_MS, SIGHTING, KeptClips
from consumers.console.settings import ConsoleBounds, ConsoleSettings
from infra.local.kafka import Kafka
from schemas.clock import unix_ms
from schemas.errors import BrokerError, StateError
from tests.conftest import TopicFactory
from tests.consumers.console_rig import CONSOLE_KEYS, OWNER, ConsoleRig, jpeg_scene, raise_alert
from tests.consumers.recorder_rig import CAMERA, Rig, sign_as_processor, verdict
from tests.waiting import PATIENCE_S

SENDER_TIME = {"message.timestamp.type": "CreateTime"}
"""The configuration of topics whose records have the sender's timestamps."""


def settings(folder: Path, kafka: str, topic: str) -> ConsoleSettings:
    made = ConsoleSettings(
        kafka=kafka,
        database=f"sqlite:///{folder}/none.sqlite",
        quarantine=str(folder / "quarantine"),
        store=f"sqlite:///{folder}/console.sqlite",
        http=("127.0.0.1", 0),
    )
    return made.model_copy(update={"verdicts_topic": topic})


@pytest.mark.brokers
async def test_a_clip_contains_the_pictures_of_a_camera_around_a_moment(
    tmp_path: Path, kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic, at_ms, jpegs = (
        await kafka_topics(3, config=SENDER_TIME),
        time.time_ns() // 10**6 - 60_000,
        [jpeg_scene(seed) for seed in range(3)],
    )
    offsets_ms = (-BEFORE_MS - 5_000, -20_000, -10_000, 0, AFTER_MS + 1)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for seq, offset_ms in enumerate(offsets_ms):
            for camera in (CAMERA, "lab/other"):
                captured_ms = at_ms + offset_ms
                made = verdict(
                    seq, captured_ms=captured_ms, preview=jpegs[seq % 3] if camera == CAMERA else jpeg_scene(9)
                )
                value = sign_as_processor(made, camera)
                await producer.send_and_wait(topic, value, key=camera.encode(), timestamp_ms=captured_ms)
        unsigned = verdict(9, captured_ms=at_ms, preview=jpeg_scene(8)).SerializeToString()
        await producer.send_and_wait(topic, unsigned, key=CAMERA.encode(), timestamp_ms=at_ms)
    shots = await read_shots(settings(tmp_path, kafka.bootstrap, topic), CONSOLE_KEYS, CAMERA, at_ms)
    assert shots == [
        ClipPicture(at_ms - 20_000, jpegs[1]),
        ClipPicture(at_ms - 10_000, jpegs[2]),
        ClipPicture(at_ms, jpegs[0]),
    ]
    assert await read_shots(settings(tmp_path, kafka.bootstrap, topic), CONSOLE_KEYS, CAMERA, at_ms + 10**7) == []
    with av.open(io.BytesIO(film(shots)), "r") as container:
        times = [round(float(frame.time or 0), 1) for frame in container.decode(video=0)]
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 96)
    assert times == [0.0, 10.0, 20.0, 21.0]


@pytest.mark.brokers
async def test_a_clip_of_a_camera_with_a_wrong_clock_is_selected_by_processing_time(
    tmp_path: Path, kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic, at_ms = await kafka_topics(1, config=SENDER_TIME), time.time_ns() // 10**6 - 60_000
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for seq, offset_ms in enumerate((-BEFORE_MS - 5_000, -20_000, 0, AFTER_MS + 1)):
            made = verdict(seq, captured_ms=at_ms + offset_ms - 7_200_000, processed_ms=at_ms + offset_ms)
            made.preview = jpeg_scene(seq)
            value = sign_as_processor(made, CAMERA)
            await producer.send_and_wait(topic, value, key=CAMERA.encode(), timestamp_ms=made.processed_ms)
    shots = await read_shots(settings(tmp_path, kafka.bootstrap, topic), CONSOLE_KEYS, CAMERA, at_ms)
    assert [each.at_ms - at_ms for each in shots] == [-20_000, 0]


async def one_film(_context: object, _camera: str, _at_ms: int) -> bytes:
    """Return the same film for each moment."""
    return b"film"


@pytest.fixture
def kept(console: ConsoleRig) -> KeptClips:
    assert console.context.clips is not None
    return console.context.clips


async def test_the_clip_of_an_alert_is_stored_sealed_and_served_without_kafka(
    console: ConsoleRig, recorder: Rig, kept: KeptClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.show([verdict(0)])
    raise_alert(recorder, ago_s=(AFTER_MS + LATE_MS) // 1000 + 5)

    async def shots(_settings: object, _keys: object, _camera: str, at_ms: int) -> list[ClipPicture]:
        return [ClipPicture(at_ms - 1_000, jpeg_scene(1)), ClipPicture(at_ms, jpeg_scene(2))]

    with monkeypatch.context() as kafka:
        kafka.setattr(clip_keeper, "read_shots", shots)
        await keep_clips(console.context)
    (clip,) = kept.of(CAMERA, 9)
    at_ms = clip.at_ms
    assert (clip.why, clip.bytes > 0) == ("alert", True)
    (file,) = (tmp_path / "quarantine" / "clips").rglob("*.sealed")
    assert b"ftyp" not in file.read_bytes()  # the signature of an MP4 file
    await keep_clips(console.context)  # Kafka is unreachable, but no clip is due or made again
    browser = console.browser()
    assert f"clip.mp4?at_ms={at_ms}" in browser.get(f"/camera/{CAMERA}").text
    found = browser.get(f"/camera/{CAMERA}/clip.mp4?at_ms={at_ms + AFTER_MS}")
    with av.open(io.BytesIO(found.content), "r") as container:
        assert len(list(container.decode(video=0))) == 3
    assert browser.get(f"/camera/{CAMERA}/clip.mp4?at_ms={at_ms + AFTER_MS + 1}").status_code == 503

    async def film_from_kafka(_context: object, _camera: str, _at_ms: int) -> bytes:
        return b"from Kafka"

    monkeypatch.setattr("consumers.console.pages.camera.film_around", film_from_kafka)
    assert browser.get(f"/camera/{CAMERA}/clip.mp4?at_ms={at_ms + 1}").content == b"from Kafka"
    assert browser.get(f"/camera/{CAMERA}/clip.mp4?at_ms={at_ms}").content == found.content


async def test_a_clip_is_retried_for_a_day_while_kafka_is_unreachable(
    console: ConsoleRig, kept: KeptClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.request([(CAMERA, unix_ms() - GIVEN_UP_MS + each) for each in (-60_000, 60_000)], ASKED, "anna")
    with pytest.raises(BrokerError):
        await keep_clips(console.context)
    assert kept.due() == [], "the clip waits for some seconds"
    monkeypatch.setattr(kept, "_clock_s", lambda: 1e9)
    assert [each.at_ms > unix_ms() - GIVEN_UP_MS for each in kept.due()] == [True]


def test_clips_are_bounded_by_bytes_and_age_and_an_alert_is_not_filmed_twice(
    tmp_path: Path, console: ConsoleRig
) -> None:
    box, store = CONSOLE_KEYS.previews, console.context.store.engine
    url, begin_ms = str(tmp_path / "elsewhere"), unix_ms() - 3_600_000
    kept = KeptClips(store, url, box, ConsoleBounds(clip_bytes=2_500))
    moments = [(CAMERA, begin_ms + number * 60_000) for number in range(4)]
    kept.request(moments, ALERT)
    kept.request([(CAMERA, begin_ms + AFTER_MS)], ALERT)  # inside the first film
    for wanted in kept.due():
        kept.keep(wanted, bytes(1_000))
        kept.purge()
    assert [kept.film(*moment) for moment in moments] == [b"", b"", bytes(1_000), bytes(1_000)]
    kept.request(moments, ALERT)
    assert kept.due() == []
    KeptClips(store, url, box, ConsoleBounds(clip_age_s=3_600 - 150)).purge()
    assert [len(kept.film(*moment)) for moment in moments] == [0, 0, 0, 1_000]


def test_a_clip_that_cannot_be_deleted_stops_no_other_purge(tmp_path: Path, console: ConsoleRig) -> None:
    box, store, begin_ms = CONSOLE_KEYS.previews, console.context.store.engine, unix_ms() - 3_600_000
    moments = [(CAMERA, begin_ms + number * 60_000) for number in range(4)]
    kept = KeptClips(store, str(tmp_path / "elsewhere"), box, ConsoleBounds())
    kept.request(moments, ALERT)
    for wanted in kept.due():
        kept.keep(wanted, bytes(1_000))
    locked = next((tmp_path / "elsewhere").rglob(f"{begin_ms:014d}*"))
    locked.unlink()
    locked.mkdir()
    bounded = KeptClips(store, str(tmp_path / "elsewhere"), box, ConsoleBounds(clip_bytes=2_500))
    for _ in range(2):
        with pytest.raises(StateError, match=r"^kept_files: expected a store that answers, got "):
            bounded.purge()
        assert [len(kept.film(*moment)) for moment in moments[1:]] == [0, 1_000, 1_000]
    locked.rmdir()
    bounded.purge()
    assert [clip.bytes > 0 for clip in kept.of(CAMERA, 9)] == [True, True]


async def test_a_stored_clip_stays_if_the_purge_after_it_fails(
    console: ConsoleRig, kept: KeptClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_keeper, "film_around", one_film)
    old_ms = unix_ms() - GIVEN_UP_MS - 60_000
    kept.request([(CAMERA, old_ms)], ALERT)

    def fail() -> None:
        raise StateError("kept_files: expected a store that answers, got none")

    with monkeypatch.context() as patch:
        patch.setattr(kept, "purge", fail)
        with pytest.raises(StateError):
            await keep_clips(console.context)
    assert kept.film(CAMERA, old_ms) == b"film"


async def test_a_clip_that_cannot_be_stored_is_postponed_and_others_are_kept(
    console: ConsoleRig, kept: KeptClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_keeper, "film_around", one_film)
    clips = tmp_path / "quarantine" / "clips"
    for camera in ("lab/full", "lab/given-up"):
        (clips / camera).parent.mkdir(parents=True, exist_ok=True)
        (clips / camera).write_text("a file in the place of the folder")
    recent_ms, old_ms = unix_ms() - 120_000, unix_ms() - GIVEN_UP_MS - 60_000
    kept.request([("lab/given-up", old_ms), ("lab/full", recent_ms), (CAMERA, recent_ms + 1)], ALERT)
    with pytest.raises(StateError, match=r"^kept_files: expected a store that answers, got "):
        await keep_clips(console.context)
    assert [each.camera for each in kept.due()] == [CAMERA]
    await keep_clips(console.context)
    assert kept.film(CAMERA, recent_ms + 1) == b"film"
    monkeypatch.setattr(kept, "_clock_s", lambda: 1e9)
    assert [each.camera for each in kept.due()] == ["lab/full"]


async def test_clips_are_purged_also_while_none_can_be_made(
    console: ConsoleRig, kept: KeptClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.request([(CAMERA, unix_ms() - 40 * 86_400_000)], ASKED)
    (wanted,) = kept.due()
    monkeypatch.setattr(kept, "_bounds", ConsoleBounds(clip_age_s=50 * 86_400))
    kept.keep(wanted, b"film")
    monkeypatch.setattr(kept, "_bounds", ConsoleBounds())
    kept.purge()
    assert kept.film(*wanted[1:]) == b"film", "nothing expires before the clock has settled"
    monkeypatch.setattr("schemas.runtime.settled_clock.SETTLED_S", 0.0)
    running = asyncio.create_task(tasks.purge(console.context))
    try:
        async with asyncio.timeout(60):
            while kept.film(*wanted[1:]):
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_clips_of_the_largest_camera_are_deleted_first_and_requested_clips_last(
    tmp_path: Path, console: ConsoleRig
) -> None:
    store, begin_ms = console.context.store.engine, unix_ms() - 3_600_000
    kept = KeptClips(store, str(tmp_path / "elsewhere"), CONSOLE_KEYS.previews, ConsoleBounds())
    requested, rare = ("lab/rare", begin_ms), ("lab/rare", begin_ms + 60_000)
    many = [(CAMERA, begin_ms + number * 60_000) for number in range(3, 7)]
    seen = ("lab/seen", begin_ms)
    kept.request([rare, *many], ALERT)
    kept.request([requested], ASKED, "anna")
    kept.request([seen], SIGHTING)
    for wanted in kept.due():
        kept.keep(wanted, bytes(1_000))

    def left_after_purge(most_bytes: int) -> list[bool]:
        bounds = ConsoleBounds(clip_bytes=most_bytes)
        KeptClips(store, str(tmp_path / "elsewhere"), CONSOLE_KEYS.previews, bounds).purge()
        return [bool(kept.film(*moment)) for moment in (rare, requested, *many, seen)]

    assert left_after_purge(6_500) == [True, True, True, True, True, True, False]
    assert left_after_purge(4_500) == [True, True, False, False, True, True, False]
    assert left_after_purge(1_500) == [False, True, False, False, False, False, False]


def test_the_clip_of_an_alert_is_not_merged_into_the_clip_of_a_sighting(tmp_path: Path, console: ConsoleRig) -> None:
    store, at_ms = console.context.store.engine, unix_ms() - 3_600_000
    kept = KeptClips(store, str(tmp_path / "elsewhere"), CONSOLE_KEYS.previews, ConsoleBounds(clip_bytes=1_500))
    raised = (CAMERA, at_ms + AFTER_MS)
    kept.request([(CAMERA, at_ms)], SIGHTING)
    kept.request([raised], ALERT)
    kept.request([(CAMERA, at_ms + AFTER_MS + 1)], SIGHTING)  # inside the film of the alert
    for wanted in kept.due():
        kept.keep(wanted, bytes(1_000))
        kept.purge()
    assert [(each.why, each.bytes > 0) for each in kept.of(CAMERA, 9)] == [("alert", True)]
    assert kept.film(*raised)


def test_a_requested_clip_is_not_merged_into_an_empty_clip_of_an_alert(kept: KeptClips) -> None:
    at_ms = unix_ms() - 60_000
    kept.request([(CAMERA, at_ms)], ALERT)
    (wanted,) = kept.due()
    kept.keep(wanted, b"")
    kept.request([(CAMERA, at_ms)], ALERT)
    assert kept.due() == []
    kept.request([(CAMERA, at_ms), (CAMERA, at_ms + 1_000)], ASKED, "anna")
    assert [each.at_ms for each in kept.due()] == [at_ms]
    kept.request([(CAMERA, at_ms + 1_000)], ASKED, "anna")
    assert [(each.why, each.who) for each in kept.of(CAMERA, 9)] == [("asked", "anna")]


def test_the_page_does_not_wait_for_the_store_of_clips(console: ConsoleRig, kept: KeptClips) -> None:
    console.show([verdict(0)])
    answered, slow = threading.Event(), threading.Event()
    stuck = console.context.run_on_kept_files._pool.submit(slow.wait, 2 * PATIENCE_S)

    def visit() -> None:
        assert console.browser().get(f"/camera/{CAMERA}").status_code == 200
        answered.set()

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    try:
        assert answered.wait(PATIENCE_S)
        assert not stuck.done()
    finally:
        slow.set()
        visitor.join()


def test_kept_files_can_have_their_own_store(tmp_path: Path) -> None:
    own_store = settings(tmp_path, "127.0.0.1:1", "none").model_copy(update={"kept_files": str(tmp_path / "kept")})
    context = role.open_context(own_store, CONSOLE_KEYS)
    try:
        assert context.clips is not None
        assert context.labelled_frames is not None
        context.clips.request([(CAMERA, 1)], ASKED)
        (wanted,) = context.clips.due()
        context.clips.keep(wanted, b"film")
        context.labelled_frames.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9)
        assert not (tmp_path / "quarantine").exists()
    finally:
        context.close()
        context.store.close()


def test_an_operator_requests_a_clip_of_the_present(console: ConsoleRig, kept: KeptClips) -> None:
    console.show([verdict(0)])
    browser = console.browser()
    sent = browser.post(f"/camera/{CAMERA}/clip", data={"csrf": console.csrf()})
    assert sent.headers["location"] == f"/camera/{CAMERA}#clips"
    assert [(each.why, each.who, each.bytes) for each in kept.of(CAMERA, 9)] == [("asked", OWNER, 0)]
    assert kept.due() == []  # the last picture of the clip is in the future
    assert f"Kept by {OWNER}, ready in some seconds" in browser.get(f"/camera/{CAMERA}").text


async def test_an_unreachable_kafka_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=f"expected the pictures of {CAMERA}"):
        await read_shots(settings(tmp_path, "127.0.0.1:1", "none"), CONSOLE_KEYS, CAMERA, 0)


def test_no_pictures_are_no_film() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        film([])
