"""`pointillist ca`, `enroll` and `revoke`: the members of a fleet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from infra.cli.access import DEFAULT_STATE, existing_layout
from infra.cli.audit_line import note
from infra.pki.validity import CERTIFICATE_DAYS
from schemas.errors import ConfigError, StateError
from schemas.transport.access import AUTHORITY_FILE

if TYPE_CHECKING:
    from infra.state_folder import Layout

ca_app = typer.Typer(help="The fleet's own certificate authority, in the folder pki of --state.", no_args_is_help=True)
app.add_typer(ca_app, name="ca")

State = Annotated[Path, typer.Option(help="State folder with the fleet's authority and secret.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="Name or address of all servers, in addition to localhost; or SERVER=NAME for one of them, which then "
        "loses names that are not given.",
    ),
]


LONGEST_DAYS = 7300.0
KeptDays = Annotated[
    float | None,
    typer.Option(
        help="Validity of a client role's certificate, in days. Default: as its former certificate, else as the "
        "certificate of the role's first instance, else 14.",
        min=0.001,
        max=LONGEST_DAYS,
    ),
]


@ca_app.command("init")
def init(
    state: State = DEFAULT_STATE,
    host: Hosts = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep an existing authority, and only issue certificates that are missing or expire soon."
        ),
    ] = False,
    scenario: Annotated[Path | None, typer.Option(help="Scenario whose cameras are enrolled too, for `fleet`.")] = None,
    group_reads: Annotated[
        bool,
        typer.Option(
            "--group-reads", help="Let the group read the keys of brokers and servers, as containers require."
        ),
    ] = False,
    days: KeptDays = None,
) -> None:
    """Make the authority, the certificates of brokers and roles, the brokers' rights, and a fleet secret.

    The fleet secret is POINTILLIST_FLEET_SECRET(_FILE) if that is set. Each role gets its own folder of pki/roles and
    no other; ca.key stays in pki. `ca renew` renews the certificates before they end.
    """
    from infra.pki.authority import Authority
    from infra.pki.enrolment import enrol_missing
    from infra.pki.roles import CLIENTS, SERVERS, Roles, share_name
    from infra.state_folder import Layout
    from infra.state_folder.environment import Environment, fleet_secret
    from infra.state_folder.identity_lock import changing_identities
    from infra.up.identities import issue_camera_keys
    from producers.simulation.scenario import load_scenario

    hosts, own_hosts = _hosts(host, SERVERS)
    planned = load_scenario(scenario).cameras() if scenario is not None else []
    cameras = [camera.camera_id for camera in planned]
    layout = existing_layout(state) if state.is_dir() else Layout(state.resolve())
    environment = Environment()
    given = environment.fleet_secret is not None or environment.fleet_secret_file is not None
    secret = fleet_secret(environment) if given else None
    with changing_identities(layout.folder):
        there = keep and (layout.pki / AUTHORITY_FILE).exists()
        authority = Authority(layout.pki) if there else Authority.create(layout.pki)
        if secret is not None and layout.secret_file.is_file() and layout.fleet_secret() != secret:
            raise StateError(
                f"POINTILLIST_FLEET_SECRET: expected the fleet secret of {layout.secret_file}, got another. "
                "Remove the variable, or correct it."
            )
        layout.fleet_secret(secret)
        issue_camera_keys(layout, cameras)
        share_name(layout.pki)
        roles = Roles(authority)
        roles.ensure([name for name in (*SERVERS, *CLIENTS) if name not in own_hosts], hosts, days)
        for server, names in own_hosts.items():
            roles.ensure([server], names, days, keep_hosts=False)
        enrol_missing(layout, authority, cameras)
        if group_reads:
            roles.let_group_read((*SERVERS, "health"))
    typer.echo(f"{authority.fleet} in {layout.pki}")
    note(state, "ca init", "authority", authority.fleet, "kept" if there else "made", existing_log=True)


@ca_app.command("role")
def role(
    name: Annotated[
        str, typer.Argument(help="The role, followed by -NUMBER for a further instance, such as bridge-2.")
    ],
    state: State = DEFAULT_STATE,
    host: Hosts = None,
    days: KeptDays = None,
) -> None:
    """Issue the certificate of a further instance of a role, or renew it.

    A server keeps its names and addresses, unless --host gives them as SERVER=NAME.
    """
    from infra.admission.camera_revocation import reload_broker
    from infra.pki.authority import Authority
    from infra.pki.roles import Roles
    from infra.state_folder.identity_lock import changing_identities

    hosts, own_hosts = _hosts(host, (name,))
    layout = existing_layout(state)
    with changing_identities(layout.folder):
        roles = Roles(Authority(layout.pki))
        roles.issue(name, own_hosts.get(name, hosts), days, keep_hosts=name not in own_hosts)
        roles.write_rights()
    reload_broker(layout)
    typer.echo(str(roles.folder(name)))
    note(state, "ca role", name, "a new certificate", "issued", existing_log=True)


def _hosts(given: list[str] | None, servers: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the names and addresses of all servers, and of each server that is named, with those of this machine.

    Raises ConfigError.
    """
    from infra.pki.authority import LOCAL_HOSTS, check_host

    shared: tuple[str, ...] = LOCAL_HOSTS
    own: dict[str, tuple[str, ...]] = {}
    for text in given or ():
        server, equals, host = text.rpartition("=")
        check_host(host)
        if not equals:
            shared = (*shared, host)
        elif server in servers:
            own[server] = (*own.get(server, ()), host)
        else:
            raise ConfigError(f"--host: expected {', '.join(servers)} before =, got {server!r}. Correct it.")
    return shared, {server: (*shared, *hosts) for server, hosts in own.items()}


