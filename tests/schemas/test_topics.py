"""MQTT topics, Kafka topics, and camera names."""

from __future__ import annotations

import re

import pytest

from schemas.errors import ConfigError, MalformedError
from schemas.identity import DEFAULT_SITE, CameraId, Identity, camera_at, camera_id, camera_id_on_wire
from schemas.topics import Channel, KafkaTopic, every_camera_filter, mqtt_topic, parse_mqtt_topic, shared_filter

NAME = "a" * 63
LONGEST = f"{NAME[:32]}/{NAME[:31]}"


@pytest.mark.parametrize("channel", list(Channel))
@pytest.mark.parametrize("camera", ["site/camera", LONGEST, f"b/{NAME[:-1]}", "0-x.y_z/9"])
def test_a_topic_can_be_parsed_again(camera: str, channel: Channel) -> None:
    topic = mqtt_topic(CameraId(camera), channel)
    assert topic == f"pointillist/v1/{camera}/{channel.value}"
    assert parse_mqtt_topic(topic) == (camera, channel)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "pointillist/v1",
        "pointillist/v1/site/camera",
        "pointillist/v2/site/camera/frame",
        "other/v1/site/camera/frame",
        "pointillist/v1/site/camera/frames",
        "pointillist/v1/site/camera/frame/more",
        "pointillist/v1/Site/camera/frame",
        "pointillist/v1//camera/frame",
        f"pointillist/v1/{NAME}a/camera/frame",
        f"pointillist/v1/{NAME}/{NAME}/frame",
        f"pointillist/v1/{LONGEST}a/frame",
        "pointillist/v1/site/cam era/frame",
        "pointillist/v1/site/camera\n/frame",
        "pointillist/v1/../camera/frame",
        "/" * 60_000,
    ],
)
def test_an_invalid_topic_is_malformed_with_a_short_error(topic: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_mqtt_topic(topic)
    assert len(str(caught.value)) < 500


def test_filters_match_the_topics_of_every_camera() -> None:
    for channel in Channel:
        assert every_camera_filter(channel) == mqtt_topic(CameraId("+/+"), channel)
        assert shared_filter("bridges", channel) == f"$share/bridges/{every_camera_filter(channel)}"


def test_kafka_topics_are_valid_names_and_distinct() -> None:
    names = [topic.value for topic in KafkaTopic]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"pointillist\.[a-z-]+\.v1", name) for name in names)


@pytest.mark.parametrize(
    "text", ["camera", "a/b/c", "A/b", "a/", "-a/b", "a/b\n", f"{NAME}a/b", "a/ü", f"{NAME}/{NAME}", f"{LONGEST}a"]
)
def test_an_invalid_name_is_a_users_error_or_a_malformed_message(text: str) -> None:
    with pytest.raises(ConfigError, match="site/camera"):
        camera_id(text)
    with pytest.raises(MalformedError):
        camera_id_on_wire(text)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("door", "one / between site and camera"), ("a b/c", "lower-case letters, digits"), (f"{LONGEST}a", "a shorter")],
)
def test_the_remedy_for_an_invalid_name_fits_its_fault(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"got {text!r}\. Use .*{remedy}"):
        camera_id(text)


def test_a_name_without_a_site_belongs_to_the_default_site() -> None:
    assert camera_at("door") == f"{DEFAULT_SITE}/door"
    assert camera_at("door", "hall") == "hall/door"
    assert camera_at("yard/gate", "hall") == "yard/gate"
    with pytest.raises(ConfigError, match="site/camera"):
        camera_at("a/b/c")


def test_an_identity_prints_as_one_word() -> None:
    assert str(Identity(CameraId("site/one"), 255, 7)) == "site/one/00000000000000ff/7"
