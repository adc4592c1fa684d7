"""`pointillist camera attach URL`: a real camera joins the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import CONNECT_TIMEOUT_S, ConnectTimeout, Mqtt, MqttLogin, MqttTls, mqtt_place, require_brokers
from infra.cli.camera_source import (
    Clock,
    Grey,
    Hang,
    Hardware,
    Heartbeat,
    Hours,
    Login,
    Loop,
    Motion,
    Opening,
    Privacy,
    Region,
    Rotate,
    Size,
    Zone,
    check_size,
    sending_of,
    source_of,
)
from infra.cli.passwords import resolve
from schemas.errors import ConfigError

camera_app = typer.Typer(help="Real cameras.", no_args_is_help=True)
app.add_typer(camera_app, name="camera")


@camera_app.command()
def attach(
    url: Annotated[str, typer.Argument(help="RTSP or HTTP URL, /dev/video0, or a video file.")],
    name: Annotated[
        str | None,
        typer.Option(help="The camera as SITE/CAMERA, or CAMERA of the site `local`; else as its enrolment says."),
    ] = None,
    enrolment: Annotated[
        Path | None, typer.Option(help="All that this camera needs to join a fleet, as `enroll` wrote it.")
    ] = None,
    mqtt: Mqtt = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    state: Annotated[
        Path | None, typer.Option(help="Join the running system of this state folder; it issues the key.")
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option(help="Folder of the spool; else in the state folder, or with an enrolment in ~/.local/state."),
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames a second to send; 0 = all that come.")] = 0.0,
    drop: Annotated[float, typer.Option("--drop-ratio", help="Share of the pixels that are not sent.")] = 0.25,
    probe_share: Annotated[float, typer.Option(help="Share of frames sent whole, for STRIP.")] = 0.05,
    profile: Annotated[str, typer.Option(help="raw, lossless or video.")] = "raw",
    login: Login = None,
    rotate: Rotate = 0,
    privacy: Privacy = None,
    region: Region = None,
    size: Size = None,
    grey: Grey = False,
    hardware: Hardware = "none",
    clock: Clock = "auto",
    hang: Hang = 10.0,
    opening: Opening = None,
    loop: Loop = False,
    schedule: Hours = None,
    zone: Zone = None,
    motion: Motion = False,
    heartbeat: Heartbeat = None,
    seconds: Annotated[
        float | None, typer.Option(help="End after this time; else when the source ends, or on Ctrl-C.")
    ] = None,
    drain: Annotated[
        float, typer.Option("--drain-s", help="Seconds to wait, after the end, for confirmations.")
    ] = 30.0,
    metrics: Annotated[str | None, typer.Option(help="host:port to serve /metrics and /healthz on.")] = None,
    connect_timeout_s: ConnectTimeout = CONNECT_TIMEOUT_S,
) -> None:
    """Send a camera's pictures, dots only, to the fleet's broker.

    Exit status 2 when the source cannot be opened, 3 when the spool still holds frames at the drain deadline. Exit
    status 4 when frames were refused, for example because they are larger than the processors accept; the reason is
    printed. The key is read from the enrolment, POINTILLIST_CAMERA_KEY, POINTILLIST_CAMERA_KEY_FILE, or the state
    folder given.
    """
    import time

    from infra.cameras.identity import camera_identity, camera_named, resembling
    from infra.cameras.rates import allow_rate
    from infra.process.role import run_role
    from infra.state_folder import Layout
    from infra.up.processes import FLEET_PENDING, FRAMES_REFUSED
    from producers.camera.camera_settings import parse_camera
    from producers.fleet.camera_spec import CameraSpec
    from producers.fleet.real import run_camera
    from producers.sources.trial import try_source

    place = resolve(url)
    if state is not None:
        check_size(size, Layout(state.resolve()).max_frame_pixels)
    identity = camera_named(name, enrolment, state)
    site, _, camera = identity.partition("/")
    source = source_of(
        place, login=login, hang=hang, opening=opening, hardware=hardware, clock=clock, rotate=rotate, privacy=privacy,
        region=region, size=size, grey=grey, loop=loop,
    )  # fmt: skip
    settings = {
        "name": camera,
        "source": source,
        "fps": fps,
        "drop_ratio": drop,
        "probe_share": probe_share,
        "profile": profile,
        **sending_of(schedule, zone, motion, heartbeat),
    }
    plan = parse_camera(site, settings)
    registers = state is not None and enrolment is None
    if registers:  # only once its source opens: a mistyped address would leave a camera that is never online
        try_source(plan.source)
    if state is not None and name is not None and (near := resembling(identity, Layout(state.resolve()))):
        typer.echo(f"{identity} is a camera that this system does not know yet; it knows {near}", err=True)
    known = camera_identity(name, enrolment, state)
    if spool is None and known.home is None:
        raise ConfigError("expected --spool DIR, or --state of a running system, or --enrolment FILE")
    if state is not None:
        allow_rate(Layout(state.resolve()), identity)
    folder = spool.resolve() if spool is not None else known.home or Path()
    link = mqtt_place(mqtt or known.mqtt, state, known.tls or "camera", tls=mqtt_tls, login=mqtt_login)
    require_brokers(connect_timeout_s, mqtt=link)
    if not registers:
        try_source(plan.source)
    until = time.time_ns() // 10**6 + round(1000 * seconds) if seconds is not None else None
    outcome = run_role(
        "camera",
        metrics,
        lambda registry, health, stop: run_camera(
            CameraSpec(plan, known.key, link.address, link.tls, link.login), state=folder, registry=registry,
            health=health, stop=stop, ends_at_ms=until, drain_s=drain,
        ),
    )  # fmt: skip
    if outcome.refused:
        typer.echo(f"{identity}: frames were refused: {outcome.refused}", err=True)
        raise typer.Exit(FRAMES_REFUSED)
    raise typer.Exit(0 if outcome.drained else FLEET_PENDING)
