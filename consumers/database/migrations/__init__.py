"""Migrations of the recorder's database, from release 0.1.0 on: one Alembic revision for each version.

A new database is made from `consumers.database.tables` with the newest version. The recorder upgrades an older one when
it starts, in one transaction. Readers never change a database.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, delete, insert, inspect, select

from consumers.database.damage import UNREADABLE, is_damaged, reason
from consumers.database.engine import open_engine
from consumers.database.tables import SCHEMA_VERSION, metadata, tallies, versions
from schemas.errors import StateError

if TYPE_CHECKING:
    from alembic.script import Script

FIRST: Final = 3
"""Version of release 0.1.0."""
VERSION_TALLY: Final = "schema_version"
"""Name of the tally with the version. Release 0.1.0 reads it alone, and takes a database without it for its own."""


def read_version(connection: Connection) -> int | None:
    """Return the version of the tables; None for a database without a version."""
    found = inspect(connection)
    if found.has_table(versions.name):
        row = connection.scalar(select(versions.c.version_num))
    elif found.has_table(tallies.name):
        row = connection.scalar(select(tallies.c.value).where(tallies.c.name == VERSION_TALLY))
    else:
        row = None
    return None if row is None else int(row)


def check_version(connection: Connection) -> int | None:
    """Return the version of the tables, None without one.

    Raises `StateError` for tables of another version, whose columns may differ.
    """
    version = read_version(connection)
    if version is not None and FIRST <= version < SCHEMA_VERSION:
        raise StateError(
            f"the database: expected version {SCHEMA_VERSION}, got {version}. Start the recorder of this release: "
            "it upgrades the database."
        )
    if version is not None and version != SCHEMA_VERSION:
        raise of_another_version(SCHEMA_VERSION, version)
    return version


def of_another_version(expected: int, found: int, what: str = "a database", option: str = "--database") -> StateError:
    """Return the error for tables of version `found`, with a remedy.

    `option` is the option that sets the location of `what`.
    """
    release = "an earlier" if found < expected else "a later"
    return StateError(
        f"expected {what} of version {expected}, got version {found}, which {release} release has made: go on with "
        f"that release, or start again with another {option}, or another --state; the old one stays as it is"
    )


def prepare_tables(connection: Connection) -> None:
    """Create the tables, or upgrade those of an earlier release.

    Raises `StateError` for tables of a later release, or from before 0.1.0. They stay as they are.
    """
    found = read_version(connection)
    if found is None:
        metadata.create_all(connection)
        _set_version(connection)
    elif not FIRST <= found <= SCHEMA_VERSION:
        raise of_another_version(SCHEMA_VERSION, found)
    elif found < SCHEMA_VERSION:
        _upgrade(connection, found)


def upgrade_database(url: str) -> None:
    """Upgrade the database at `url` where no recorder runs. Nothing happens if it is damaged, or has no version.

    Raises `StateError` for tables of a later release or from before 0.1.0, and if the upgrade fails.
    """
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            if read_version(connection) is not None:
                prepare_tables(connection)
    except UNREADABLE as error:
        # The recorder sets a damaged file aside.
        if not is_damaged(error):
            raise StateError(
                f"the database: expected an upgrade to version {SCHEMA_VERSION}, got an error: {reason(error)}. It "
                "stays as it is. Remove the cause and start again."
            ) from None
    finally:
        engine.dispose()


def _upgrade(connection: Connection, found: int) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with Operations.context(MigrationContext.configure(connection)):
        for revision in _revisions(found):
            revision.module.upgrade()
    if not inspect(connection).has_table(versions.name):
        versions.create(connection)
    _set_version(connection)


def _revisions(found: int) -> Iterator[Script]:
    """Yield the revisions after version `found`, the oldest first."""
    # Only an upgrade needs Alembic, which takes a while to load.
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    yield from reversed(list(script.iterate_revisions("head", str(found))))


def _set_version(connection: Connection) -> None:
    connection.execute(delete(versions))
    connection.execute(insert(versions).values(version_num=str(SCHEMA_VERSION)))
    connection.execute(delete(tallies).where(tallies.c.name == VERSION_TALLY))
    connection.execute(insert(tallies).values(name=VERSION_TALLY, value=SCHEMA_VERSION))
