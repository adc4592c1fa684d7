"""`pointillist key`: issue cameras' keys and roles' secrets from the fleet secret."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from infra.cli.access import existing_layout
from infra.cli.audit_line import note
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from infra.state_folder import Layout
    from schemas.identity import CameraId
    from schemas.keys.roots import Role


@app.command()
def key(
    camera: Annotated[str | None, typer.Argument(help="The camera as SITE/CAMERA.", metavar="SITE/CAMERA")] = None,
    generation: Annotated[
        int | None,
        typer.Option(
            help="Key generation, to be raised after a key was stolen. Default: the accepted generation of "
            "--state, else 0.",
            min=0,
            max=65535,
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(help="Role whose secret is printed: bridge, processor, recorder, auditor, operator or console."),
    ] = None,
    roles: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the secrets of bridge, processor, recorder, auditor and console, each as ROLE/role.secret."
        ),
    ] = None,
    scenario: Annotated[Path | None, typer.Option(help="Scenario: issue the keys of all its cameras.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="State folder with the fleet secret and the folder `keys`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the key, which only your user can read.")] = None,
) -> None:
    """Print the key of one camera, or the secret of one role: give it only to that device or role.

    The fleet secret is read from --state, else from POINTILLIST_FLEET_SECRET or POINTILLIST_FLEET_SECRET_FILE.
    """
    from infra.state_folder import Layout, issue_role_secrets, write_secret, writing
    from infra.state_folder.environment import Environment, fleet_secret
    from schemas.identity import camera_id
    from schemas.keys.keys import derive_camera_key
    from schemas.keys.roots import Roots

    in_bulk = scenario is not None or roles is not None
    if in_bulk and (camera is not None or role is not None):
        raise ConfigError(
            "key: expected SITE/CAMERA or --role, or else --scenario or --roles, got both. Run the command twice."
        )
    if not in_bulk and (camera is None) == (role is None):
        raise ConfigError("key: expected SITE/CAMERA, --role, --roles or --scenario, got none. Give one of them.")
    if generation is not None and camera is None and scenario is None:
        raise ConfigError(
            "--generation: expected only with SITE/CAMERA or --scenario, got it with a role. Remove --generation."
        )
    if state is not None and (not in_bulk or state.is_dir()):
        existing_layout(state)  # a mistyped folder would give a key of another fleet, or of a revoked generation
    layout = Layout(state.resolve()) if state is not None else None
    has_secret = layout is not None and layout.secret_file.is_file()
    secret = layout.fleet_secret() if layout is not None and has_secret else fleet_secret(Environment())
    if roles is not None:
        issue_role_secrets(roles, secret)
        note(state, "key", "roles", f"their secrets in {roles}", "written", existing_log=True)
    if scenario is not None:
        _issue_keys(scenario, layout, generation, secret)
        note(state, "key", "cameras", f"keys of {scenario}", "written", existing_log=True)
    if in_bulk:
        return
    if camera is not None:
        identity = camera_id(camera)
        number = _generations(layout, [identity], generation)[identity]
        text, detail = derive_camera_key(secret, identity, number).export(), f"generation {number}"
    else:
        text, detail = Roots.of_fleet(secret).of(_role(role)).export(), "the role's secret"
    if out is None:
        typer.echo(text)
    else:
        with writing("--out", out):
            write_secret(out, text)
    note(state, "key", camera or role or "", detail, "printed" if out is None else f"in {out}", existing_log=True)


def _issue_keys(scenario: Path, layout: Layout | None, generation: int | None, secret: bytes) -> None:
    """Write the keys of all cameras of a scenario to the state folder. Raises ConfigError without one."""
    from infra.state_folder.identity_lock import changing_identities
    from producers.simulation.scenario import load_scenario

    if layout is None:
        raise ConfigError(
            "--state is missing: the keys of --scenario are written to its folder keys/. Give --state DIR."
        )
    cameras = [planned.camera_id for planned in load_scenario(scenario).cameras()]
    with changing_identities(layout.folder):
        for planned, issued in _generations(layout, cameras, generation).items():
            layout.issue_key(planned, issued, secret)


def _generations(layout: Layout | None, cameras: Sequence[CameraId], asked: int | None) -> dict[CameraId, int]:
    """Return the generation of each camera's key: `asked`, or the lowest that is accepted. ConfigError for less."""
    accepted = layout.accepted_generations() if layout is not None else {}
    found = {}
    for camera in cameras:
        lowest = accepted.get(camera, 0)
        found[camera] = lowest if asked is None else asked
        if found[camera] < lowest:
            raise ConfigError(f"--generation: expected at least {lowest} for {camera}, got {asked}. Leave it out.")
    return found


def _role(name: str | None) -> Role:
    from schemas.keys.roots import Role

    try:
        return Role(name or "")
    except ValueError:
        raise ConfigError(f"--role: expected one of {', '.join(Role)}, got {name!r}. Correct it.") from None
