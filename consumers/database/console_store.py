"""Tables of the console's own database, and the readers of reviews and removed cameras for other programs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    inspect,
    select,
    true,
)
from sqlalchemy.exc import SQLAlchemyError

from consumers.database.engine import insert_or_replace, open_engine
from schemas.batched import batched
from schemas.errors import UserError

T = TypeVar("T")

metadata = MetaData()


def _text(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=primary_key, nullable=False)


def _integer(name: str, *, primary_key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=primary_key, autoincrement=False, nullable=False)


def _number(name: str) -> Column[float]:
    return Column(name, Float, nullable=False)


marks = Table("console_marks", metadata, _text("name", primary_key=True), _integer("value"))
"""Reading positions, the version of these tables, and the random number of this database."""
_NUMBER: Final = "database"


def _log(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        _integer("at_ms"),
        *(_text(each) for each in ("who", "what", "subject", "detail", "outcome")),
        Column("site", Text, nullable=False, server_default=""),
    )


operations = _log("console_operations")
"""The audit log: user, action, subject (camera, alert or model), outcome, and site."""
Index("console_operations_by_subject", operations.c.subject, operations.c.id)
policy_operations = _log("console_policy_operations")
"""The lines of policies, apart: they push no person's line out of the audit log."""
Index("console_policy_operations_by_subject", policy_operations.c.subject, policy_operations.c.id)
logins = _log("console_logins")
"""The lines of logins and logouts, apart for the same reason: everybody with a password can cause any number."""
Index("console_logins_by_subject", logins.c.subject, logins.c.id)
failed_logins = _log("console_failed_logins")
"""The lines of failed logins, apart from those: strangers cause them."""
Index("console_failed_logins_by_subject", failed_logins.c.subject, failed_logins.c.id)


class AuditLog(Enum):
    """A part of the audit log with a limit of its own."""

    ACTIONS = auto()
    POLICIES = auto()
    LOGINS = auto()
    FAILED_LOGINS = auto()


LOGS: Final = {
    AuditLog.ACTIONS: operations,
    AuditLog.POLICIES: policy_operations,
    AuditLog.LOGINS: logins,
    AuditLog.FAILED_LOGINS: failed_logins,
}

reviews = Table(
    "console_reviews",
    metadata,
    _text("alert_id", primary_key=True),
    _text("state"),
    _text("who"),
    _integer("at_ms"),
)
"""Decisions on alerts: acknowledged or closed. An alert without a row is open."""

comments = Table(
    "console_comments",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("alert_id"),
    _integer("at_ms"),
    _text("who"),
    _text("text"),
    Index("console_comments_by_alert", "alert_id"),
)

forgotten = Table("console_forgotten", metadata, _text("camera", primary_key=True), _integer("at_ms"))
"""Cameras that users removed from the fleet, and when."""

_SPAN_COLUMNS: Final = (
    "frames", "frame_bytes", "raw_bytes", "late_ms", "slowest_ms", "checked", "flagged", "strip_shed",
)  # fmt: skip
_SPAN_SUMS: Final = ("confidence", "entropy_bits", "threshold_bits")
NO_ENTROPY: Final = 1e9
"""Value of the least entropy if no frame was checked."""


def _spans(name: str) -> Table:
    return Table(
        name,
        metadata,
        _text("camera", primary_key=True),
        _integer("begin_ms", primary_key=True),
        *(_integer(each) for each in _SPAN_COLUMNS),
        *(_number(each) for each in _SPAN_SUMS),
        _number("least_entropy_bits"),
        _number("evidence"),
        Index(f"{name}_by_age", "begin_ms"),
        sqlite_with_rowid=False,
    )


camera_minutes = _spans("console_minutes")
camera_hours = _spans("console_hours")
"""Sums over the frames that each camera captured in a minute or an hour; see `consumers.console.data.rollup`."""

class_hours = Table(
    "console_class_hours",
    metadata,
    _text("camera", primary_key=True),
    _integer("begin_ms", primary_key=True),
    _text("class_name", primary_key=True),
    _integer("frames"),
    Index("console_class_hours_by_age", "begin_ms"),
    sqlite_with_rowid=False,
)
"""Number of verdicts of each class on a camera in an hour."""


class Review(NamedTuple):
    """A person's decision on an alert."""

    state: str
    """`acknowledged` or `closed`."""
    who: str
    at_ms: int


Reviews = Mapping[str, Review]
"""Decisions by alert id; an alert without one is open."""


def recorded_reviews(url: str, alert_ids: Sequence[str] | None = None) -> dict[str, Review] | None:
    """Return the decisions on these alerts, or on all, in the console's database at `url`, for other programs.

    None if the database is absent or not complete yet.
    """
    return read_console(url, lambda each: read_reviews(each, alert_ids))


def read_forgotten(url: str) -> dict[str, int]:
    """Return the removed cameras and their times from the console's database at `url`."""
    return read_console(url, lambda each: {row.camera: row.at_ms for row in each.execute(select(forgotten))}) or {}


def read_console(url: str, read: Callable[[Connection], T]) -> T | None:
    """Read a console's database at `url` from another process. Return None if it is absent or not complete yet."""
    try:
        engine = open_engine(url, writes=False)
    except (UserError, OSError):  # no file, a folder that may not be read, or a URL in a variable that is absent here
        return None
    try:
        with engine.begin() as connection:
            return read(connection)
    except SQLAlchemyError:  # tables of another release, or tables still being created
        return None
    finally:
        engine.dispose()


def read_reviews(connection: Connection, alert_ids: Sequence[str] | None = None) -> dict[str, Review]:
    """Return the decision on each of these alerts, or of all, that is acknowledged or closed."""
    query = select(reviews.c.alert_id, reviews.c.state, reviews.c.who, reviews.c.at_ms)
    parts = [true()] if alert_ids is None else [reviews.c.alert_id.in_(some) for some in batched(alert_ids)]
    return {alert_id: Review(*rest) for part in parts for alert_id, *rest in connection.execute(query.where(part))}


def mark(connection: Connection, name: str) -> int:
    """Return the value of a mark, 0 if it does not exist."""
    return connection.scalar(select(marks.c.value).where(marks.c.name == name)) or 0


def set_mark(connection: Connection, name: str, value: int) -> None:
    """Set the value of a mark."""
    connection.execute(insert_or_replace(connection.engine, marks).values(name=name, value=value))


def database_number(connection: Connection) -> int:
    """Return the random number of this database, made at the first call: another database has another one."""
    found = mark(connection, _NUMBER)
    if not found:
        found = 1 + secrets.randbelow(10**15)
        set_mark(connection, _NUMBER, found)
    return found


def forget_database_number(url: str) -> None:
    """Remove the number of a restored console's database: its audit log counts from an earlier line again."""
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            if inspect(connection).has_table(marks.name):
                connection.execute(delete(marks).where(marks.c.name == _NUMBER))
    finally:
        engine.dispose()
