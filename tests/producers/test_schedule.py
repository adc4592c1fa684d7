"""The schedule of a camera: weekly hours in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producers.gate.schedule import DAYS, Hours, Schedule

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)


def at(day: int, time: str) -> float:
    hours, minutes = time.split(":")
    return (MONDAY + timedelta(days=day, hours=int(hours), minutes=int(minutes))).timestamp()


@pytest.mark.parametrize(
    ("hours", "day", "time", "holds"),
    [
        ("mon-fri 07:00-19:00", 0, "07:00", True),
        ("mon-fri 07:00-19:00", 0, "06:59", False),
        ("mon-fri 07:00-19:00", 4, "18:59", True),
        ("mon-fri 07:00-19:00", 4, "19:00", False),
        ("mon-fri 07:00-19:00", 5, "12:00", False),
        ("fri-mon 08:00-09:00", 6, "08:30", True),
        ("fri-mon 08:00-09:00", 1, "08:30", False),
        ("sat,sun 00:00-24:00", 6, "23:59", True),
        ("22:00-06:00", 2, "23:00", True),
        ("22:00-06:00", 2, "05:59", True),
        ("22:00-06:00", 2, "06:00", False),
        ("fri 22:00-06:00", 5, "03:00", True),  # the night of Friday
        ("fri 22:00-06:00", 4, "03:00", False),
        ("sun 22:00-06:00", 0, "03:00", True),
    ],
)
def test_hours_include_their_first_minute_and_exclude_their_last(hours: str, day: int, time: str, holds: bool) -> None:
    assert Schedule(hours=(hours,), zone="UTC").holds(at(day, time)) is holds


def test_a_schedule_follows_the_clock_of_its_zone_in_summer_and_winter() -> None:
    schedule = Schedule(hours=("07:00-08:00",), zone="Europe/Berlin")
    assert schedule.holds(datetime(2026, 7, 1, 5, 30, tzinfo=UTC).timestamp())
    assert not schedule.holds(datetime(2026, 1, 7, 5, 30, tzinfo=UTC).timestamp())
    assert schedule.holds(datetime(2026, 1, 7, 6, 30, tzinfo=UTC).timestamp())


@given(
    days=st.sets(st.integers(0, 6), min_size=1),
    begin=st.integers(0, 1439),
    length=st.integers(1, 1439),
    minute=st.integers(0, 7 * 1440 - 1),
)
def test_hours_contain_exactly_the_counted_minutes(days: set[int], begin: int, length: int, minute: int) -> None:
    end = (begin + length) % 1440
    text = ",".join(DAYS[day] for day in sorted(days))
    hours = Hours.parse(f"{text} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}")
    counted = {(1440 * day + begin + passed) % (7 * 1440) for day in days for passed in range(length)}
    assert hours.hold(minute // 1440, minute % 1440) == (minute in counted)


def test_a_schedule_returns_its_next_opening() -> None:
    schedule = Schedule(hours=("mon 07:00-08:00",), zone="Europe/Berlin")
    opens = schedule.opens_at(at(0, "07:30"))
    assert opens is not None
    assert datetime.fromtimestamp(opens, ZoneInfo("Europe/Berlin")).isoformat() == "2026-06-08T07:00:00+02:00"


def test_cameras_with_one_schedule_search_its_next_opening_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked, holds = [], Schedule.holds

    def counted(schedule: Schedule, now_s: float) -> bool:
        checked.append(now_s)
        return holds(schedule, now_s)

    monkeypatch.setattr(Schedule, "holds", counted)
    end_s = at(4, "19:00") + 1
    opens = {Schedule(hours=("mon-fri 07:01-19:00",), zone="UTC").opens_at(end_s + place / 10) for place in range(99)}
    assert opens == {at(7, "07:01")}
    assert len(checked) == 60 * 60 + 1


@pytest.mark.parametrize(
    "text", ["", "mon", "7-19", "07:00-25:00", "07:60-08:00", "07:00-07:00", "monday 07:00-08:00", "24:00-01:00"]
)
def test_an_invalid_form_is_rejected_with_the_expected_one(text: str) -> None:
    with pytest.raises(ValidationError, match="mon-fri 07:00-19:00"):
        Schedule(hours=(text,))


def test_a_list_of_hours_is_accepted_and_an_unknown_zone_rejected() -> None:
    assert Schedule.model_validate(["07:00-08:00"]) == Schedule(hours=("07:00-08:00",))
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        Schedule(hours=("07:00-08:00",), zone="Mars/Olympus")
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        Schedule(hours=("07:00-08:00",), zone="../../etc/passwd")


@pytest.mark.parametrize("value", ["mon-fri 07:00-19:00", ["mon-fri 07:00-19:00"], {"hours": ["mon-fri 07:00-19:00"]}])
def test_hours_are_a_text_a_list_or_a_table(value: object) -> None:
    assert Schedule.model_validate(value).hours == ("mon-fri 07:00-19:00",)
