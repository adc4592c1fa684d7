"""The console's own database, opened by a command in another process than the console's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from consumers.console.data.store import Store
from consumers.database.damage import reason
from consumers.database.engine import database_url
from infra.settings.variable import PREFIX
from schemas.errors import ConfigError, StateError


@contextmanager
def opened_console_database(url: str) -> Iterator[Store]:
    """Provide the console's own database with its tables, which is closed when the block ends.

    Raises ConfigError for an unusable URL, and StateError if the database does not answer, also in the block. The
    messages hold no password.
    """
    if url.startswith(PREFIX):
        raise ConfigError(
            f"the console's database: expected its URL in the variable {url.removeprefix(PREFIX)}, got no such "
            "variable. Set it as for the console."
        )
    try:
        with Store.opened(url) as store:
            yield store
    except SQLAlchemyError as error:
        # The text of other errors than the driver's repeats statements with their values.
        why = reason(error)[:200].rstrip(".") if isinstance(error, DBAPIError) else type(error).__name__
        raise StateError(
            f"the console's database {_place(url)}: expected a response, got {why}. Start the database, or correct "
            "its URL."
        ) from None


def _place(text: str) -> str:
    """Return a database's place without the user, the password and the parameters."""
    url = database_url(text)
    host = f"{url.host or 'localhost'}:{url.port or 5432}/"
    return f"{'' if url.get_backend_name() == 'sqlite' else host}{url.database or ''}"
