"""Lines of the console's audit log for actions by the command line."""

from __future__ import annotations

from pathlib import Path

import typer


def note(state: Path | None, what: str, subject: str, detail: str, outcome: str, *, existing_log: bool = False) -> None:
    """Write a line of the audit log in the state folder, if there is one, under the name of the user who runs this
    command.

    With `existing_log`, write it only if the folder has a log already: the command starts none. The action is done by
    then, so a line that cannot be written is a warning.
    """
    from infra.state_folder import Layout

    if state is None or (existing_log and not Layout(state).console_database.is_file()):
        return
    from consumers.console.access.owner import owner_name
    from consumers.console.data.store import Store

    try:
        with Store.opened(Layout(state.resolve()).console_url) as store:
            store.note(owner_name(), what, subject, detail, outcome)
    except Exception as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        typer.echo(f"warning: audit log: expected a new line on this change, got {why}", err=True)
