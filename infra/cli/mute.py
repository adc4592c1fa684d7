"""`pointillist mute`: no notifications for a camera or an alert until a time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from infra.cli.access import DEFAULT_STATE, existing_layout
from infra.cli.audit_line import note
from schemas.clock import unix_ms
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection


@app.command()
def mute(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            help="Cameras as SITE/CAMERA, or CAMERA of the site `local`, and ids of alerts. Without any, the mutes "
            "are listed.",
            metavar="[CAMERA|ALERT]...",
        ),
    ] = None,
    length: Annotated[
        str, typer.Option("--for", help="Duration of the mute, such as 30m, 2h or 1d; at most 30d.", metavar="LENGTH")
    ] = "1h",
    reason: Annotated[str, typer.Option(help="Reason, shown with the mute. Required to mute.")] = "",
    end: Annotated[bool, typer.Option("--end", help="End the mutes of these cameras and alerts now.")] = False,
    state: Annotated[Path, typer.Option(help="State folder of the system, running or not.")] = DEFAULT_STATE,
) -> None:
    """Mute cameras or alerts for a time: nobody is notified, and the console does not count them.

    A mute ends by itself. Evidence, alerts and frames are recorded as before. The audit log keeps each mute and its
    author.
    """
    from consumers.console.access.owner import owner_name
    from consumers.database.changes import change_recorded
    from consumers.database.mutes import ALERT_ID, end_mute, new_mute, read_mutes, save_mute
    from infra.up.system_state import known_camera
    from schemas.identity import camera_at

    layout, now_ms = existing_layout(state), unix_ms()
    if not subjects:
        if end:
            raise ConfigError("--end: expected cameras or alerts whose mutes are ended, got none. Name them.")
        for each in change_recorded(layout.database_url, lambda found: read_mutes(found, now_ms)).values():
            until = datetime.fromtimestamp(each.until_ms / 1000).astimezone().isoformat(" ", "minutes")
            typer.echo(f"{each.subject} until {until}, by {each.who}: {each.reason}")
        return
    named: list[str] = []
    for subject in subjects:
        if not ALERT_ID.fullmatch(subject):
            subject = camera_at(subject)
            if not end:
                known_camera(layout, subject)
        named.append(subject)
    made = [] if end else [new_mute(each, length, reason, owner_name(), now_ms) for each in named]

    def change(connection: Connection) -> None:
        for each in made:
            save_mute(connection, each)
        for subject in named if end else ():
            end_mute(connection, subject)

    change_recorded(layout.database_url, change)
    for subject in named:
        note(layout.folder, "mute", subject, "ended" if end else f"{length}: {reason}", "done")
        typer.echo(f"{subject} is no longer muted" if end else f"{subject} is muted for {length}")
