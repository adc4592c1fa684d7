"""`pointillist key`: issue cameras' keys from the fleet secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from schemas.errors import ConfigError


@app.command()
def key(
    camera: Annotated[str | None, typer.Argument(help="The camera as SITE/CAMERA.", metavar="SITE/CAMERA")] = None,
    generation: Annotated[
        int, typer.Option(help="Key generation; raise it after a key was stolen.", min=0, max=65535)
    ] = 0,
    scenario: Annotated[Path | None, typer.Option(help="Issue the keys of all cameras of a scenario.")] = None,
    state: Annotated[Path | None, typer.Option(help="State folder: its fleet secret, and keys/ in it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the key to a file that only you can read.")] = None,
) -> None:
    """Print the key of one camera: give it to that device and to nobody else.

    The fleet secret is the one of --state, else POINTILLIST_FLEET_SECRET or POINTILLIST_FLEET_SECRET_FILE.
    """
    from infra.environment import Environment, fleet_secret
    from infra.layout import Layout, write_private
    from schemas.identity import camera_id
    from schemas.keys import derive_camera_key

    layout = Layout(state.resolve()) if state is not None else None
    has_secret = layout is not None and layout.secret_file.is_file()
    secret = layout.fleet_secret() if layout is not None and has_secret else fleet_secret(Environment())
    if scenario is not None:
        from producers.scenario import load_scenario

        if layout is None:
            raise ConfigError("expected --state DIR beside --scenario: the keys go to its folder keys/")
        for planned in load_scenario(scenario).cameras():
            layout.issue_key(planned.camera_id, generation, secret)
        return
    if camera is None:
        raise ConfigError("expected SITE/CAMERA, or --scenario FILE")
    text = derive_camera_key(secret, camera_id(camera), generation).export()
    if out is None:
        typer.echo(text)
    else:
        try:
            write_private(out, text)
        except OSError as error:
            raise ConfigError(f"--out: cannot write {out}: {error.strerror}") from None
