"""Announcements of cameras: the ranges of their fields and their order."""

from __future__ import annotations

import math
import time

import pytest

from schemas.errors import MalformedError
from schemas.limits import MAX_DROPPED_PER_BLOCK, MAX_FRAMES_PER_SECOND, MAX_SIDE
from schemas.messages.camera_status import LAST_MESSAGE, check_announcement, is_newer, turn
from schemas.pointillist_pb2 import Meta, Status, Turn

LARGEST: dict[str, object] = {
    "boot_id": 2**63 - 1,
    "width": MAX_SIDE,
    "height": MAX_SIDE,
    "channels": 3,
    "frames_per_second": float(MAX_FRAMES_PER_SECOND),
    "dropped_per_block": MAX_DROPPED_PER_BLOCK,
    "probe_share": 1.0,
    "profile": 1,
    "turn": Turn(at_ms=2**53 - 1),
}


def meta(**fields: object) -> Meta:
    return Meta(**fields)  # type: ignore[arg-type]  # the caller names fields of the message


def status(boot: int, connection: int, message: int, at_ms: int = 0) -> Status:
    return Status(boot_id=boot, turn=Turn(connection=connection, message=message, at_ms=at_ms))


def test_the_smallest_and_the_largest_values_are_accepted() -> None:
    check_announcement(Meta(boot_id=1))
    check_announcement(Status(boot_id=1))
    check_announcement(meta(**LARGEST))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("boot_id", 0), ("boot_id", 2**63), ("width", MAX_SIDE + 1), ("height", MAX_SIDE + 1), ("channels", 2),
        ("frames_per_second", math.nan), ("frames_per_second", math.inf), ("frames_per_second", -0.1),
        ("frames_per_second", MAX_FRAMES_PER_SECOND + 0.1), ("dropped_per_block", MAX_DROPPED_PER_BLOCK + 1),
        ("probe_share", math.nan), ("probe_share", -0.1), ("probe_share", 1.1), ("profile", 3),
        ("turn", Turn(at_ms=2**53)),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_rejected_with_the_expected_one(field: str, value: object) -> None:
    with pytest.raises(MalformedError, match="expected"):
        check_announcement(meta(**(LARGEST | {field: value})))


def test_within_a_boot_connection_and_message_number_decide_the_order() -> None:
    statuses = [status(1, 1, 1, 900), status(1, 1, 2, 5), status(1, 1, LAST_MESSAGE, 1), status(1, 2, 1, 4)]
    for number, one in enumerate(statuses):
        assert [is_newer(one, other, 0) for other in statuses] == [number > place for place in range(len(statuses))]


def test_between_boots_the_time_decides_unless_it_lies_in_the_future() -> None:
    assert is_newer(status(2, 1, 1, 101), status(1, 9, 9, 100), 500)
    assert not is_newer(status(2, 9, 9, 100), status(1, 1, 1, 100), 500)
    assert is_newer(status(2, 1, 1, 501), status(1, 1, 1, 10**9), 500)
    assert not is_newer(status(2, 1, 1, 500), status(1, 1, 1, 10**9), 500)


def test_a_turn_holds_connection_message_number_and_time() -> None:
    before_ms = time.time_ns() // 10**6
    found = turn(3, 5)
    assert (found.connection, found.message) == (3, 5)
    assert before_ms <= found.at_ms <= time.time_ns() // 10**6
