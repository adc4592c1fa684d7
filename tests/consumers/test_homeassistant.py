"""Cameras in Home Assistant: what it is told has its form, and follows the recorder's database on a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from prometheus_client import CollectorRegistry
from sqlalchemy import delete, update

from consumers.cameras.open_alerts import HOLD_S, newest_alerts
from consumers.cameras.snapshots import Snapshots as Saved
from consumers.console.data.store import Store
from consumers.database.tables import alerts, camera_snapshots
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
from tests.consumers.homeassistant_schema import DEVICE, DISCOVERY_TOPIC
from tests.consumers.recorder_rig import BOOT, CAMERA, Rig, signed, verdict
from tests.consumers.test_sightings import cars, want
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
def test_no_two_cameras_are_one_device(one: str, other: str) -> None:
    assert (object_id(one) == object_id(other)) == (one == other)


def test_every_template_names_what_the_state_has() -> None:
    said = CameraSnapshot(CAMERA, "online", "stop", backdoor=True).document()
    for entity in config(CAMERA, "1", "0123abcd")["components"].values():
        (key,) = re.findall(r"value_json\.(\w+)", entity["value_template"])
        assert key in said
    components = config(CAMERA, "1", "0123abcd")["components"]
    assert said["state"] in components["state"]["options"]
    assert said["backdoor"] == components["backdoor"].get("payload_on", "ON")
    assert said["sighting"] == components["sighting"].get("payload_off", "OFF")


def test_a_camera_with_many_sightings_has_a_state_that_home_assistant_accepts() -> None:
    document = CameraSnapshot(CAMERA, "online", "stop", backdoor=False, seen=("person", "v" * 300)).document()
    assert (document["sighting"], document["seen"][:10], len(document["seen"])) == ("ON", "person, vv", 255)
    assert CameraSnapshot(CAMERA, "online", "stop", backdoor=False).document()["seen"] == "none"


def test_a_class_and_a_group_with_long_names_are_states_that_home_assistant_accepts() -> None:
    document = CameraSnapshot(CAMERA, "online", "c" * 300, backdoor=False, class_group="g" * 300).document()
    assert (document["class"], document["group"]) == ("c" * 255, "g" * 255)


def saved(rig: Rig) -> None:
    """What a recorder's housekeeping does every second."""
    changed, to_ms = rig.cameras.unsaved(1000)
    Saved(rig.engine, rig.bounds.strangers).save(changed, to_ms)


def test_the_cameras_are_read_as_the_recorder_shows_them(rig: Rig) -> None:
    reading = DatabaseReader(rig.url)
    assert reading.poll() == []
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0, class_name="yield")], GATE)
    saved(rig)
    door, gate = reading.poll()
    assert (door.camera, door.state, door.class_name, door.backdoor) == (CAMERA, "online", "stop", False)
    assert (gate.camera, gate.class_name) == (GATE, "yield")
    degraded = signed(Status(state=DEGRADED, boot_id=BOOT, detail="the source hangs"))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), degraded, "Status")])
    (door, _) = reading.poll()
    assert (door.state, door.detail) == ("degraded", "the source hangs")


def test_a_camera_with_a_snapshot_of_another_release_hides_no_other_one(rig: Rig) -> None:
    reading = DatabaseReader(rig.url)
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0)], GATE)
    saved(rig)
    gates = camera_snapshots.c.camera == GATE
    with rig.engine.begin() as connection:
        connection.execute(update(camera_snapshots).where(gates).values(state="[1, 2]"))
    assert [each.camera for each in reading.poll()] == [CAMERA]
    rig.verdicts([verdict(1)], GATE)
    saved(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]