@ca_app.command("renew")
def renew(
    state: State = DEFAULT_STATE,
    days: KeptDays = None,
    every: Annotated[float, typer.Option(help="Hours between two renewals; 0 renews once.", min=0, max=8760)] = 0.0,
) -> None:
    """Renew the certificates of roles that are past half of their life, each in its folder of pki/roles.

    Running roles present the new certificate at their next connection, servers at their next start. `up` renews by
    itself.
    """
    import time

    from infra.pki.authority import Authority
    from infra.pki.roles import Roles, restart_note

    layout = existing_layout(state)
    while True:
        renewed = Roles(Authority(layout.pki)).renew(days)
        typer.echo(f"renewed: {', '.join(renewed) or 'none is due'}")
        if line := restart_note(renewed):
            typer.echo(line)
        if renewed:
            note(state, "ca renew", "roles", ", ".join(renewed), "renewed", existing_log=True)
        if not every:
            return
        time.sleep(3600 * every)


_CAMERA = "The camera as SITE/CAMERA, or CAMERA of the site `local`."
Mqtt = Annotated[
    str | None,
    typer.Option(
        help="Broker address host:port as the device reaches it. Default: the address of the running or last `up`."
    ),
]
CameraDays = Annotated[float, typer.Option(help="Validity of the certificate in days.", min=0.001, max=LONGEST_DAYS)]
Within = Annotated[
    float, typer.Option(help="Seconds within which a running broker must apply the revocation.", min=0.1)
]


@app.command()
def enroll(
    camera: Annotated[str, typer.Argument(help=_CAMERA, metavar="SITE/CAMERA")],
    out: Annotated[
        Path, typer.Option(help="Enrolment file to write, for the camera's device. Only your user can read it.")
    ],
    state: State = DEFAULT_STATE,
    mqtt: Mqtt = None,
    days: CameraDays = CERTIFICATE_DAYS,
) -> None:
    """Write a camera's enrolment, with which it joins the fleet: key, certificate, authority and broker address.

    Only a new enrolment admits a revoked camera again.
    """
    from infra.admission.cameras import admit
    from infra.cameras.identity import simulator_network_note
    from schemas.identity import camera_at

    identity, layout = camera_at(camera), existing_layout(state)
    admit(layout, identity, out, mqtt, days)
    _note_without_broker(layout, out, mqtt)
    if line := simulator_network_note(state):
        typer.echo(line, err=True)
    note(state, "enroll", identity, f"a certificate of {days:g} days", "done")


def _note_without_broker(layout: Layout, out: Path, mqtt: str | None) -> None:
    """Write a line to stderr if the enrolment `out` has no broker address."""
    from infra.up.listener import listener_for_devices

    if listener_for_devices(layout, mqtt) is None:
        typer.echo(f"{out}: the broker address is missing. Give --mqtt HOST:PORT, here or on the device.", err=True)


