"""`pointillist camera forget`: removal of a decommissioned camera from the lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.access import DEFAULT_STATE, existing_layout
from infra.cli.audit_line import note
from infra.cli.camera import camera_app
from schemas.errors import ConfigError


@camera_app.command()
def forget(
    name: Annotated[
        str,
        typer.Argument(help="The camera as SITE/CAMERA, or CAMERA of the site `local`.", metavar="SITE/CAMERA"),
    ],
    state: Annotated[Path, typer.Option(help="State folder of the system, running or not.")] = DEFAULT_STATE,
) -> None:
    """Remove a camera that no longer sends from the console, `status` and `cameras`, until it sends again.

    Its frames, alerts and key stay: `pointillist revoke` revokes the key. Exit status 2 if `up` runs the camera,
    or if it may still send: it must be offline or silent, or be refused, ended, revoked or in alert and have sent no
    frame for ten seconds.
    """
    from consumers.cameras.state import GONE, State
    from consumers.settings import SILENT_AFTER_S
    from infra.state_folder.console_database import opened_console_database
    from infra.up.system_state import known_camera, run_cameras
    from schemas.identity import camera_at

    layout, identity = existing_layout(state), camera_at(name)
    if identity in run_cameras(layout):
        listed = layout.cameras_file
        raise ConfigError(
            f"{identity}: expected a camera that `up` does not run itself, got one of {listed or layout.scenario}. "
            f"{'Remove it there.' if listed else 'Start `pointillist up` without it.'}"
        )
    found = known_camera(layout, identity)
    sends = found.age_s is not None and found.age_s <= SILENT_AFTER_S
    if found.state not in GONE or (sends and found.state not in (State.OFFLINE, State.SILENT)):
        raise ConfigError(f"{identity}: expected a camera that is gone, got one that is {found.state}. Stop it first.")
    with opened_console_database(layout.console_store) as store:
        store.forget(identity)
    note(layout.folder, "forget", identity, "by the command line", "done")
    typer.echo(f"{identity} is forgotten until it sends again")
