"""`pointillist key`: issue cameras' keys and roles' secrets from the fleet secret."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from schemas.keys.roots import Role


@app.command()
def key(
    camera: Annotated[str | None, typer.Argument(help="The camera as SITE/CAMERA.", metavar="SITE/CAMERA")] = None,
    generation: Annotated[
        int, typer.Option(help="Key generation; raise it after a key was stolen.", min=0, max=65535)
    ] = 0,
    role: Annotated[
        str | None,
        typer.Option(help="Print the secret of a role: bridge, processor, recorder, auditor, operator or console."),
    ] = None,
    roles: Annotated[
        Path | None,
        typer.Option(
            help="Write the secrets of bridge, processor, recorder, auditor and console to DIR/ROLE/role.secret."
        ),
    ] = None,
    scenario: Annotated[Path | None, typer.Option(help="Issue the keys of all cameras of a scenario.")] = None,
    state: Annotated[Path | None, typer.Option(help="State folder with the fleet secret and the folder keys.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the key to a file that only you can read.")] = None,
) -> None:
    """Print the key of one camera, or the secret of one role: give it to that device or role and to nobody else.

    The fleet secret is that of --state, else POINTILLIST_FLEET_SECRET or POINTILLIST_FLEET_SECRET_FILE.
    """
    from infra.state_folder import Layout, issue_role_secrets, write_private
    from infra.state_folder.environment import Environment, fleet_secret
    from schemas.identity import camera_id
    from schemas.keys.keys import derive_camera_key
    from schemas.keys.roots import Roots

    in_bulk = scenario is not None or roles is not None
    if in_bulk and (camera is not None or role is not None):
        raise ConfigError(
            "key: expected SITE/CAMERA or --role without --scenario and --roles, got both. Make two calls."
        )
    if not in_bulk and (camera is None) == (role is None):
        raise ConfigError("key: expected SITE/CAMERA, --role, --roles or --scenario, got none. Give one of them.")
    layout = Layout(state.resolve()) if state is not None else None
    has_secret = layout is not None and layout.secret_file.is_file()
    secret = layout.fleet_secret() if layout is not None and has_secret else fleet_secret(Environment())
    if roles is not None:
        issue_role_secrets(roles, secret)
    if scenario is not None:
        from producers.simulation.scenario import load_scenario

        if layout is None:
            raise ConfigError(
                "--state is missing: the keys of --scenario are written to its folder keys/. Give --state DIR."
            )
        for planned in load_scenario(scenario).cameras():
            layout.issue_key(planned.camera_id, generation, secret)
    if in_bulk:
        return
    if camera is not None:
        text = derive_camera_key(secret, camera_id(camera), generation).export()
    else:
        text = Roots.of_fleet(secret).of(_role(role)).export()
    if out is None:
        typer.echo(text)
    else:
        try:
            write_private(out, text)
        except OSError as error:
            raise ConfigError(
                f"--out: expected a writable file, got {out}: {error.strerror}. Choose another file."
            ) from None


def _role(name: str | None) -> Role:
    from schemas.keys.roots import Role

    try:
        return Role(name or "")
    except ValueError:
        raise ConfigError(f"--role: expected one of {', '.join(Role)}, got {name!r}. Correct it.") from None
