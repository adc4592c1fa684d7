"""`pointillist ca`, `enroll` and `revoke`: who takes part in a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from schemas.errors import ConfigError, StateError
from schemas.runtime.access import AUTHORITY_FILE

ca_app = typer.Typer(help="The fleet's own certificate authority, in the folder pki of --state.", no_args_is_help=True)
app.add_typer(ca_app, name="ca")

State = Annotated[Path, typer.Option(help="State folder: the fleet's authority and secret.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A name or address by which brokers are reached, besides localhost; can be repeated."),
]


@ca_app.command("init")
def init(
    state: State = Path(".pointillist"),
    host: Hosts = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep an authority that is there, and issue what is missing or ends soon.")
    ] = False,
    scenario: Annotated[Path | None, typer.Option(help="Enrol all cameras of a scenario too, for `fleet`.")] = None,
    group_reads: Annotated[
        bool,
        typer.Option("--group-reads", help="Let the group read the keys of brokers and servers: for containers."),
    ] = False,
) -> None:
    """Make the authority, the certificates of brokers and roles, the brokers' rights, and a fleet secret.

    The fleet secret is POINTILLIST_FLEET_SECRET(_FILE) where that is set. Each role is given its own folder of
    pki/roles and no other's; ca.key stays where it is.
    """
    from infra.environment import Environment, fleet_secret
    from infra.layout import Layout
    from infra.local.files import write_json
    from infra.pki.authority import LOCAL_HOSTS, Authority, general_name
    from infra.pki.roles import CLIENTS, SERVERS, Roles, share_name
    from infra.up.identities import enrol_missing
    from producers.scenario import load_scenario

    hosts = (*LOCAL_HOSTS, *(host or ()))
    for each in hosts:
        general_name(each)
    planned = load_scenario(scenario).cameras() if scenario is not None else []
    layout = Layout(state.resolve())
    environment = Environment()
    given = environment.fleet_secret is not None or environment.fleet_secret_file is not None
    secret = fleet_secret(environment) if given else None
    there = keep and (layout.pki / AUTHORITY_FILE).exists()
    authority = Authority(layout.pki) if there else Authority.create(layout.pki)
    if secret is not None and layout.secret_file.is_file() and layout.fleet_secret() != secret:
        raise StateError(f"expected the fleet secret of {layout.secret_file} in the environment, got another")
    layout.fleet_secret(secret)
    if not layout.generations.is_file():
        write_json(layout.generations, {})
    share_name(layout.pki)
    roles = Roles(authority)
    roles.ensure((*SERVERS, *CLIENTS), hosts)
    for camera in planned:
        layout.issue_key(camera.camera_id)
    enrol_missing(layout, authority, [camera.camera_id for camera in planned])
    if group_reads:
        roles.let_group_read((*SERVERS, "health"))
    typer.echo(f"{authority.fleet} in {layout.pki}")


@ca_app.command("role")
def role(
    name: Annotated[str, typer.Argument(help="A role, with -NUMBER behind it where there are several: bridge-2.")],
    state: State = Path(".pointillist"),
    host: Hosts = None,
) -> None:
    """Issue the certificate of one more instance of a role, or renew it."""
    from infra.layout import Layout
    from infra.pki.authority import LOCAL_HOSTS, Authority
    from infra.pki.roles import Roles
    from infra.revocation import reload_broker

    layout = Layout(state.resolve())
    roles = Roles(Authority(layout.pki))
    roles.issue(name, (*LOCAL_HOSTS, *(host or ())))
    roles.write_rights()
    reload_broker(layout)
    typer.echo(str(roles.folder(name)))


@app.command()
def enroll(
    camera: Annotated[str, typer.Argument(help="The camera as SITE/CAMERA.", metavar="SITE/CAMERA")],
    out: Annotated[Path, typer.Option(help="The file for the camera's device, which only you can read.")],
    state: State = Path(".pointillist"),
    mqtt: Annotated[
        str | None, typer.Option(help="The broker as the device reaches it, host:port; else as it runs here.")
    ] = None,
    days: Annotated[float, typer.Option(help="How long its certificate holds.", min=0.001)] = 825,
) -> None:
    """Write all that one camera needs to join the fleet: its key, its certificate, the authority, the broker's place.

    A camera that was revoked is let in again, by this enrolment alone.
    """
    from infra.environment import accepted_generations
    from infra.layout import Layout
    from infra.local.role_table import read_roles
    from infra.pki.authority import Authority
    from infra.pki.enrolment import enroll as write
    from infra.pki.refusals import readmit
    from infra.pki.roles import Roles
    from infra.revocation import reload_broker
    from infra.role import address
    from schemas.identity import camera_id
    from schemas.keys import derive_camera_key

    identity = camera_id(camera)
    layout = Layout(state.resolve())
    authority = Authority(layout.pki)
    if not layout.secret_file.is_file():
        raise StateError(f"expected the fleet secret in {layout.secret_file}, there is none")
    if mqtt is not None:
        address(mqtt)
    elif (layout.folder / "roles.json").is_file():
        mqtt = read_roles(layout.folder).get("mosquitto", {}).get("listen")
    generations = accepted_generations(layout.generations if layout.generations.is_file() else None)
    key = derive_camera_key(layout.fleet_secret(), identity, generations.get(identity, 0))
    try:
        write(authority, key, out, mqtt, days)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror}") from None
    readmit(layout.pki, [identity])
    Roles(authority).write_rights()
    reload_broker(layout)


@app.command()
def revoke(
    camera: Annotated[str, typer.Argument(help="The camera as SITE/CAMERA.", metavar="SITE/CAMERA")],
    state: State = Path(".pointillist"),
    within: Annotated[float, typer.Option(help="Seconds that a running broker may take.", min=0.1)] = 5.0,
) -> None:
    """Let nobody speak as this camera any more: its certificates, its rights and its keys count no more, at once.

    Where the broker is not this state folder's: give it crl.pem and mosquitto.acl of pki/roles/mosquitto, and send it
    SIGHUP; bridges, processors and recorders read generations.json by themselves. `enroll` lets the camera in again.
    """
    from infra.layout import Layout
    from infra.revocation import revoke as run
    from schemas.identity import camera_id

    identity = camera_id(camera)
    layout = Layout(state.resolve())
    done = run(layout, identity, within)
    where = f"{done.broker} refuses it" if done.broker else f"no broker runs here: see {layout.pki}/roles/mosquitto"
    keys = f"keys accepted from generation {done.generation} on"
    typer.echo(f"{identity}: {done.certificates} certificates revoked, {keys}; {where}")