@app.command()
def rotate(
    camera: Annotated[str, typer.Argument(help=_CAMERA, metavar="SITE/CAMERA")],
    out: Annotated[
        Path, typer.Option(help="Enrolment file to write, for the camera's device. Only your user can read it.")
    ],
    state: State = DEFAULT_STATE,
    mqtt: Mqtt = None,
    days: CameraDays = CERTIFICATE_DAYS,
    within: Within = 5.0,
) -> None:
    """Rotate a camera's key: revoke its key and certificate, and write a new enrolment.

    Give the file to the device and restart the camera there. It then sheds the frames that its spool holds under
    the old key.
    """
    from infra.admission.cameras import rotate as run
    from infra.cameras.identity import require_known
    from schemas.identity import camera_at

    identity, layout = camera_at(camera), existing_layout(state)
    require_known(identity, layout, "Correct the name, or run `pointillist enroll` for a new camera.")
    generation = run(layout, identity, out, mqtt, days, within)
    _note_without_broker(layout, out, mqtt)
    note(state, "rotate", identity, f"key generation {generation}", "done")
    typer.echo(f"{identity}: key generation {generation}, in {out}; earlier ones are rejected")


@app.command()
def revoke(
    camera: Annotated[str | None, typer.Argument(help=_CAMERA, metavar="SITE/CAMERA", show_default=False)] = None,
    state: State = DEFAULT_STATE,
    within: Within = 5.0,
    role: Annotated[
        str | None,
        typer.Option(
            help="Role, in place of a camera: revoke the certificates of all its instances, and issue new ones."
        ),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Revoke a camera that the state folder does not know: enrolled after the backup that was restored, by "
            "another folder of the same fleet, or with a key of `pointillist key`.",
        ),
    ] = False,
) -> None:
    """Revoke a camera's certificates, rights and keys, or a role's certificates, at once.

    If the broker does not run from this state folder, copy to it crl.pem and mosquitto.acl of pki/roles/mosquitto, and
    send it SIGHUP. Bridges, processors, recorders and the console read generations.json by themselves. `enroll` admits
    the camera again; `rotate` revokes and admits it in one step. Under `up`, a revoked role continues with its new
    certificate.
    """
    if (camera is None) == (role is None):
        raise ConfigError("revoke: expected SITE/CAMERA or --role NAME, got both or none. Give one of them.")
    if camera is None:
        _revoke_role(role or "", state, within)
        return
    from infra.admission.camera_revocation import revoke as run
    from infra.cameras.identity import require_known
    from schemas.identity import camera_at

    identity = camera_at(camera)
    layout = existing_layout(state)
    if not unknown:
        require_known(identity, layout, "Correct the name, or give --unknown to revoke it all the same.")
    done = run(layout, identity, within)
    where = f"{done.broker} refuses it" if done.broker else f"no broker runs here: see {layout.pki}/roles/mosquitto"
    keys = f"keys accepted from generation {done.generation} on"
    note(state, "revoke", identity, f"{done.certificates} certificates, {keys}", "done")
    typer.echo(f"{identity}: {done.certificates} certificates revoked, {keys}; {where}")


def _revoke_role(role: str, state: Path, within: float) -> None:
    from infra.admission.role_revocation import revoke_role
    from infra.pki.kafka_rights import SUPER_USERS, super_users
    from infra.pki.role_generations import role_generations

    layout = existing_layout(state)
    done = revoke_role(layout, role, within)
    note(state, "revoke", role, f"certificates of generation {done.generation} for {', '.join(done.names)}", "done")
    typer.echo(f"{role}: new certificates of generation {done.generation} for {', '.join(done.names)}")
    roles = layout.pki / "roles"
    typer.echo(
        f"{done.mqtt} refuses the old ones"
        if done.mqtt
        else f"no MQTT broker runs here: give yours crl.pem of {roles / 'mosquitto'}, and send it SIGHUP"
    )
    if done.kafka:
        typer.echo(f"{done.kafka} refuses the old ones")
    elif role in SUPER_USERS:
        users = super_users(role_generations(layout.pki))
        typer.echo(f"no Kafka runs here: start yours again with super.users={users}")
    else:
        typer.echo(
            "no Kafka runs here: start the role with its new folder, then `pointillist topics --rights --kafka "
            f"HOST:PORT --kafka-tls {shlex.quote(str(roles / 'admin'))}`"
        )
