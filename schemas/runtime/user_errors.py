"""Commands that end in one line if the user can correct the error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from schemas.errors import StateError, UserError
from schemas.runtime.disk import is_full


@contextmanager
def file_errors() -> Iterator[None]:
    """Raise StateError that names the file in place of an OSError about a file, or about a full disk.

    The errors of a running role stay as they are: one that ends the role keeps its trace in the role's log.
    """
    try:
        yield
    except OSError as error:
        import structlog

        if structlog.is_configured() or (error.filename is None and not is_full(error)):
            raise
        place = "disk" if error.filename is None else error.filename
        raise StateError(
            f"{place}: expected a place that this user can read and write, got {error.strerror}. Correct the path, "
            "its rights or its disk."
        ) from None


def run_command(main: Callable[[], object]) -> None:
    """Run `main`, the command of a module. A UserError or an error about a file ends the process by its message."""
    try:
        with file_errors():
            main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
