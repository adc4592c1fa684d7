"""Cameras in Home Assistant: valid messages that follow the recorder's database, on a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from prometheus_client import CollectorRegistry
from sqlalchemy import delete, insert, select, update

from consumers.cameras.open_alerts import HOLD_S, newest_alerts
from consumers.cameras.snapshots import Snapshots as Saved
from consumers.console.data.store import Store
from consumers.database.engine import LATE, SETTLED_MS
from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import alerts, camera_snapshots, cameras, frames
from consumers.homeassistant.announcer import Announcer, announcer_id, run_announcer
from consumers.homeassistant.discovery import (
    CameraSnapshot,
    config,
    config_topic,
    object_id,
    state_topic,
    status_topic,
)
from consumers.homeassistant.reading import DatabaseReader
from consumers.homeassistant.settings import AnnouncerSettings
from infra.local.mosquitto import Mosquitto
from infra.monitor.alert_notifier import AlertNotifier
from schemas.messages.camera_status import turn
from schemas.pointillist_pb2 import DEGRADED, Candidate, Meta, Status
from schemas.runtime.health import Health
from tests.clocks import Clock
from tests.consumers.homeassistant_schema import DEVICE, DISCOVERY_TOPIC
from tests.consumers.recorder_rig import BOOT, CAMERA, Rig, signed, verdict
from tests.consumers.test_sightings import cars, save_sighting_rule
from tests.waiting import PATIENCE_S, until, wait_until

GATE = "lab/gate.2"
names = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,62}/[a-z0-9][a-z0-9_.-]{0,62}", fullmatch=True)


@settings(deadline=None, max_examples=25)
@given(names)
def test_a_camera_of_any_name_is_announced_as_home_assistant_documents_it(camera: str) -> None:
    document = config(camera, "0.1.0", "0123abcd", "https://console.example/camera/x")
    jsonschema.Draft202012Validator(DEVICE).validate(document)
    assert re.fullmatch(DISCOVERY_TOPIC, config_topic(camera))
    ids = [entity["unique_id"] for entity in document["components"].values()]
    assert len(set(ids)) == len(ids)
    assert len(json.dumps(document)) < 4096


@settings(deadline=None, max_examples=100)
@given(names, names)
def test_two_cameras_are_two_devices(one: str, other: str) -> None:
    assert (object_id(one) == object_id(other)) == (one == other)


def test_every_template_reads_a_key_of_the_state() -> None:
    state = CameraSnapshot(CAMERA, "online", "stop", backdoor=True).document()
    for entity in config(CAMERA, "1", "0123abcd")["components"].values():
        (key,) = re.findall(r"value_json\.(\w+)", entity["value_template"])
        assert key in state
    components = config(CAMERA, "1", "0123abcd")["components"]
    assert state["state"] in components["state"]["options"]
    assert state["backdoor"] == components["backdoor"].get("payload_on", "ON")
    assert state["sighting"] == components["sighting"].get("payload_off", "OFF")


def test_a_long_list_of_sightings_is_shortened_to_the_limit_of_home_assistant() -> None:
    document = CameraSnapshot(CAMERA, "online", "stop", backdoor=False, seen=("person", "v" * 300)).document()
    assert (document["sighting"], document["seen"][:10], len(document["seen"])) == ("ON", "person, vv", 255)
    assert CameraSnapshot(CAMERA, "online", "stop", backdoor=False).document()["seen"] == "none"


def test_long_names_of_a_class_and_a_group_are_shortened_to_the_limit_of_home_assistant() -> None:
    document = CameraSnapshot(CAMERA, "online", "c" * 300, backdoor=False, class_group="g" * 300).document()
    assert (document["class"], document["group"]) == ("c" * 255, "g" * 255)


@pytest.fixture
def recorded(rig: Rig) -> Iterator[RecorderDatabase]:
    """Yield the database of the rig, opened for a reader."""
    opened = RecorderDatabase(rig.url)
    yield opened
    opened.close()


def save_cameras(rig: Rig) -> None:
    """Save the changed cameras, as a recorder's housekeeping does every second."""
    changed, to_ms = rig.cameras.unsaved(1000)
    Saved(rig.engine, rig.bounds.strangers).save(changed, to_ms)


