"""Small parts of the console: its address, its sizes and times, its charts, guesses, commands and bundles."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from consumers.cameras.picture_health import sharpness
from consumers.console.access.guesses import Delays
from consumers.console.context import percent, size
from consumers.console.data.commands import changes_of
from consumers.console.data.system_charts import by_column
from consumers.console.jobs.bundles import operator_bundles
from consumers.console.web import listen
from consumers.database.history import MINUTE_MS
from schemas.errors import ConfigError
from schemas.messages.frame import PROFILES
from schemas.runtime.moment import format_utc


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0.004, "0.4 %"), (0.9994, "99.9 %"), (0.9996, "100 %"), (-1.5, "-150 %")]
)
def test_a_percentage_has_at_most_three_digits(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_a_used_or_foreign_address_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^127\.0\.0\.1:{port}: expected a free address, got "):
            listen("127.0.0.1", port, patience_s=0.1)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        ConfigError, match=r"^there:1: expected an address of this machine, got .*Name or service not known"
    ):
        listen("there", 1)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_500, "1.5 kB"),
        (999_700, "1 MB"),
        (2e9, "2 GB"),
        (3.25e12, "3.25 TB"),
        (-2e6, "-2 MB"),
    ],
)
def test_bytes_are_formatted_in_a_fitting_unit(number: float, words: str) -> None:
    assert size(number) == words


@pytest.mark.parametrize(
    ("at_ms", "words"), [(1_000, "1970-01-01 00:00:01 UTC"), (None, "–"), (2**62, "–"), (-(2**62), "–")]
)
def test_a_time_outside_the_calendar_is_formatted_as_a_dash(at_ms: int | None, words: str) -> None:
    assert format_utc(at_ms) == words


def minute(number: int, **changed: int) -> dict[str, int]:
    """Return the sums of a minute with 60 frames."""
    names = [
        "judged",
        "judged_correct",
        "attacked",
        "attacked_correct",
        "checked",
        "flagged",
        "raw_bytes",
        "frame_bytes",
    ]
    usual = dict.fromkeys(names, 0) | {"frames": 60, "late_ms": 6_000, "slowest_ms": 500}
    return usual | changed | {"minute_ms": number * MINUTE_MS}


def test_a_gap_between_minutes_interrupts_each_line_of_a_chart_once() -> None:
    found = by_column([minute(1), minute(2), minute(9, judged=4, judged_correct=3)], {9 * MINUTE_MS: 2})
    assert found["t"] == [60, 120, 180, 540]
    assert found["rate"] == [1, 1, None, 1]
    assert found["accuracy"] == [None, None, None, 0.75]
    assert found["alerts"] == [0, 0, None, 120]


def test_a_refund_removes_an_attempt_and_an_unneeded_one_changes_nothing() -> None:
    delays = Delays(free=1, longest_s=60.0)
    delays.refund("visitor")
    assert delays.wait_s("visitor", 0.0) == 0.0
    delays.add("visitor", 0.0)
    delays.add("visitor", 0.0)
    assert delays.wait_s("visitor", 0.0) == 2.0
    delays.refund("visitor")
    delays.refund("visitor")
    assert delays.wait_s("visitor", 0.0) == 0.0


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"profile": "video"}, {"profile": PROFILES["video"]}),
        ({"drop_ratio": 0.25, "enabled": "false"}, {"dropped_per_block": 16, "enabled": False}),
        ({"fps": "2.5", "probe_share": 1}, {"frames_per_second": 2.5, "probe_share": 1.0}),
    ],
)
def test_a_command_changes_only_the_given_settings(fields: dict[str, object], found: dict[str, object]) -> None:
    assert changes_of(fields) == found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"profile": "zip"}, "profile: expected "),
        ({"profile": ["raw"]}, "profile: expected "),
        ({"enabled": 1.5}, "enabled: expected true or false, got "),
        ({"colour": 1}, "setting: expected "),
        ({}, "settings: expected "),
        ({"drop_ratio": True}, "drop_ratio: expected "),
        ({"fps": "fast"}, "fps: expected "),
    ],
)
def test_an_invalid_command_is_reported_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        changes_of(fields)


def test_a_missing_folder_contains_no_bundles(tmp_path: Path) -> None:
    assert operator_bundles(tmp_path / "none") == operator_bundles(tmp_path) == []


def test_a_picture_below_three_pixels_has_no_sharpness() -> None:
    assert sharpness(np.ones((2, 9), np.float32)) == 0.0
    edge = np.zeros((9, 9), np.float32)
    edge[:, 5:] = 1
    assert sharpness(edge) > 0
