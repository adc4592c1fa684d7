"""The rights of the monitor, the announcer and Home Assistant at an MQTT broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.homeassistant.discovery import config_topic, state_topic
from infra.pki.authority import Authority
from infra.pki.roles import Roles, role_tls
from infra.state_folder import Layout
from tests.infra.secure import MqttVisitor, enroll_camera

pytestmark = pytest.mark.brokers
DOOR = "site/door"
NOT_AUTHORISED = 0x87


@pytest.fixture(scope="module", autouse=True)
def rights(fleet: Layout) -> None:
    """Enrol the camera before the broker reads its rights."""
    enroll_camera(fleet, DOOR)
    Roles(Authority(fleet.pki)).write_rights()


def test_home_assistant_receives_the_announcer_s_messages_and_none_of_a_camera(
    fleet: Layout, broker: tuple[str, int]
) -> None:
    with (
        MqttVisitor(broker, role_tls(fleet.pki, "homeassistant")) as house,
        MqttVisitor(broker, role_tls(fleet.pki, "announcer")) as announcer,
        MqttVisitor(broker, enroll_camera(fleet, DOOR)) as camera,
    ):
        for topic in ("homeassistant/#", "pointillist/#"):
            house.subscribe(topic)
        assert camera.publish(f"pointillist/v1/{DOOR}/status", b"its own") in (0, 16)
        assert announcer.publish(config_topic(DOOR), b"config", retain=True) == 0
        assert announcer.publish(state_topic(DOOR), b"state", retain=True) == 0
        assert house.publish("homeassistant/status", b"online") in (0, 16)
        house.wait_for_messages(3)
        assert sorted(house.messages) == [
            (config_topic(DOOR), b"config"), ("homeassistant/status", b"online"), (state_topic(DOOR), b"state"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        ("announcer", f"pointillist/v1/{DOOR}/cmd/settings"),
        ("announcer", "homeassistant/light/hall/config"),
        ("homeassistant", config_topic(DOOR)),
        ("homeassistant", state_topic(DOOR)),
        ("homeassistant", f"pointillist/v1/{DOOR}/cmd/probes"),
        ("monitor", state_topic(DOOR)),
        ("monitor", f"pointillist/v1/{DOOR}/status"),
        ("health", config_topic(DOOR)),
    ],
)
def test_a_publish_outside_the_rights_of_a_role_is_refused(
    fleet: Layout, broker: tuple[str, int], role: str, topic: str
) -> None:
    with MqttVisitor(broker, role_tls(fleet.pki, role)) as visitor:
        assert visitor.publish(topic, b"forged", retain=True) == NOT_AUTHORISED


def test_a_camera_cannot_publish_a_device(fleet: Layout, broker: tuple[str, int]) -> None:
    with MqttVisitor(broker, enroll_camera(fleet, DOOR)) as camera:
        assert camera.publish(config_topic(DOOR), b"forged", retain=True) == NOT_AUTHORISED


def test_the_monitor_receives_only_the_broker_s_metrics(fleet: Layout, broker: tuple[str, int], tmp_path: Path) -> None:
    with MqttVisitor(broker, role_tls(fleet.pki, "monitor")) as monitor:
        for topic in ("pointillist/#", "homeassistant/#", "$SYS/broker/#"):
            monitor.subscribe(topic)
        monitor.wait_for_messages(4)
        assert {topic.partition("/")[0] for topic, _ in monitor.messages} == {"$SYS"}
        assert "$SYS/broker/version" not in dict(monitor.messages)