def test_cameras_are_read_in_the_state_that_the_recorder_has_saved(rig: Rig, recorded: RecorderDatabase) -> None:
    reading = DatabaseReader(recorded)
    assert reading.poll() == []
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0, class_name="yield")], GATE)
    save_cameras(rig)
    door, gate = reading.poll()
    assert (door.camera, door.state, door.class_name, door.backdoor) == (CAMERA, "online", "stop", False)
    assert (gate.camera, gate.class_name) == (GATE, "yield")
    degraded = signed(Status(state=DEGRADED, boot_id=BOOT, detail="the source hangs"))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), degraded, "Status")])
    (door, _) = reading.poll()
    assert (door.state, door.detail) == ("degraded", "the source hangs")


def test_the_status_of_a_camera_that_has_no_snapshot_yet_is_kept(rig: Rig, recorded: RecorderDatabase) -> None:
    reading = DatabaseReader(recorded)
    degraded = signed(Status(state=DEGRADED, boot_id=BOOT, detail="the source hangs"))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), degraded, "Status")])
    assert reading.poll() == []
    rig.verdicts([verdict(0)])
    save_cameras(rig)
    with rig.engine.begin() as connection:
        connection.execute(update(cameras).values(seen_ms=0))  # as if it were long ago
    (door,) = reading.poll()
    assert door.detail == "the source hangs"


def test_a_snapshot_of_another_release_hides_no_other_camera(rig: Rig, recorded: RecorderDatabase) -> None:
    reading = DatabaseReader(recorded)
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0)], GATE)
    save_cameras(rig)
    gates = camera_snapshots.c.camera == GATE
    with rig.engine.begin() as connection:
        connection.execute(update(camera_snapshots).where(gates).values(state="[1, 2]"))
    assert [each.camera for each in reading.poll()] == [CAMERA]
    rig.verdicts([verdict(1)], GATE)
    save_cameras(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]


def test_a_deleted_camera_is_left_out_until_it_sends_again(
    rig: Rig, recorded: RecorderDatabase, tmp_path: Path
) -> None:
    store = Store(f"sqlite:///{tmp_path}/console.sqlite")
    reading = DatabaseReader(recorded, f"sqlite:///{tmp_path}/console.sqlite")
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0)], GATE)
    save_cameras(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]
    store.prepare()
    forgotten_ms = store.forget(GATE)
    store.close()
    assert [each.camera for each in reading.poll()] == [CAMERA]
    assert reading.removed == {GATE}
    wait_until(lambda: time.time_ns() // 10**6 > forgotten_ms)
    rig.verdicts([verdict(1)], GATE)
    save_cameras(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]


def test_a_camera_that_returns_with_a_restored_database_is_read(rig: Rig, recorded: RecorderDatabase) -> None:
    reading = DatabaseReader(recorded)
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0)], GATE)
    save_cameras(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]
    gates = camera_snapshots.c.camera == GATE
    with rig.engine.begin() as connection:
        row = dict(connection.execute(select(camera_snapshots).where(gates)).mappings().one())
        connection.execute(delete(camera_snapshots).where(gates))
    assert [each.camera for each in reading.poll()] == [CAMERA]
    with rig.engine.begin() as connection:
        connection.execute(insert(camera_snapshots).values(row | {"heard_ms": 1}))  # as if it were long ago
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]


def test_the_group_and_the_best_classes_arrive_with_the_verdict(rig: Rig, recorded: RecorderDatabase) -> None:
    reading = DatabaseReader(recorded)
    best = [Candidate(class_name="cab", confidence=0.31), Candidate(class_name="minivan", confidence=0.244)]
    rig.verdicts([verdict(0, class_name="vehicle", class_group="vehicle", best=best)])
    save_cameras(rig)
    [door] = reading.poll()
    assert (door.class_name, door.class_group, door.best) == ("vehicle", "vehicle", "cab 31 %, minivan 24 %")
    state = door.document()
    assert (state["class"], state["group"], state["attributes"]["best"]) == ("vehicle", "vehicle", door.best)
    rig.verdicts([verdict(1, class_name="unsure")])
    save_cameras(rig)
    assert [each.document()["group"] for each in reading.poll()] == ["none"]


