"""The file of byte rates for single cameras, and the count of unprocessed frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from infra.cameras.rates import USUAL_MIB, allow_rate
from infra.state_folder import Layout
from producers.bridge.confirmations import Receipt
from producers.bridge.kafka.unprocessed_frames import UnprocessedFrames
from producers.bridge.rates import read_rates
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.runtime import atomic_file
from schemas.runtime.followed_file import FollowedFile

DOOR, YARD = CameraId("site/door"), CameraId("site/yard")


def test_an_attached_camera_is_in_the_rate_file_at_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    rates = FollowedFile(layout.camera_rates, read_rates)
    assert rates.changed() == {}
    assert rates.changed() is None
    allow_rate(layout, DOOR)
    assert rates.changed() == {DOOR: USUAL_MIB * 2**20}
    allow_rate(layout, YARD, 2)
    assert rates.changed() == {DOOR: USUAL_MIB * 2**20, YARD: 2 * 2**20}
    assert rates.changed() is None


def test_a_rate_set_by_a_person_is_kept_and_a_damaged_file_is_rejected(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.camera_rates.write_text(json.dumps({DOOR: 300}))
    allow_rate(layout, DOOR)
    allow_rate(layout, YARD)
    assert json.loads(layout.camera_rates.read_text()) == {DOOR: 300, YARD: USUAL_MIB}
    for text in (f'{{"{DOOR}": 300,}}', "[]"):
        layout.camera_rates.write_text(text)
        with pytest.raises(StateError, match="expected a JSON object with a rate for each camera"):
            allow_rate(layout, YARD)
        assert layout.camera_rates.read_text() == text


def test_an_empty_rate_file_has_no_rates_and_a_new_rate_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, synced = Layout(tmp_path), []
    layout.camera_rates.write_text("")
    monkeypatch.setattr(atomic_file, "sync", lambda path: synced.append(path.read_text() if path.is_file() else path))
    allow_rate(layout, DOOR)
    assert json.loads(layout.camera_rates.read_text()) == {DOOR: USUAL_MIB}
    assert synced == [layout.camera_rates.read_text(), tmp_path]


UNUSUAL = (f'{{"site/door": 1{400 * "0"}}}', 100_000 * "[")
"""A rate that is too large for a float, and a text that is too deep."""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "double quotes"),
        ("[]", "expected a JSON object of MiB a second by camera"),
        ('{"site/door": "fast"}', "fast"),
        ('{"site/door": -1}', "expected finite rates from 0"),
        ('{"site/door": NaN}', "expected finite rates from 0"),
        ('{"site/door": Infinity}', "expected finite rates from 0"),
        (UNUSUAL[0], "too large"),
        (UNUSUAL[1], "recursion"),
    ],
    ids=["no-json", "no-object", "no-number", "negative", "nan", "infinite", "huge", "deep"],
)  # fmt: skip
def test_the_rates_stay_while_the_file_is_invalid(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "rates.json"
    file.write_text(text)
    rates = FollowedFile(file, read_rates)
    with structlog.testing.capture_logs() as logs:
        assert (rates.changed(), rates.changed()) == (None, None)
    (line,) = logs
    assert line["event"] == "file_not_read"
    assert error in line["error"]
    file.write_text(json.dumps({DOOR: 3}))
    assert rates.changed() == {DOOR: 3 * 2**20}


@pytest.mark.parametrize("name", ["door", "Site/door", "site/gate/door", ""])
def test_an_invalid_camera_name_is_logged_and_the_other_rates_apply(tmp_path: Path, name: str) -> None:
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({name: 3, YARD: 2}))
    with structlog.testing.capture_logs() as logs:
        assert read_rates(file) == {YARD: 2 * 2**20}
    (line,) = logs
    assert line["event"] == "camera_rate_ignored"
    assert f"expected site/camera of a-z 0-9 _ . -, at most 64 characters in all, got {name!r}" in line["error"]


def receipts(*frames: tuple[CameraId, int, int]) -> list[tuple[Receipt, int]]:
    return [(Receipt(camera, 7, 0, seq), size) for camera, seq, size in frames]


def test_processed_frames_no_longer_count() -> None:
    unprocessed = UnprocessedFrames()
    unprocessed.add(0, 10, receipts((DOOR, 0, 100), (YARD, 0, 50), (DOOR, 1, 100)))
    unprocessed.add(1, 5, receipts((YARD, 1, 7)))
    unprocessed.add(1, -1, receipts((YARD, 2, 10**9)))  # the offset of this record is unknown
    assert (unprocessed.bytes_of(DOOR), unprocessed.bytes_of(YARD)) == (200, 57)
    unprocessed.advance({0: 11, 1: 5})
    assert (unprocessed.bytes_of(DOOR), unprocessed.bytes_of(YARD)) == (100, 57)
    unprocessed.advance({0: 13, 1: 9})
    assert (unprocessed.bytes_of(DOOR), unprocessed.bytes_of(YARD)) == (0, 0)
    unprocessed.add(0, 20, receipts((DOOR, 2, 1)))
    unprocessed.clear()
    assert unprocessed.bytes_of(DOOR) == 0


def test_a_frame_stored_twice_counts_once() -> None:
    unprocessed = UnprocessedFrames()
    [(frame, _)] = same_frame = receipts((DOOR, 0, 100))
    for offset in (3, 4):
        unprocessed.add(0, offset, same_frame)
    assert unprocessed.bytes_of(DOOR) == 100
    assert frame in unprocessed
    unprocessed.advance({0: 4})
    assert unprocessed.bytes_of(DOOR) == 0
    assert frame not in unprocessed
    unprocessed.advance({0: 5})
    unprocessed.add(0, 5, same_frame)
    unprocessed.clear()
    assert frame not in unprocessed
