"""The console's own database for people's actions, apart from the recorder's, whose writing it never blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, delete, func, inspect, select, text, update

from consumers.cameras.episodes import OPEN
from consumers.console.access.sight import ALL, Sight, site_of
from consumers.database.console_store import (
    LOGS,
    AuditLog,
    Review,
    comments,
    database_number,
    forgotten,
    mark,
    metadata,
    operations,
    read_reviews,
    reviews,
    set_mark,
)
from consumers.database.engine import insert_or_replace, open_engine
from consumers.database.migrations import of_another_version
from schemas.batched import batched
from schemas.clock import unix_ms
from schemas.identity import SITE_NAME

VERSION: Final = 1
_LONGEST: Final = 2_000
MOST_OPERATIONS: Final = 200_000
MOST_COMMENTS: Final = 100_000
MOST_REVIEWS: Final = 400_000
"""Decisions on alerts that are kept in any case: twice as many as a recorder keeps alerts by default."""


@dataclass(frozen=True)
class Operation:
    """One line of the audit log."""

    at_ms: int
    """Unix time in milliseconds."""
    who: str
    """The person, the token, the user of the machine, or the policy; `unknown` for a login with an unknown name."""
    what: str
    """The action, such as `command`, `alert`, `login`, `enroll`, `user add` or the kind of a job."""
    subject: str
    """The camera, alert, reason, model or address that it was about."""
    detail: str
    """The requested values."""
    outcome: str
    """The outcome."""
    site: str = ""
    """The site that it was about; empty for the whole fleet. Only people with a role for all sites read those."""


class Store:
    """Reads and writes the console's tables. Every method may block: call them outside the event loop."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url, writes=True)

    @classmethod
    @contextmanager
    def opened(cls, url: str) -> Iterator[Self]:
        """Provide a store with its tables, which is closed when the block ends. Raises StateError as `prepare` does."""
        store = cls(url)
        try:
            store.prepare()
            yield store
        finally:
            store.close()

    def check(self) -> None:
        """Read all pages of a SQLite file. Raises `sqlite3.DatabaseError` if it is damaged."""
        if self.engine.dialect.name != "sqlite":
            return
        with self.engine.begin() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
        if found != "ok":
            error = sqlite3.DatabaseError(str(found).splitlines()[-1])
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    def prepare(self) -> None:
        """Create missing tables. Raises StateError for tables of another version."""
        with self.engine.begin() as connection:
            _rename_lessons(connection)
            _add_sites(connection)
            metadata.create_all(connection)
            found = mark(connection, "version")
            if not found:
                set_mark(connection, "version", VERSION)
            elif found != VERSION:
                raise of_another_version(VERSION, found, "a console's database", "--store")

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    # Actions of users

    def note(
        self,
        who: str,
        what: str,
        subject: str,
        detail: str,
        outcome: str,
        site: str | None = None,
        *,
        log: AuditLog = AuditLog.ACTIONS,
    ) -> None:
        """Write a line of a part of the audit log. Delete that part's oldest lines beyond the limit.

        Without a `site`, it is the one of a `subject` that is a camera or begins with one, else none.
        """
        values = {
            "at_ms": unix_ms(), "who": who, "what": what, "subject": subject, "detail": detail[:_LONGEST],
            "outcome": outcome[:_LONGEST], "site": site_of(subject) if site is None else site,
        }  # fmt: skip
        table = LOGS[log]
        with self.engine.begin() as connection:
            made = connection.execute(table.insert().values(values)).inserted_primary_key
            if made is not None:
                connection.execute(delete(table).where(table.c.id <= made[0] - MOST_OPERATIONS))

    def newest_operations(self, subject: str | None = None, limit: int = 100, sight: Sight = ALL) -> list[Operation]:
        """Return the newest lines of the audit log first, for a reader of these sites.

        Half of `limit` is for people's actions, if there are that many: lines of policies and logins do not push them
        out.
        """
        people, *others = ([line for _, line in part] for part in self._parts_of_log(subject, limit, sight))
        kept = people[: (limit + 1) // 2]
        rest = _newest_first(sum(others, people[len(kept) :]))
        return _newest_first(kept + rest[: limit - len(kept)])

    def operations_after(
        self, cursor: Sequence[int], subject: str | None, limit: int, sight: Sight = ALL
    ) -> tuple[list[Operation], list[int]]:
        """Return the next lines of the audit log, for a reader of these sites, and the cursor behind them.

        A cursor has a number for each part of the log, and then the one of the database, without which it is accepted
        too. Numbers grow as lines are written, whatever their times are, so that a reader who follows the cursors
        misses no line. The cursor of another database begins at the oldest line.
        """
        with self.engine.begin() as connection:
            database = database_number(connection)
        numbers, made_for = cursor[: len(LOGS)], cursor[len(LOGS) :]
        if made_for and made_for[0] != database:
            numbers = [0] * len(LOGS)
        parts = self._parts_of_log(subject, limit // len(LOGS), sight, numbers)
        lines = sorted((line for part in parts for _, line in part), key=lambda each: each.at_ms)
        return lines, [
            *(part[-1][0] if part else before for part, before in zip(parts, numbers, strict=True)),
            database,
        ]

    def _parts_of_log(
        self, subject: str | None, limit: int, sight: Sight, cursor: Sequence[int] | None = None
    ) -> list[list[tuple[int, Operation]]]:
        """Return at most `limit` lines of each part of the audit log with their numbers.

        They are the newest lines first, or the first ones behind a `cursor`.
        """
        found = []
        with self.engine.begin() as connection:
            starts: Sequence[int | None] = [None] * len(LOGS) if cursor is None else cursor
            for log, before in zip(LOGS.values(), starts, strict=True):
                columns = [log.c[name] for name in Operation.__dataclass_fields__]
                query = select(log.c.id, *columns).limit(limit)
                query = query.order_by(log.c.id.desc()) if before is None else query.order_by(log.c.id)
                if before is not None:
                    query = query.where(log.c.id > before)
                if subject is not None:
                    query = query.where(log.c.subject == subject)
                if sight.sites is not None:
                    query = query.where(log.c.site.in_(sight.sites))
                found.append([(number, Operation(*row)) for number, *row in connection.execute(query)])
        return found

    # Reviews of alerts

    def review(self, alert_ids: Sequence[str], state: str, who: str) -> Review:
        """Set the alerts of an episode to `acknowledged`, `closed`, or `open` again."""
        made = Review(state, who, unix_ms())
        with self.engine.begin() as connection:
            for some in batched(alert_ids):
                connection.execute(delete(reviews).where(reviews.c.alert_id.in_(some)))
                if state != OPEN:
                    values = [{"alert_id": each, **made._asdict()} for each in some]
                    connection.execute(reviews.insert(), values)
        return made

    def reviewed(self) -> dict[str, Review]:
        """Return the decision on each alert that is acknowledged or closed."""
        with self.engine.begin() as connection:
            return read_reviews(connection)

    def excess_reviews(self) -> list[str]:
        """Return the alerts of the oldest decisions beyond `MOST_REVIEWS`."""
        with self.engine.begin() as connection:
            excess = (connection.scalar(select(func.count()).select_from(reviews)) or 0) - MOST_REVIEWS
            oldest = select(reviews.c.alert_id).order_by(reviews.c.at_ms).limit(max(0, excess))
            return list(connection.scalars(oldest))

    def comment(self, alert_id: str, who: str, text: str) -> None:
        """Add a comment to an alert."""
        values = {"alert_id": alert_id, "at_ms": unix_ms(), "who": who, "text": text[:_LONGEST]}
        with self.engine.begin() as connection:
            made = connection.execute(comments.insert().values(values)).inserted_primary_key
            if made is not None:
                connection.execute(delete(comments).where(comments.c.id <= made[0] - MOST_COMMENTS))

    def read_comments(self, alert_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the comments on each of these alerts, oldest first."""
        found: dict[str, list[dict[str, Any]]] = {alert_id: [] for alert_id in alert_ids}
        with self.engine.begin() as connection:
            for some in batched(alert_ids):
                query = select(comments).where(comments.c.alert_id.in_(some)).order_by(comments.c.id)
                for row in connection.execute(query).mappings():
                    found[row["alert_id"]].append(dict(row))
        return found

    # Removed cameras

    def forget(self, *cameras: str) -> int:
        """Store that these cameras were removed. Return the Unix time of it."""
        at_ms = unix_ms()
        with self.engine.begin() as connection:
            for camera in cameras:
                connection.execute(insert_or_replace(self.engine, forgotten).values(camera=camera, at_ms=at_ms))
        return at_ms

    def removed_cameras(self) -> dict[str, int]:
        """Return the removed cameras, each with its Unix time.

        A time after the present was written before the clock was set back. It is set to the present, so that the camera
        appears when it sends again.
        """
        now_ms = unix_ms()
        with self.engine.begin() as connection:
            connection.execute(update(forgotten).where(forgotten.c.at_ms > now_ms).values(at_ms=now_ms))
            return {row.camera: row.at_ms for row in connection.execute(select(forgotten))}


def _newest_first(lines: list[Operation]) -> list[Operation]:
    return sorted(lines, key=lambda each: each.at_ms, reverse=True)


def _rename_lessons(connection: Connection) -> None:
    """Give the table of labelled frames its name, if it has the one of release 0.1.0."""
    found = inspect(connection)
    if found.has_table("console_lessons") and not found.has_table("console_labelled_frames"):
        connection.exec_driver_sql("ALTER TABLE console_lessons RENAME TO console_labelled_frames")


def _add_sites(connection: Connection) -> None:
    """Add the sites to an audit log of an earlier release, from the subjects that are cameras."""
    found = inspect(connection)
    if not found.has_table(operations.name) or "site" in {each["name"] for each in found.get_columns(operations.name)}:
        return
    subject, site = operations.c.subject, "site TEXT DEFAULT '' NOT NULL"
    if connection.dialect.name == "postgresql":  # another console may add the column at the same time
        connection.exec_driver_sql(f"ALTER TABLE console_operations ADD COLUMN IF NOT EXISTS {site}")
        found_site = func.split_part(subject, "/", 1)
    else:
        connection.exec_driver_sql(f"ALTER TABLE console_operations ADD COLUMN {site}")
        found_site = func.substr(subject, 1, func.instr(subject, "/") - 1)
    named = subject.regexp_match(f"^{SITE_NAME.pattern}/")
    connection.execute(update(operations).where(named).values(site=found_site))
