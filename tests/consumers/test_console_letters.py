"""Dead letters on the console: decoded and replayed, each recorded at most once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from consumers.console import replay as replay_module
from consumers.console.access.sight import ALL
from consumers.console.api.routes import ROOT
from consumers.console.pages.dead_letters import SHOWN, dumped, explained
from consumers.console.replay import Letter, letters, replay
from infra.local.kafka import Kafka
from producers.bridge.records import RecordFactory
from schemas.errors import BrokerError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.messages.frame import Encoding, encode_frame
from schemas.pointillist_pb2 import DeadLetter, Frame
from schemas.topics import Channel, mqtt_topic
from schemas.transport.kafka.sender import PlainRecord, Sender
from tests.conftest import TopicFactory
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import BOOT, CAMERA, SECRET, Rig, dead_letter, verdict


def letter_of(seq: int, payload: bytes, *, length: int | None = None) -> DeadLetter:
    letter = dead_letter(seq, verified=True)
    letter.payload, letter.payload_bytes = payload, len(payload) if length is None else length
    return letter


def frame(seq: int, pixels: int = 40) -> bytes:
    return Frame(boot_id=BOOT, seq=seq, width=8, channels=3, pixels=bytes(pixels), tag=7).SerializeToString()


def test_dead_letters_are_counted_by_reason_and_described_one_by_one(console: ConsoleRig, recorder: Rig) -> None:
    recorder.letter(letter_of(3, frame(3)))
    recorder.letter(dead_letter(9, verified=False))
    browser = console.browser()
    listed = browser.get("/dead-letters").text
    assert "bad_pixels" in listed
    shown = browser.get("/dead-letters?reason=bad_pixels").text
    assert "Replay" in shown
    topic = recorder.settings.dead_letters_topic
    page = browser.get(f"/dead-letters/{topic}/0/0").text
    assert f"{BOOT:016x}" in page
    assert "expected 8 pixels" in page
    assert browser.get(f"/dead-letters/{topic}/0/99").status_code == 404


def test_the_page_names_the_reason_of_most_letters_whatever_their_identity(console: ConsoleRig, recorder: Rig) -> None:
    browser = console.browser()
    for seq, verified in enumerate((True, True, False, False)):
        recorder.letter(dead_letter(seq, verified=verified, reason="bad_pixels"))
    assert "<p>4 payloads were rejected. " in browser.get("/dead-letters").text
    for seq in range(4, 7):
        recorder.letter(dead_letter(seq, verified=True, reason="too_large"))
    assert "<p>7 payloads were rejected, most often for bad_pixels. " in browser.get("/dead-letters").text


def test_unverified_letters_push_no_verified_one_off_the_page(console: ConsoleRig, recorder: Rig) -> None:
    recorder.letter(letter_of(7, frame(7)))
    for seq in range(SHOWN + 1):
        recorder.letter(dead_letter(seq, verified=False))
    browser, topic = console.browser(), recorder.settings.dead_letters_topic
    first, stranger = f'href="/dead-letters/{topic}/0/0"', f'href="/dead-letters/{topic}/0/{SHOWN}"'
    both = browser.get("/dead-letters?reason=bad_pixels").text
    assert both.count(f'href="/dead-letters/{topic}/') == SHOWN
    assert both.index(first) < both.index(stranger)
    verified = browser.get("/dead-letters?reason=bad_pixels&identity=verified").text
    assert (first in verified, stranger in verified) == (True, False)
    others = browser.get("/dead-letters?reason=bad_pixels&identity=not+verified").text
    assert (first in others, stranger in others) == (False, True)


def test_the_beginning_of_a_frame_is_decoded_and_other_bytes_are_not() -> None:
    whole = frame(5, pixels=9_000)
    assert explained(whole)["seq"] == 5
    assert explained(whole[:4_096])["seq"] == 5
    assert explained(b"\xff\x00\x01 other bytes") == {}
    assert explained(b"") == {}
    assert dumped(b"abc\x00") == f"0000  {'61 62 63 00':<47}  abc."


def test_recorded_frames_and_unverified_letters_are_not_replayed(console: ConsoleRig, recorder: Rig) -> None:
    for seq in (1, 2, 2):
        recorder.letter(letter_of(seq, frame(seq)))
    recorder.letter(dead_letter(3, verified=False))
    recorder.verdicts([verdict(1)])
    found, recorded = console.context.recorded.read(letters, "bad_pixels", ALL)
    assert ([each.seq for each in found], recorded) == ([2], 1)


def test_verdicts_that_the_recorder_rejected_are_not_replayed_as_frames(console: ConsoleRig, recorder: Rig) -> None:
    made = dead_letter(1, verified=True, stage="recorder", reason="too_many_boots")
    recorder.letter(made)
    assert console.context.recorded.read(letters, "too_many_boots", ALL) == ([], 0)
    assert "Replay" not in console.browser().get("/dead-letters?reason=too_many_boots").text
    recorder.letter(dead_letter(2, verified=True, reason="too_many_boots"))
    assert [each.seq for each in console.context.recorded.read(letters, "too_many_boots", ALL)[0]] == [2]
    assert "Replay" in console.browser().get("/dead-letters?reason=too_many_boots").text


@pytest.mark.brokers
async def test_rejected_frames_are_replayed_in_order_including_those_too_large_for_a_letter(
    console: ConsoleRig, recorder: Rig, kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(2)
    small, large = frame(2), frame(1, pixels=20_000)  # a key frame is too large for a letter
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for payload in (small, large):
        await producer.send_and_wait(topic, payload, key=CAMERA.encode())
    await producer.stop()
    recorder.letter(letter_of(2, small))
    recorder.letter(letter_of(1, large[:4_096], length=len(large)))
    recorder.letter(letter_of(3, frame(3, 20_000)[:4_096], length=20_040))
    found, recorded = console.context.recorded.read(letters, "bad_pixels", ALL)
    outcome = await replay(kafka.bootstrap, topic, found, recorded)
    assert str(outcome) == "2 sent again, 1 no longer in Kafka"
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        values: list[bytes] = []
        while len(values) < 4:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [record.value for record in records]
                assert {record.key for record in records} == {CAMERA.encode()}
    assert values == [small, large, large, small]


def test_only_an_admin_replays_letters(console: ConsoleRig, recorder: Rig) -> None:
    assert console.browser().post("/dead-letters/replay", data={"reason": "bad_pixels"}).status_code == 403
    answer = console.browser().post("/dead-letters/replay", data={"reason": "none", "csrf": console.csrf()})
    assert "no+frame+to+send" in answer.headers["location"]


def test_a_search_for_letters_may_take_longer_than_a_page_waits(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.console.query_threads.PATIENCE_S", 0.0)
    answer = console.browser().post(f"{ROOT}/dead-letters/replay", json={"reason": "bad_pixels"})
    assert answer.json() == {"outcome": "no frame to send again; 0 recorded meanwhile"}


def test_a_failed_replay_is_reported_and_logged(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "_PATIENCE_S", 0.1)
    recorder.letter(letter_of(2, frame(2)))
    answer = console.browser().post(f"{ROOT}/dead-letters/replay", json={"reason": "bad_pixels"})
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("Kafka: expected it to accept the frames within 0.1 s, got ")
    noted = console.context.store.newest_operations()[0]
    assert (noted.what, noted.outcome) == ("replay", answer.json()["error"])


def stored_letter(seq: int, payload: bytes, *, whole: bool) -> Letter:
    """Return a letter as the database stores it."""
    length = len(payload) if whole else len(payload) + 1
    return Letter(**dict.fromkeys(Letter.__dataclass_fields__, 0) | {  # type: ignore[arg-type]  # by name
        "camera": CAMERA, "boot": BOOT, "seq": seq, "payload": payload, "payload_bytes": length,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("whole", "message"),
    [(True, r"expected it to accept the frames within 0\.2 s, got "), (False, r"expected frames, got ")],
)
async def test_a_replay_without_kafka_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, whole: bool, message: str
) -> None:
    monkeypatch.setattr(replay_module, "_PATIENCE_S", 0.2)
    with pytest.raises(BrokerError, match=rf"^Kafka: {message}\S"):
        await replay("127.0.0.1:1", "frames", [stored_letter(1, frame(1), whole=whole)], 0)


async def test_a_replayed_frame_is_the_same_event_as_the_record_of_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    camera_id, keys = CameraId(CAMERA), KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE))
    picture = np.zeros((32, 32, 3), np.uint8)
    payload = encode_frame(KeyRing(SECRET).current(camera_id), BOOT, 5, 1000, picture, Encoding(16))
    first = RecordFactory("b1", keys).accept(mqtt_topic(camera_id, Channel.FRAME).encode(), payload)
    sent: list[PlainRecord] = []

    class RecordingSender(Sender):
        async def send(self, _topic: str, records: Sequence[PlainRecord], **_: object) -> None:  # type: ignore[override]
            sent.extend(records)

    monkeypatch.setattr(replay_module, "Sender", RecordingSender)
    await replay("127.0.0.1:1", "frames", [stored_letter(5, payload, whole=True)], 0)
    [replayed] = sent
    assert dict(replayed.headers) == dict(first.headers)


class SlowReader:
    """A stand-in for a reader that returns one batch every 20 s of the event loop's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batches: list[list[bytes]]) -> None:
        loop = asyncio.get_running_loop()
        clock = loop.time
        self.late_s = 0.0
        self.batches = batches
        monkeypatch.setattr(loop, "time", lambda: clock() + self.late_s)

    async def __aenter__(self) -> SlowReader:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def assignment(self) -> list[str]:
        return ["frames-0"]

    async def ends(self, _partitions: object) -> dict[str, int]:
        return {}

    async def fetch_until(self, _ends: object) -> AsyncIterator[dict[str, list[SimpleNamespace]]]:
        for values in self.batches:
            self.late_s += 20
            for _ in range(3):  # let the event loop run, so that an expired deadline takes effect
                await asyncio.sleep(0)
            records = [SimpleNamespace(key=CAMERA.encode(), value=value) for value in values]
            yield {"frames-0": records} if records else {}


