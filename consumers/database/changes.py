"""Changes by people of the recorder's database, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from consumers.database.engine import open_engine
from consumers.database.migrations import check_version
from schemas.errors import StateError

T = TypeVar("T")


def change_recorded(url: str, change: Callable[[Connection], T]) -> T:
    """Run `change` in a transaction of its own on the recorder's database at `url`.

    Raises StateError if the database is absent, has tables of another version, or accepts no change.
    """
    open_engine(url, writes=False).dispose()  # never creates the recorder's file
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            check_version(connection)
            return change(connection)
    except SQLAlchemyError as error:
        raise StateError(
            f"the recorder's database: expected it to accept the change, got {type(error).__name__}. Try again."
        ) from None
    finally:
        engine.dispose()