def test_an_episode_of_evidence_is_a_backdoor_alert_until_it_ends(rig: Rig, recorded: RecorderDatabase) -> None:
    reading = DatabaseReader(recorded)
    rig.verdicts(verdict(seq, flagged=False) for seq in range(40))
    save_cameras(rig)
    assert [each.backdoor for each in reading.poll()] == [False]
    rig.verdicts(verdict(seq, flagged=True) for seq in range(40, 52))
    save_cameras(rig)
    assert [each.backdoor for each in reading.poll()] == [True]
    rig.verdicts(verdict(seq, flagged=False) for seq in range(52, 150))
    save_cameras(rig)
    assert [each.backdoor for each in reading.poll()] == [False]


def test_saved_bytes_count_each_frame_once(
    rig: Rig, recorded: RecorderDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTLED_MS, rig.engine.dialect.name, 0)
    reading = DatabaseReader(recorded)
    reading.poll()
    for seq in range(4):
        rig.verdicts([verdict(seq)])  # 32 × 24 pixels of three bytes, as 1768 bytes
        save_cameras(rig)
        reading.poll()
        reading.poll()
    (door,) = reading.poll()
    assert door.saved_bytes in (
        4 * (32 * 24 * 3 - 1768),
        3 * (32 * 24 * 3 - 1768),
    )  # the last frame may be too new to count
    assert door.saved_share == pytest.approx(1 - 1768 / (32 * 24 * 3), abs=1e-6)


