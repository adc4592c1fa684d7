"""Ledgers as the bridge and the recorder accept them."""

from __future__ import annotations

import pytest

from schemas.errors import MalformedError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_BOOT_FRAMES, MAX_LEDGER_BYTES, MAX_SHED_RANGES
from schemas.messages.frame import sign_message
from schemas.messages.ledger import open_ledger
from schemas.pointillist_pb2 import Ledger, Range

KEYS = KeyRing(b"a fleet secret of thirty-two byte")
CAMERA = CameraId("hall/door")


def opened(ledger: Ledger, more: bytes = b"") -> Ledger:
    ledger.MergeFromString(more)
    return open_ledger(CAMERA, sign_message(KEYS.current(CAMERA), ledger), KEYS)


def with_ranges(count: int, first: int = 0) -> Ledger:
    shed = [Range(first=first + 2 * n, last=first + 2 * n) for n in range(count)]
    return Ledger(boot_id=1, revision=1, next=first + 2 * count, shed=shed)


def test_the_largest_number_of_shed_ranges_of_a_spool_is_accepted() -> None:
    assert len(opened(with_ranges(MAX_SHED_RANGES)).shed) == MAX_SHED_RANGES
    with pytest.raises(MalformedError, match="64 shed ranges, got 65"):
        opened(with_ranges(MAX_SHED_RANGES + 1))


def test_the_largest_ledger_of_a_spool_is_accepted() -> None:
    largest = with_ranges(MAX_SHED_RANGES, MAX_BOOT_FRAMES - 2 * MAX_SHED_RANGES)
    for name in ("revision", "frames_skipped", "frames_resent", "bytes_resent", "started_ms", "written_ms"):
        setattr(largest, name, 2**63 - 1)
    largest.boot_id, largest.key_generation, largest.confirmed_to, largest.closed = 2**63 - 1, 2**31, 2**63, True
    assert opened(largest).next == MAX_BOOT_FRAMES


def test_a_ledger_of_ten_thousand_ranges_is_rejected_unparsed() -> None:
    with pytest.raises(MalformedError, match=f"at most {MAX_LEDGER_BYTES} bytes"):
        opened(with_ranges(10_000))


def test_unknown_fields_count_towards_the_size_limit_of_a_ledger() -> None:
    unknown = b"\xfa\x07\x88\x27" + bytes(5000)  # field 127, 5,000 bytes
    with pytest.raises(MalformedError, match="bytes"):
        opened(with_ranges(0), unknown)


@pytest.mark.parametrize(
    "changed",
    [
        {"next": MAX_BOOT_FRAMES + 1},
        {"next": 2**50},
        {"boot_id": 0},
        {"boot_id": 2**63},
        {"revision": 0},
        {"frames_skipped": 2**63},
        {"bytes_resent": 2**64 - 1},
        {"first": 11},
        {"shed": [Range(first=10, last=10)]},
        {"shed": [Range(first=3, last=2)]},
    ],
)
def test_impossible_counts_are_rejected(changed: dict[str, object]) -> None:
    fields = {"boot_id": 1, "revision": 1, "next": 10} | changed
    with pytest.raises(MalformedError):
        opened(Ledger(**fields))  # type: ignore[arg-type]  # fields of several types
