"""The status messages of a camera without a broker: faulty, paused, ended, and online again."""

from __future__ import annotations

import pytest

from producers.bridge.requests.forwarder import refusals
from producers.publisher.presence import Presence
from schemas.errors import WireError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import MAX_ANNOUNCEMENT_BYTES, USUAL_FRAME_PIXELS
from schemas.messages.frame import open_own_message, sign_message
from schemas.messages.frame_size import fitting_size, over_size
from schemas.pointillist_pb2 import DEGRADED, ENDED, OFFLINE, ONLINE, PAUSED, Meta, Refusal, Status
from tests.producers.bridge_rig import KEYS
from tests.producers.kafka_stand_in import Event

CAMERA = CameraId("site/door")
KEY = KEYS.current(CAMERA)


class RecordedPresence:
    """A presence with the statuses that it has published."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []
        self.presence = Presence(KEY, "here", 7, Meta, self._publish)

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        assert retain
        if topic == self.presence.status_topic:
            self.statuses.append(open_own_message(Status, KEY, payload))

    @property
    def last(self) -> tuple[int, str]:
        return self.statuses[-1].state, self.statuses[-1].detail


@pytest.fixture
def recorded() -> RecordedPresence:
    return RecordedPresence()


def test_a_pause_is_published_with_its_reason_until_it_ends(recorded: RecordedPresence) -> None:
    recorded.presence.pause("command", "paused by a command")
    assert recorded.last == (PAUSED, "paused by a command")
    recorded.presence.pause("command", "paused by a command")
    assert len(recorded.statuses) == 1
    recorded.presence.pause("hours", "outside the hours in which it sends")
    recorded.presence.resume("command")
    assert recorded.last == (PAUSED, "outside the hours in which it sends")
    recorded.presence.resume("hours")
    assert recorded.last == (ONLINE, "")


def test_reasons_of_any_length_leave_a_status_within_its_size_limit(recorded: RecordedPresence) -> None:
    recorded.presence.report_fault("source", "\N{CAMERA}" * 5000)
    assert recorded.last == (DEGRADED, "\N{CAMERA}" * 500)
    assert len(sign_message(KEY, recorded.statuses[-1])) < MAX_ANNOUNCEMENT_BYTES


def test_a_fault_is_published_also_while_a_camera_is_paused(recorded: RecordedPresence) -> None:
    recorded.presence.pause("command", "paused by a command")
    recorded.presence.report_fault("spool", "the spool cannot be written")
    assert recorded.last == (DEGRADED, "the spool cannot be written")
    recorded.presence.clear_fault("spool")
    assert recorded.last == (PAUSED, "paused by a command")


def test_a_camera_leaves_as_ended_if_its_source_has_ended_and_else_as_offline(recorded: RecordedPresence) -> None:
    recorded.presence.announce_offline()
    assert recorded.last == (OFFLINE, "")
    recorded.presence.end("its source has ended")
    recorded.presence.announce_offline()
    assert recorded.last == (ENDED, "its source has ended")


def test_the_last_will_is_offline_whatever_the_last_status_was(recorded: RecordedPresence) -> None:
    recorded.presence.pause("command", "paused by a command")
    _, will = recorded.presence.will()
    assert open_own_message(Status, KEY, will).state == OFFLINE


def test_every_status_carries_the_longest_intended_gap(recorded: RecordedPresence) -> None:
    recorded.presence.longest_gap_s = 60
    recorded.presence.announce_online()
    assert recorded.statuses[-1].longest_gap_s == 60


@pytest.mark.parametrize(
    ("size", "most"),
    [((2048, 1200), USUAL_FRAME_PIXELS), ((8192, 16), 4096), ((96, 128), 4096), ((9, 9), 64), ((9000, 10), 4200)],
)
def test_the_suggested_size_fits_the_limit_in_whole_blocks(size: tuple[int, int], most: int) -> None:
    width, height = fitting_size(*size, most)
    assert width * height <= most
    assert width % 8 == height % 8 == 0
    assert f"size to {width}x{height}" in over_size(*size, most)


def refusal_event(value: bytes) -> Event:
    return Event(CAMERA.encode(), value, [("ce_type", b"pointillist.v1.Refusal")])


def test_a_refusal_is_forwarded_to_its_camera_at_most_twice_a_second() -> None:
    published: list[tuple[str, bytes]] = []
    refused: list[str] = []
    forwarder = refusals(KEYS, lambda topic, payload: published.append((topic, payload)), refused.append)
    signed = sign_message(KEY, Refusal(boot_id=7, seq=3, reason="over_size", detail="x" * 200))
    forged = Refusal(boot_id=7, seq=3, detail="made up").SerializeToString()
    for now_s in (0.0, 0.1, 0.6):
        forwarder.forward([refusal_event(signed), refusal_event(forged)], now_s)
    assert [topic for topic, _ in published] == [f"pointillist/v1/{CAMERA}/cmd/refused"] * 2
    assert open_own_message(Refusal, KEY, published[0][1]).detail == "x" * 200
    assert refused == ["Refusal"] * 3
    with pytest.raises(WireError):
        open_own_message(Refusal, derive_camera_key(b"another fleet's secret", CAMERA), published[0][1])