def test_a_forgotten_camera_is_left_out_until_it_sends_again(rig: Rig, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/console.sqlite")
    reading = DatabaseReader(rig.url, f"sqlite:///{tmp_path}/console.sqlite")
    rig.verdicts([verdict(0)])
    rig.verdicts([verdict(0)], GATE)
    saved(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]
    store.prepare()
    forgotten_ms = store.forget(GATE)
    store.close()
    assert [each.camera for each in reading.poll()] == [CAMERA]
    wait_until(lambda: time.time_ns() // 10**6 > forgotten_ms)
    rig.verdicts([verdict(1)], GATE)
    saved(rig)
    assert [each.camera for each in reading.poll()] == [CAMERA, GATE]


def test_the_group_and_the_best_classes_arrive_with_the_verdict(rig: Rig) -> None:
    reading = DatabaseReader(rig.url)
    best = [Candidate(class_name="cab", confidence=0.31), Candidate(class_name="minivan", confidence=0.244)]
    rig.verdicts([verdict(0, class_name="vehicle", class_group="vehicle", best=best)])
    saved(rig)
    [door] = reading.poll()
    assert (door.class_name, door.class_group, door.best) == ("vehicle", "vehicle", "cab 31 %, minivan 24 %")
    said = door.document()
    assert (said["class"], said["group"], said["attributes"]["best"]) == ("vehicle", "vehicle", door.best)
    rig.verdicts([verdict(1, class_name="unsure")])
    saved(rig)
    assert [each.document()["group"] for each in reading.poll()] == ["none"]


def test_an_episode_of_evidence_is_a_backdoor_alert_until_it_ends(rig: Rig) -> None:
    reading = DatabaseReader(rig.url)
    rig.verdicts(verdict(seq, flagged=False) for seq in range(40))
    saved(rig)
    assert [each.backdoor for each in reading.poll()] == [False]
    rig.verdicts(verdict(seq, flagged=True) for seq in range(40, 52))
    saved(rig)
    assert [each.backdoor for each in reading.poll()] == [True]
    rig.verdicts(verdict(seq, flagged=False) for seq in range(52, 150))
    saved(rig)
    assert [each.backdoor for each in reading.poll()] == [False]


def test_bytes_saved_are_those_of_all_frames_and_each_counts_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.homeassistant.reading.SETTLED_MS", 0)
    reading = DatabaseReader(rig.url)
    reading.poll()
    for seq in range(4):
        rig.verdicts([verdict(seq)])  # 32 × 24 pixels of three bytes, as 1768 bytes
        saved(rig)
        reading.poll()
        reading.poll()
    (door,) = reading.poll()
    assert door.saved_bytes in (
        4 * (32 * 24 * 3 - 1768),
        3 * (32 * 24 * 3 - 1768),
    )  # the last one may be of this instant
    assert door.saved_share == pytest.approx(1 - 1768 / (32 * 24 * 3), abs=1e-6)


def test_a_clock_that_was_set_back_ends_no_reading_and_counts_later_bytes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, begun_ns = DatabaseReader(rig.url), time.time_ns()
    for seconds in (86_400, 86_410, 0, 10):
        monkeypatch.setattr(time, "time_ns", lambda now_ns=begun_ns + seconds * 10**9: now_ns)
        rig.verdicts([verdict(seconds)])
        saved(rig)
        reading.poll()
    monkeypatch.setattr(time, "time_ns", lambda: begun_ns + 30 * 10**9)
    (door,) = reading.poll()
    assert door.saved_bytes == 3 * (32 * 24 * 3 - 1768)
    assert door.saved_share == pytest.approx(1 - 1768 / (32 * 24 * 3))


@dataclass
class House:
    """Home Assistant's ear: what the broker holds now, by topic."""

    mosquitto: Mosquitto
    held: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> House:
        client = self.client = Client(CallbackAPIVersion.VERSION2, "house", protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = lambda client, *_: client.subscribe([("homeassistant/#", 1), ("pointillist/home/#", 1)])
        client.on_message = self._hear
        client.connect(self.mosquitto.host, self.mosquitto.port)
        client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets(sockpair_only=True)

    def _hear(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.payload:
            self.held[message.topic] = bytes(message.payload)
        else:
            self.held.pop(message.topic, None)

    def state(self, camera: str) -> Any:
        return json.loads(self.held.get(state_topic(camera), b"null"))

    def devices(self) -> set[str]:
        return {topic for topic in list(self.held) if topic.startswith("homeassistant/device/")}


@pytest.fixture
def house(mosquitto: Mosquitto) -> Iterator[House]:
    with House(mosquitto) as made:
        yield made
        for topic in list(made.held):
            made.client.publish(topic, b"", 1, retain=True).wait_for_publish(10)


def set_up(rig: Rig, mosquitto: Mosquitto, **changed: Any) -> AnnouncerSettings:
    places = {"database": rig.url, "mqtt": f"{mosquitto.host}:{mosquitto.port}"}
    return AnnouncerSettings.model_validate(places | {"look_s": 0.05, "numbers_s": 0.2} | changed)


@contextlib.asynccontextmanager
async def announcing(rig: Rig, mosquitto: Mosquitto, **changed: Any) -> AsyncIterator[Health]:
    made = set_up(rig, mosquitto, **changed)
    stop, health = asyncio.Event(), Health()
    task = asyncio.create_task(run_announcer(made, "0.1.0", registry=CollectorRegistry(), health=health, stop=stop))
    try:
        yield health
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task


@pytest.mark.brokers
async def test_home_assistant_finds_a_camera_follows_it_and_forgets_it(
    recorder: Rig, mosquitto: Mosquitto, house: House
) -> None:
    recorder.verdicts(verdict(seq, flagged=False) for seq in range(40))
    # A camera with one frame a minute is not silent while the test goes on.
    slow = Meta(boot_id=BOOT, probe_share=0.1, frames_per_second=1 / 60, dropped_per_block=16, turn=turn(1, 1))
    recorder.feed([recorder.record(recorder.settings.events_topic, CAMERA.encode(), signed(slow), "Meta")])
    saved(recorder)
    status = status_topic(announcer_id(set_up(recorder, mosquitto)))
    async with announcing(recorder, mosquitto):
        await until(lambda: house.state(CAMERA) and house.devices(), "the camera")
        await until(lambda: house.held.get(status) == b"online", "the announcer")
        document = json.loads(house.held[config_topic(CAMERA)])
        jsonschema.Draft202012Validator(DEVICE).validate(document)
        assert document["state_topic"] == state_topic(CAMERA)
        assert (house.state(CAMERA)["state"], house.state(CAMERA)["backdoor"]) == ("online", "OFF")
        recorder.verdicts(verdict(seq, flagged=True, class_name="yield") for seq in range(40, 52))
        saved(recorder)
        await until(lambda: house.state(CAMERA)["backdoor"] == "ON", "the alert")
        assert house.state(CAMERA)["class"] == "yield"
        with recorder.engine.begin() as connection:
            connection.execute(delete(camera_snapshots))
        await until(lambda: not house.devices() and house.state(CAMERA) is None, "that it is gone")
    await until(lambda: house.held[status] == b"offline", "that nobody tells any more")


@pytest.mark.brokers
async def test_a_sighting_is_on_in_home_assistant_until_its_notification_ends(
    recorder: Rig, mosquitto: Mosquitto, house: House
) -> None:
    want(recorder)
    recorder.verdicts(cars(0, 1))
    recorder.verdicts(cars(0, 1), GATE)
    saved(recorder)

    def shown(camera: str = CAMERA) -> tuple[str, str]:
        state = house.state(camera) or {}
        return state.get("sighting", ""), state.get("seen", "")

    def is_notified() -> bool:
        with recorder.engine.begin() as connection:
            return bool(notifier._open_ids(newest_alerts(connection)))

    async def shown_after(seq: int, ago_s: float) -> tuple[str, str]:
        """What is shown with the next frame, after both sightings have ended so long ago."""
        with recorder.engine.begin() as connection:
            connection.execute(alerts.update().values(ended_ms=time.time_ns() // 10**6 - round(1000 * ago_s)))
        recorder.verdicts([verdict(seq, class_name=f"frame {seq}")])
        saved(recorder)
        await until(lambda: house.state(CAMERA)["class"] == f"frame {seq}", "the next frame")
        return shown()

    notifier = AlertNotifier("http://127.0.0.1:1", recorder.url)
    async with announcing(recorder, mosquitto, numbers_s=3600):
        await until(lambda: shown() == shown(GATE) == ("OFF", "none"), "no sighting")
        recorder.verdicts(cars(1))
        await until(lambda: shown() == ("ON", "vehicle"), "the sighting")
        want(recorder, "cab", CAMERA)
        recorder.verdicts(cars(4))
        await until(lambda: shown() == ("ON", "cab, vehicle"), "both sightings")
        assert (await shown_after(7, HOLD_S - 30), is_notified()) == (("ON", "cab, vehicle"), True)
        assert (await shown_after(8, HOLD_S + 30), is_notified()) == (("OFF", "none"), False)
        assert shown(GATE) == ("OFF", "none")
    notifier.close()


@pytest.mark.brokers
async def test_a_broker_that_has_forgotten_everything_is_told_again(
    recorder: Rig, mosquitto: Mosquitto, house: House
) -> None:
    recorder.verdicts([verdict(0)])
    saved(recorder)
    async with announcing(recorder, mosquitto) as health:
        await until(lambda: house.devices() and house.state(CAMERA), "the camera")
        mosquitto.kill()
        await until(lambda: not health.report()[0], "that the broker is missed")
        (mosquitto.folder / "data" / "mosquitto.db").unlink(missing_ok=True)
        house.held.clear()
        mosquitto.start()
        await until(lambda: house.devices() and house.state(CAMERA), "the camera again")
        await until(lambda: health.report()[0], "health")


@pytest.mark.brokers
async def test_devices_are_unavailable_while_the_database_cannot_be_read(
    recorder: Rig, mosquitto: Mosquitto, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.homeassistant.announcer._UNREAD_S", 0.0)
    recorder.verdicts([verdict(0)])
    saved(recorder)
    status = status_topic(announcer_id(set_up(recorder, mosquitto)))
    file = Path(recorder.engine.url.database or "")
    async with announcing(recorder, mosquitto):
        await until(lambda: house.held.get(status) == b"online" and house.state(CAMERA), "the camera")
        file.rename(file.with_suffix(".away"))
        await until(lambda: house.held[status] == b"offline", "that its state is not known")
        file.with_suffix(".away").rename(file)
        await until(lambda: house.held[status] == b"online", "that it is known again")


@pytest.mark.brokers
async def test_what_an_earlier_run_has_announced_of_a_camera_that_is_gone_is_taken_back_and_nothing_of_others(
    recorder: Rig, mosquitto: Mosquitto, house: House
) -> None:
    foreign = {"device": {"identifiers": ["x"]}, "origin": {"name": "zigbee2mqtt"}, "state_topic": "zigbee2mqtt/lamp"}
    lamp = "homeassistant/device/lamp/config"
    house.client.publish(lamp, json.dumps(foreign), 1, retain=True).wait_for_publish(10)
    mine = announcer_id(set_up(recorder, mosquitto))
    elsewhere = config_topic("elsewhere/door")
    for camera, announcer in ((GATE, mine), ("elsewhere/door", "another")):
        document = json.dumps(config(camera, "0.0.1", announcer))
        house.client.publish(config_topic(camera), document, 1, retain=True).wait_for_publish(10)
    recorder.verdicts([verdict(0)])
    saved(recorder)
    async with announcing(recorder, mosquitto, forgotten_s=0.1):
        await until(lambda: house.devices() == {lamp, elsewhere, config_topic(CAMERA)}, "its own camera alone")


@pytest.mark.brokers
async def test_two_announcers_on_one_broker_leave_each_other_alone(
    recorder: Rig, mosquitto: Mosquitto, house: House
) -> None:
    for camera in (CAMERA, GATE):
        recorder.verdicts([verdict(0)], camera)
    saved(recorder)
    status = status_topic(announcer_id(set_up(recorder, mosquitto)))
    async with announcing(recorder, mosquitto, only=(CAMERA,)) as first:
        await until(lambda: house.held.get(status) == b"online" and house.state(CAMERA), "the first one")
        house.held.pop(status)
        async with announcing(recorder, mosquitto, only=(GATE,), name="second") as second:
            await until(lambda: house.state(GATE) and second.report()[0], "the second one")
            assert first.report()[0]
        other = status_topic(announcer_id(set_up(recorder, mosquitto, name="second")))
        await until(lambda: house.held.get(other) == b"offline", "the end of the second one")
        # Nothing was published on the status of the first one since: neither a new connection nor an end.
        assert status not in house.held


def test_deeply_nested_json_of_another_client_is_ignored() -> None:
    announcer = Announcer(AnnouncerSettings(mqtt="127.0.0.1:1", database="sqlite://"), "0.1.0", CollectorRegistry())
    announcer._on_message("homeassistant/device/lamp/config", b"[" * 100_000, True)
    assert not announcer._leftovers


def test_an_announcer_is_known_by_its_database_on_its_machine_and_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(database: str, name: str = "announcer", machine: str = "one") -> str:
        monkeypatch.setattr("platform.node", lambda: machine)
        return announcer_id(AnnouncerSettings(mqtt="broker:1", database=database, name=name))

    local, far = "sqlite:////srv/state/pointillist.sqlite", "postgresql+psycopg://a:b@db:5432/pointillist"
    assert known(local) == known(local)
    assert len({known(local), known(local, machine="two"), known(local, "second"), known(far)}) == 4
    assert known(far) == known(far.replace("a:b", "c:d"), machine="two")


@pytest.mark.brokers
async def test_only_cameras_that_are_asked_for_are_told(recorder: Rig, mosquitto: Mosquitto, house: House) -> None:
    recorder.verdicts([verdict(0)])
    recorder.verdicts([verdict(0)], "home/porch")
    saved(recorder)
    async with announcing(recorder, mosquitto, only=("home/*",)):
        await until(lambda: house.state("home/porch"), "the camera")
    assert house.devices() == {config_topic("home/porch")}