def test_the_bytes_of_a_slow_transaction_are_counted(
    rig: Rig, recorded: RecorderDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, begun_ns = DatabaseReader(recorded), time.time_ns()
    rig.verdicts([verdict(0)])
    save_cameras(rig)
    reading.poll()
    with rig.engine.begin() as connection:
        connection.execute(update(frames).values(recorded_ms=begun_ns // 10**6 - 10_000))
    monkeypatch.setattr(time, "time_ns", lambda: begun_ns + 60 * 10**9)
    (door,) = reading.poll()
    assert door.saved_bytes == 32 * 24 * 3 - 1768


def test_after_a_clock_was_set_back_later_bytes_are_counted(
    rig: Rig, recorded: RecorderDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, begun_ns = DatabaseReader(recorded), time.time_ns()
    for seconds in (86_400, 86_460, 0, 60):
        monkeypatch.setattr(time, "time_ns", lambda now_ns=begun_ns + seconds * 10**9: now_ns)
        rig.verdicts([verdict(seconds)])
        save_cameras(rig)
        reading.poll()
    monkeypatch.setattr(time, "time_ns", lambda: begun_ns + 120 * 10**9)
    (door,) = reading.poll()
    assert door.saved_bytes == 3 * (32 * 24 * 3 - 1768)
    assert door.saved_share == pytest.approx(1 - 1768 / (32 * 24 * 3))


@dataclass
class HomeAssistant:
    """A subscriber like Home Assistant: the retained messages of the broker by topic."""

    mosquitto: Mosquitto
    retained: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> HomeAssistant:
        client = self.client = Client(CallbackAPIVersion.VERSION2, "house", protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = lambda client, *_: client.subscribe([("homeassistant/#", 1), ("pointillist/home/#", 1)])
        client.on_message = self._store
        client.connect(self.mosquitto.host, self.mosquitto.port)
        client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets(sockpair_only=True)

    def _store(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.payload:
            self.retained[message.topic] = bytes(message.payload)
        else:
            self.retained.pop(message.topic, None)

    def state(self, camera: str) -> Any:
        return json.loads(self.retained.get(state_topic(camera), b"null"))

    def devices(self) -> set[str]:
        return {topic for topic in list(self.retained) if topic.startswith("homeassistant/device/")}


@pytest.fixture
def house(mosquitto: Mosquitto) -> Iterator[HomeAssistant]:
    with HomeAssistant(mosquitto) as house:
        yield house
        for topic in list(house.retained):
            house.client.publish(topic, b"", 1, retain=True).wait_for_publish(10)


def announcer_settings(rig: Rig, mosquitto: Mosquitto, **changed: Any) -> AnnouncerSettings:
    addresses = {"database": rig.url, "mqtt": f"{mosquitto.host}:{mosquitto.port}"}
    return AnnouncerSettings.model_validate(addresses | {"look_s": 0.05, "numbers_s": 0.2} | changed)


@contextlib.asynccontextmanager
async def announcing(rig: Rig, mosquitto: Mosquitto, **changed: Any) -> AsyncIterator[Health]:
    settings = announcer_settings(rig, mosquitto, **changed)
    stop, health = asyncio.Event(), Health()
    task = asyncio.create_task(run_announcer(settings, "0.1.0", registry=CollectorRegistry(), health=health, stop=stop))
    try:
        yield health
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task


@pytest.mark.brokers
async def test_a_camera_is_announced_updated_and_removed_in_home_assistant(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/console.sqlite"
    recorder.verdicts(verdict(seq, flagged=False) for seq in range(40))
    # A camera with one frame a minute does not become silent during the test.
    slow = Meta(boot_id=BOOT, probe_share=0.1, frames_per_second=1 / 60, dropped_per_block=16, turn=turn(1, 1))
    recorder.feed([recorder.record(recorder.settings.events_topic, CAMERA.encode(), signed(slow), "Meta")])
    save_cameras(recorder)
    status = status_topic(announcer_id(announcer_settings(recorder, mosquitto)))
    async with announcing(recorder, mosquitto, console_store=store):
        await until(lambda: house.state(CAMERA) and house.devices(), "the camera")
        await until(lambda: house.retained.get(status) == b"online", "the announcer")
        document = json.loads(house.retained[config_topic(CAMERA)])
        jsonschema.Draft202012Validator(DEVICE).validate(document)
        assert document["state_topic"] == state_topic(CAMERA)
        assert (house.state(CAMERA)["state"], house.state(CAMERA)["backdoor"]) == ("online", "OFF")
        recorder.verdicts(verdict(seq, flagged=True, class_name="yield") for seq in range(40, 52))
        save_cameras(recorder)
        await until(lambda: house.state(CAMERA)["backdoor"] == "ON", "the alert")
        assert house.state(CAMERA)["class"] == "yield"
        with Store.opened(store) as console:
            console.forget(CAMERA)
        await until(lambda: not house.devices() and house.state(CAMERA) is None, "the removal of the camera")
    await until(lambda: house.retained[status] == b"offline", "the end of the announcer")


@pytest.mark.brokers
async def test_a_sighting_is_on_in_home_assistant_until_its_notification_ends(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant
) -> None:
    save_sighting_rule(recorder)
    recorder.verdicts(cars(0, 1))
    recorder.verdicts(cars(0, 1), GATE)
    save_cameras(recorder)

    def sighting_state(camera: str = CAMERA) -> tuple[str, str]:
        state = house.state(camera) or {}
        return state.get("sighting", ""), state.get("seen", "")

    def is_notified() -> bool:
        with recorder.engine.begin() as connection:
            return bool(notifier._open_ids(newest_alerts(connection)))

    async def sighting_state_after(seq: int, ago_s: float) -> tuple[str, str]:
        """End both sightings `ago_s` ago. Return the state that is shown with the next frame."""
        with recorder.engine.begin() as connection:
            connection.execute(alerts.update().values(ended_ms=time.time_ns() // 10**6 - round(1000 * ago_s)))
        recorder.verdicts([verdict(seq, class_name=f"frame {seq}")])
        save_cameras(recorder)
        await until(lambda: house.state(CAMERA)["class"] == f"frame {seq}", "the next frame")
        return sighting_state()

    notifier = AlertNotifier("http://127.0.0.1:1", recorder.url)
    async with announcing(recorder, mosquitto, numbers_s=3600):
        await until(lambda: sighting_state() == sighting_state(GATE) == ("OFF", "none"), "no sighting")
        recorder.verdicts(cars(1))
        await until(lambda: sighting_state() == ("ON", "vehicle"), "the sighting")
        save_sighting_rule(recorder, "cab", CAMERA)
        recorder.verdicts(cars(4))
        await until(lambda: sighting_state() == ("ON", "cab, vehicle"), "both sightings")
        assert (await sighting_state_after(7, HOLD_S - 30), is_notified()) == (("ON", "cab, vehicle"), True)
        assert (await sighting_state_after(8, HOLD_S + 30), is_notified()) == (("OFF", "none"), False)
        assert sighting_state(GATE) == ("OFF", "none")
    notifier.close()


@pytest.mark.brokers
async def test_a_broker_that_has_lost_its_retained_messages_gets_them_again(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant
) -> None:
    recorder.verdicts([verdict(0)])
    save_cameras(recorder)
    async with announcing(recorder, mosquitto) as health:
        await until(lambda: house.devices() and house.state(CAMERA), "the camera")
        mosquitto.kill()
        await until(lambda: not health.report()[0], "the lost connection")
        (mosquitto.folder / "data" / "mosquitto.db").unlink(missing_ok=True)
        house.retained.clear()
        mosquitto.start()
        await until(lambda: house.devices() and house.state(CAMERA), "the camera again")
        await until(lambda: health.report()[0], "health")


@pytest.mark.brokers
async def test_devices_are_unavailable_while_the_database_cannot_be_read(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.homeassistant.announcer._UNREAD_S", 0.0)
    recorder.verdicts([verdict(0)])
    save_cameras(recorder)
    status = status_topic(announcer_id(announcer_settings(recorder, mosquitto)))
    file = Path(recorder.engine.url.database or "")
    async with announcing(recorder, mosquitto):
        await until(lambda: house.retained.get(status) == b"online" and house.state(CAMERA), "the camera")
        file.rename(file.with_suffix(".away"))
        await until(lambda: house.retained[status] == b"offline", "the unavailable devices")
        file.with_suffix(".away").rename(file)
        await until(lambda: house.retained[status] == b"online", "the available devices")


@pytest.mark.brokers
async def test_the_announcer_is_not_ready_and_devices_are_unavailable_while_the_database_hangs(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.homeassistant.announcer.LATE_S", 0.05)
    monkeypatch.setattr("consumers.homeassistant.announcer._UNREAD_S", 0.1)
    recorder.verdicts([verdict(0)])
    save_cameras(recorder)
    status = status_topic(announcer_id(announcer_settings(recorder, mosquitto)))
    answers, read = threading.Event(), DatabaseReader.poll
    answers.set()

    def hang_and_read(reader: DatabaseReader) -> list[CameraSnapshot]:
        answers.wait()
        return read(reader)

    monkeypatch.setattr(DatabaseReader, "poll", hang_and_read)
    async with announcing(recorder, mosquitto) as health:
        try:
            await until(lambda: house.retained.get(status) == b"online", "the announcer")
            answers.clear()
            await until(lambda: house.retained[status] == b"offline", "the unavailable devices")
            assert health.report()[1]["database"] == {"ok": False, "detail": LATE}
        finally:
            answers.set()
        await until(lambda: house.retained[status] == b"online" and health.report()[0], "the available devices")


@pytest.mark.brokers
async def test_devices_stay_and_are_unavailable_while_a_new_database_has_no_cameras(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.homeassistant.announcer._UNREAD_S", 0.0)
    recorder.verdicts([verdict(0)])
    save_cameras(recorder)
    status = status_topic(announcer_id(announcer_settings(recorder, mosquitto)))
    async with announcing(recorder, mosquitto, forgotten_s=0):
        await until(lambda: house.retained.get(status) == b"online" and house.devices(), "the camera")
        with recorder.engine.begin() as connection:
            rows = [dict(row) for row in connection.execute(select(camera_snapshots)).mappings()]
            connection.execute(delete(camera_snapshots))
        await until(lambda: house.retained[status] == b"offline", "the unavailable devices")
        assert house.devices() == {config_topic(CAMERA)}
        with recorder.engine.begin() as connection:
            connection.execute(insert(camera_snapshots), rows)
        await until(lambda: house.retained[status] == b"online", "the available devices")
        assert house.devices() == {config_topic(CAMERA)}


@pytest.mark.brokers
async def test_announcements_of_an_earlier_run_are_removed_but_not_those_of_other_programs(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant
) -> None:
    foreign = {"device": {"identifiers": ["x"]}, "origin": {"name": "zigbee2mqtt"}, "state_topic": "zigbee2mqtt/lamp"}
    lamp = "homeassistant/device/lamp/config"
    house.client.publish(lamp, json.dumps(foreign), 1, retain=True).wait_for_publish(10)
    mine = announcer_id(announcer_settings(recorder, mosquitto))
    others = config_topic("elsewhere/door")
    for camera, announcer in ((GATE, mine), ("elsewhere/door", "another")):
        document = json.dumps(config(camera, "0.0.1", announcer))
        house.client.publish(config_topic(camera), document, 1, retain=True).wait_for_publish(10)
    recorder.verdicts([verdict(0)])
    save_cameras(recorder)
    async with announcing(recorder, mosquitto, forgotten_s=0.1):
        await until(
            lambda: house.devices() == {lamp, others, config_topic(CAMERA)}, "only its own camera and foreign messages"
        )


@pytest.mark.brokers
async def test_two_announcers_on_one_broker_do_not_disturb_each_other(
    recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant
) -> None:
    for camera in (CAMERA, GATE):
        recorder.verdicts([verdict(0)], camera)
    save_cameras(recorder)
    status = status_topic(announcer_id(announcer_settings(recorder, mosquitto)))
    async with announcing(recorder, mosquitto, only=(CAMERA,)) as first:
        await until(lambda: house.retained.get(status) == b"online" and house.state(CAMERA), "the first one")
        house.retained.pop(status)
        async with announcing(recorder, mosquitto, only=(GATE,), name="second") as second:
            await until(lambda: house.state(GATE) and second.report()[0], "the second one")
            assert first.report()[0]
        other = status_topic(announcer_id(announcer_settings(recorder, mosquitto, name="second")))
        await until(lambda: house.retained.get(other) == b"offline", "the end of the second one")
        # The first announcer has published no status since: it has neither reconnected nor stopped.
        assert status not in house.retained


class Broker:
    """A stand-in for the announcer's client: the topics with a retained message."""

    is_connected = True

    def __init__(self) -> None:
        self.retained: set[str] = set()

    def publish(self, topic: str, payload: str | bytes) -> None:
        if payload:
            self.retained.add(topic)
        else:
            self.retained.discard(topic)

    def devices(self) -> set[str]:
        return {topic for topic in self.retained if topic.startswith("homeassistant/")}


def offline_announcer() -> Announcer:
    return Announcer(AnnouncerSettings(mqtt="127.0.0.1:1", database="sqlite://"), "0.1.0", CollectorRegistry())


def test_a_camera_that_the_database_lacks_is_withdrawn_after_a_while_and_a_removed_one_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announcer, broker, clock = offline_announcer(), Broker(), Clock(1000.0)
    monkeypatch.setattr(announcer, "_client", broker)
    monkeypatch.setattr("consumers.homeassistant.announcer.time", SimpleNamespace(monotonic=clock))
    door, gate, yard = (CameraSnapshot(name, "online", "stop", backdoor=False) for name in (CAMERA, GATE, "lab/yard"))
    earlier = config("lab/earlier", "0.0.1", announcer._id)
    broker.publish(config_topic("lab/earlier"), json.dumps(earlier))
    announcer._on_message(config_topic("lab/earlier"), json.dumps(earlier).encode(), True)
    announcer.announce([door, gate, yard])
    clock.now_s += 20
    announcer.announce([door, yard])
    every = {config_topic(each) for each in (CAMERA, GATE, "lab/yard", "lab/earlier")}
    assert broker.devices() == every
    clock.now_s += 20
    announcer.announce([door], {"lab/yard"})
    assert broker.devices() == {config_topic(CAMERA), config_topic(GATE)}, "the gate is missing for 20 s"
    announcer.announce([door, gate], {"lab/yard"})
    clock.now_s += 20
    announcer.announce([door], {"lab/yard"})
    clock.now_s += 20
    announcer.announce([door], {"lab/yard"})
    assert broker.devices() == {config_topic(CAMERA), config_topic(GATE)}, "the gate was there again"
    clock.now_s += 20
    announcer.announce([door], {"lab/yard"})
    assert broker.devices() == {config_topic(CAMERA)}
    clock.now_s += 3600
    announcer.announce([])
    assert broker.devices() == {config_topic(CAMERA)}, "a new database has no cameras yet"


def test_deeply_nested_json_of_another_client_is_ignored() -> None:
    announcer = offline_announcer()
    announcer._on_message("homeassistant/device/lamp/config", b"[" * 100_000, True)
    assert not announcer._leftovers


def feed_leftover(announcer: Announcer, camera: str) -> None:
    """Pass a retained device of this announcer to it, as the broker does after the connection."""
    announcer._on_message(config_topic(camera), json.dumps(config(camera, "0.0.1", announcer._id)).encode(), True)


@pytest.mark.parametrize("camera", ["lab/#", "lab/+", "lab/" + "a" * 70_000, "lab", "", "lab/a/b", "lab/ä", 'lab/"'])
def test_a_device_that_is_no_camera_is_ignored(camera: str) -> None:
    announcer = offline_announcer()
    feed_leftover(announcer, camera)
    assert not announcer._leftovers
    feed_leftover(announcer, CAMERA)
    assert announcer._leftovers == {CAMERA}


def test_no_more_devices_of_earlier_runs_are_held_than_there_may_be_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.homeassistant.announcer.MAX_CAMERAS", 3)
    announcer = offline_announcer()
    for number in range(5):
        feed_leftover(announcer, f"lab/{number}")
    assert announcer._leftovers == {"lab/0", "lab/1", "lab/2"}


def test_a_device_that_cannot_be_withdrawn_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    announcer, broker = offline_announcer(), Broker()
    monkeypatch.setattr(announcer, "_client", broker)
    feed_leftover(announcer, "lab/rejected")
    with monkeypatch.context() as broken:
        broken.setattr(broker, "publish", lambda *_: (_ for _ in ()).throw(ValueError("Invalid topic.")))
        with pytest.raises(ValueError, match="Invalid topic"):
            announcer.announce([], {"lab/rejected"})
    assert not announcer._leftovers
    feed_leftover(announcer, "lab/earlier")
    broker.publish(config_topic("lab/earlier"), "{}")
    announcer.announce([CameraSnapshot(CAMERA, "online", "stop", backdoor=False)], {"lab/rejected", "lab/earlier"})
    assert broker.devices() == {config_topic(CAMERA)}
    assert not announcer._leftovers


def test_the_id_of_an_announcer_depends_on_its_database_machine_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def id_of(database: str, name: str = "announcer", machine: str = "one") -> str:
        monkeypatch.setattr("platform.node", lambda: machine)
        return announcer_id(AnnouncerSettings(mqtt="broker:1", database=database, name=name))

    local, far = "sqlite:////srv/state/pointillist.sqlite", "postgresql+psycopg://a:b@db:5432/pointillist"
    assert id_of(local) == id_of(local)
    assert len({id_of(local), id_of(local, machine="two"), id_of(local, "second"), id_of(far)}) == 4
    assert id_of(far) == id_of(far.replace("a:b", "c:d"), machine="two")
    for socket in ("postgresql:///pointillist?host=/run/postgresql", "postgresql:///pointillist"):
        assert id_of(socket) != id_of(socket, machine="two")


@pytest.mark.brokers
async def test_only_selected_cameras_are_announced(recorder: Rig, mosquitto: Mosquitto, house: HomeAssistant) -> None:
    recorder.verdicts([verdict(0)])
    recorder.verdicts([verdict(0)], "home/porch")
    save_cameras(recorder)
    async with announcing(recorder, mosquitto, only=("home/*",)):
        await until(lambda: house.state("home/porch"), "the camera")
    assert house.devices() == {config_topic("home/porch")}