@pytest.mark.parametrize("arrives", [True, False])
async def test_the_search_for_large_frames_ends_only_when_kafka_returns_no_more_records(
    monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    wanted = frame(1, 20_000)
    others = [[frame(seq)] if arrives else [] for seq in range(2, 6)]
    reader = SlowReader(monkeypatch, [*others, [wanted]])
    monkeypatch.setattr(replay_module, "Reader", lambda *_: reader)
    sent: list[bytes] = []

    class RecordingSender(Sender):
        async def send(self, _topic: str, records: Sequence[PlainRecord], **_: object) -> None:  # type: ignore[override]
            sent.extend(record.value or b"" for record in records)

    monkeypatch.setattr(replay_module, "Sender", RecordingSender)
    large = stored_letter(1, wanted[:4_096], whole=False)
    if arrives:
        assert str(await replay("127.0.0.1:1", "frames", [large], 0)) == "1 sent again"
        assert sent == [wanted]
    else:
        with pytest.raises(BrokerError, match=r"^Kafka: expected frames, got TimeoutError\. "):
            await replay("127.0.0.1:1", "frames", [large], 0)


def read_letters(recorder: Rig) -> tuple[list[Letter], int]:
    """Return what a replay of `bad_pixels` at all sites reads. The transaction locks out a second connection."""
    with recorder.engine.begin() as connection:
        return letters(connection, "bad_pixels", ALL)


def test_the_letters_of_a_replay_are_read_through_one_connection(recorder: Rig) -> None:
    recorder.letter(letter_of(1, frame(1)))
    recorder.letter(letter_of(2, frame(2)))
    recorder.verdicts([verdict(1)])
    found, recorded = read_letters(recorder)
    assert ([each.seq for each in found], recorded) == ([2], 1)


def test_the_number_of_letters_in_a_replay_is_bounded(recorder: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "MOST", 2)
    for seq in range(4):
        recorder.letter(letter_of(seq, frame(seq)))
    found, recorded = read_letters(recorder)
    assert ([each.seq for each in found], recorded) == ([2, 3], 0)


def test_the_bytes_of_a_replay_are_bounded_but_include_at_least_one_frame(
    recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "MOST_BYTES", 70_000)
    for seq, length in enumerate((30_000, 90_000, 30_000, 30_000)):
        recorder.letter(letter_of(seq, frame(seq, 20_000)[:4_096], length=length))
    replayed = []
    for _ in range(3):
        found, recorded = read_letters(recorder)
        replayed.append([each.seq for each in found])
        recorder.verdicts([verdict(each.seq) for each in found])
    assert (replayed, recorded) == ([[2, 3], [1], [0]], 3)


def test_frames_that_are_rejected_again_delay_no_others(recorder: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "MOST", 2)
    for seq in range(5):
        recorder.letter(letter_of(seq, frame(seq)))
    replayed = []
    for reason in ("bad_pixels", "bad_tag", "bad_pixels"):
        found, _ = read_letters(recorder)
        replayed.append([each.seq for each in found])
        for each in found:
            made = letter_of(each.seq, each.payload)
            made.reason = reason
            recorder.letter(made)
    assert replayed == [[3, 4], [1, 2], [0, 4]]
