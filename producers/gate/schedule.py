"""The hours in which a camera sends: `mon-fri 07:00-19:00`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property, lru_cache
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, model_validator

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FORM: Final = "hours as 'mon-fri 07:00-19:00' or '22:00-06:00'"
_DAY: Final = "|".join(DAYS)
_HOURS: Final = re.compile(
    rf"(?:(?P<days>(?:{_DAY})(?:-(?:{_DAY}))?(?:,(?:{_DAY})(?:-(?:{_DAY}))?)*) )?"
    r"(?P<from>[0-2]\d:[0-5]\d)-(?P<to>[0-2]\d:[0-5]\d)"
)
_MIDNIGHT: Final = 24 * 60


@dataclass(frozen=True)
class Hours:
    """Hours from one minute of a day to another, on some days of the week. Hours over midnight belong to their first
    day."""

    days: frozenset[int]
    """0 is Monday."""
    begin: int
    """Minutes after midnight."""
    end: int
    """Minutes after midnight of the same day; beyond 24:00 on the next."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `mon-fri 07:00-19:00`, `sat,sun 22:00-06:00` or `07:00-19:00`; `ValueError` names the form."""
        found = _HOURS.fullmatch(text.strip().lower())
        if found is None:
            raise ValueError(f"expected {FORM}, got {text[:60]!r}")
        begin, end = _minutes(found["from"]), _minutes(found["to"])
        if begin >= _MIDNIGHT or end > _MIDNIGHT or begin == end:
            raise ValueError(f"expected {FORM}, of different times up to 24:00, got {text[:60]!r}")
        return cls(_days(found["days"]), begin, end if end > begin else end + _MIDNIGHT)

    def hold(self, day: int, minute: int) -> bool:
        """Return whether the hours include a minute after midnight of a day of the week."""
        if day in self.days and self.begin <= minute < self.end:
            return True
        return (day - 1) % 7 in self.days and self.begin <= minute + _MIDNIGHT < self.end


class Schedule(BaseModel, frozen=True, extra="forbid"):
    """The hours in which a camera sends, by the clock of `zone`. A list alone stands for `hours`."""

    hours: tuple[str, ...] = Field(min_length=1)
    """Hours such as `mon-fri 07:00-19:00` or `22:00-06:00`; hours over midnight belong to the day on which they begin.
    """
    zone: str | None = None
    """Time zone by its IANA name, such as `Europe/Berlin`. Default: the machine's."""

    @model_validator(mode="before")
    @classmethod
    def _hours_alone(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = [values]
        return values if isinstance(values, Mapping | Schedule) else {"hours": values}

    @model_validator(mode="after")
    def _parses(self) -> Self:
        assert self._parsed
        try:
            assert self._zone or self.zone is None
        except (KeyError, ValueError, OSError):
            raise ValueError(f"expected a time zone as Europe/Berlin, got {str(self.zone)[:60]!r}") from None
        return self

    @cached_property
    def _parsed(self) -> tuple[Hours, ...]:
        return tuple(Hours.parse(text) for text in self.hours)

    @cached_property
    def _zone(self) -> tzinfo | None:
        return ZoneInfo(self.zone) if self.zone is not None else None

    def holds(self, now_s: float) -> bool:
        """Return whether the camera sends at a Unix time in seconds."""
        then = datetime.fromtimestamp(now_s, UTC).astimezone(self._zone)
        return any(hours.hold(then.weekday(), then.hour * 60 + then.minute) for hours in self._parsed)

    def opens_at(self, now_s: float) -> float | None:
        """Return the next whole minute in the schedule, Unix time in seconds; None if there is none within eight
        days."""
        return _opens_at(self, 60 * math.ceil(now_s / 60))


@lru_cache(maxsize=64)
def _opens_at(schedule: Schedule, minute_s: int) -> float | None:
    """Return the result of `Schedule.opens_at` for a whole minute.

    Cameras with one schedule end together and share this search, which takes up to 60 ms.
    """
    ahead = range(minute_s, minute_s + 8 * 60 * _MIDNIGHT, 60)
    return next((float(at) for at in ahead if schedule.holds(at)), None)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return frozenset(days)
