"""The files of users and tokens, by option or in the state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.access import DEFAULT_STATE, existing_layout

State = Annotated[
    Path | None,
    typer.Option(help="State folder of the system, running or not. Default: .pointillist, unless --file is given."),
]


def login_file(file: Path | None, state: Path | None, name: str, *, new: bool = False) -> tuple[Path, Path | None]:
    """Return the given file, or the file `name` of the state folder; and the folder whose audit log has the changes.

    A file alone has no such folder. With `new`, the given folder may be missing: the command makes it, which a line on
    stderr announces. Raises StateError for another folder that is missing.
    """
    from infra.state_folder import Layout, check_named

    if file is not None:
        check_named(file)
    if state is None:
        state = existing_layout(DEFAULT_STATE).folder if file is None else None
    elif new and not state.exists():
        typer.echo(f"{state}: the state folder is new. Give it to `pointillist up` too, or correct the path.", err=True)
    else:
        existing_layout(state)
    layout = Layout((state or Path()).resolve())
    return file or (layout.users if name == "users" else layout.tokens), state
