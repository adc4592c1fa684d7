"""CloudEvents headers of Kafka records."""

from __future__ import annotations

import pytest

from producers.bridge.records import RecordFactory
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.cloudevents import MODELS, PROCESSORS, RECORDER, bridge_source, camera_source, event_headers
from schemas.pointillist_pb2 import Alert, DeadLetter

SOURCES = [camera_source(CameraId("hall/door")), bridge_source("b1"), PROCESSORS, RECORDER, MODELS]


@pytest.mark.parametrize("source", SOURCES)
def test_a_record_names_its_source_and_the_type_of_its_value(source: str) -> None:
    assert dict(event_headers(source, Alert, "a/1")) == {
        "ce_specversion": b"1.0",
        "ce_source": source.encode(),
        "ce_type": b"pointillist.v1.Alert",
        "ce_id": b"a/1",
        "content-type": b"application/protobuf",
    }


def test_all_sources_are_paths_and_differ() -> None:
    assert SOURCES == ["/cameras/hall/door", "/bridges/b1", "/processors", "/recorder", "/models"]


def test_appending_to_headers_does_not_change_those_of_the_next_record() -> None:
    event_headers(RECORDER, Alert, "1").append(("traceparent", b"00"))
    assert "traceparent" not in dict(event_headers(RECORDER, Alert, "2"))


def test_the_source_of_a_bridges_dead_letter_is_the_bridge() -> None:
    record = RecordFactory("b1", KeyRing(b"a fleet secret of thirty-two byte")).accept(
        b"pointillist/v1/hall/door/frame", b""
    )
    headers = dict(record.headers)
    assert headers["ce_source"] == b"/bridges/b1"
    assert headers["ce_type"] == DeadLetter.DESCRIPTOR.full_name.encode()
