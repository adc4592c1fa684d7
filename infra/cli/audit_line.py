"""Lines of the console's audit log for actions by the command line."""

from __future__ import annotations

from pathlib import Path

import typer


def note(state: Path | None, what: str, subject: str, detail: str, outcome: str, *, existing_log: bool = False) -> None:
    """Write a line of the audit log under the name of the user who runs this command, if there is a state folder.

    The log is in the console's own database of the last `up` on that folder. With `existing_log`, write the line only
    if that database exists: the command creates no file. The action is done by then, so a line that cannot be written
    is a warning.
    """
    if state is None:
        return
    from consumers.console.access.owner import owner_name
    from infra.state_folder import Layout
    from infra.state_folder.console_database import opened_console_database

    try:
        url = Layout(state.resolve()).console_store
        if existing_log and _is_missing(url):
            return
        with opened_console_database(url) as store:
            store.note(owner_name(), what, subject, detail, outcome)
    except Exception as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        typer.echo(f"warning: audit log: expected a new line on this change, got {why}", err=True)


def _is_missing(url: str) -> bool:
    """Return whether the URL is that of a SQLite file that does not exist."""
    from consumers.database.engine import database_url
    from infra.settings.variable import PREFIX

    if url.startswith(PREFIX):
        return False
    found = database_url(url)
    return found.get_backend_name() == "sqlite" and not Path(found.database or "").is_file()
