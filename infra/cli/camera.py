"""`pointillist camera attach URL`: a real camera joins the fleet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from infra.cli.access import MQTT, mqtt_place, require_brokers
from infra.cli.roles import COMMON, SAMPLING
from infra.settings.command import role_command
from infra.settings.variable import resolve
from schemas.clock import unix_ms
from schemas.errors import ConfigError
from schemas.messages.frame_size import over_size

if TYPE_CHECKING:
    from pydantic import SecretStr

    from producers.camera.camera_settings import CameraSettings
    from producers.camera.role_settings import CameraAttachSettings

camera_app = typer.Typer(help="Real cameras.", no_args_is_help=True)
app.add_typer(camera_app, name="camera")


@role_command(
    camera_app, "camera-attach", "name", "enrolment", "spool", *MQTT, *COMMON, *SAMPLING, "seconds", "drain_s",
    "camera.fps", "camera.drop_ratio", "camera.profile", "camera.schedule.hours", "camera.source.login.file",
    "camera.source.rotate", "camera.source.privacy", "camera.source.region", "camera.source.size", "camera.source.loop",
    strip=("camera.source", "camera"),
)  # fmt: skip
def attach(
    settings: CameraAttachSettings,
    url: Annotated[str | None, typer.Argument(help="RTSP or HTTP URL, /dev/video0, or a video file.")] = None,
) -> None:
    """Send a camera's pictures, without the dropped pixels, to the fleet's broker.

    Exit status 2 when the source of a camera that may send cannot be opened, 3 when the spool still holds frames
    at the drain deadline. Exit status 4 when frames were rejected, for example because they are larger than the
    processors accept; the reason is printed. The key is read from the enrolment, POINTILLIST_CAMERA_KEY,
    POINTILLIST_CAMERA_KEY_FILE, or the state folder.
    """

    from infra.cameras.identity import camera_identity, camera_named, resembling, simulator_network_note
    from infra.process.certificates import certificates_of
    from infra.process.exit_status import FLEET_PENDING, FRAMES_REFUSED
    from infra.process.role import run_role
    from infra.state_folder import Layout
    from producers.fleet.camera_spec import CameraSpec
    from producers.fleet.real import run_camera

    name, enrolment, state, spool = settings.name, settings.enrolment, settings.state, settings.spool
    place = stream_address(url, settings.address)
    if state is not None and (size := settings.camera.source.size) is not None:
        _check_size(size, Layout(state.resolve()).max_frame_pixels)
    identity = camera_named(name, enrolment, state)
    plan = settings.camera_settings(place, identity)
    registers = state is not None and enrolment is None
    if registers:  # only once its source opens: a mistyped address would leave a camera that is never online
        assert state is not None
        _try_source(plan, spool or state)
    if state is not None and name is not None and (near := resembling(identity, Layout(state.resolve()))):
        typer.echo(f"{identity} is a new camera of this system. A similar name exists: {near}", err=True)
    if state is not None and (line := simulator_network_note(state)):
        typer.echo(line, err=True)
    known = camera_identity(name, enrolment, state)
    if spool is None and known.home is None:
        raise ConfigError(
            "--spool is missing: expected the folder of the spool. Give --spool DIR, --state of a running "
            "system, or --enrolment FILE."
        )
    if state is not None:
        from infra.cameras.rates import allow_rate  # not on a device: it needs the bridge's libraries

        allow_rate(Layout(state.resolve()), identity)
    folder = spool.resolve() if spool is not None else known.home or Path()
    link = mqtt_place(
        str(settings.mqtt) or known.mqtt,
        state,
        known.tls or "camera",
        tls=settings.mqtt_tls,
        login=settings.mqtt_login_file,
    )
    require_brokers(settings.connect_timeout_s, mqtt=link)
    if not registers:
        _try_source(plan, folder)
    seconds = settings.seconds
    until = unix_ms() + round(1000 * seconds) if seconds is not None else None
    outcome = run_role(
        "camera",
        settings.metrics,
        lambda registry, health, stop: run_camera(
            CameraSpec(plan, known.key, link.address, link.tls, link.login), state=folder, registry=registry,
            health=health, stop=stop, ends_at_ms=until, drain_s=settings.drain_s,
        ),
        tracing=settings.tracing,
        tracing_share=settings.tracing_share,
        certificates=certificates_of(settings.model_copy(update={"mqtt": link})),
    )  # fmt: skip
    if outcome.refused:
        typer.echo(f"{identity}: frames were rejected: {outcome.refused}", err=True)
        raise typer.Exit(FRAMES_REFUSED)
    raise typer.Exit(0 if outcome.drained else FLEET_PENDING)


def _try_source(plan: CameraSettings, folder: Path) -> None:
    """Open the camera's source once and close it; `SourceError` if that fails. `folder` holds the folder `spool`.

    A camera that sends nothing on purpose may be switched off: its source is not tried.
    """
    from producers.publisher.applied_commands import is_paused
    from producers.sources.trial import try_source
    from producers.spool.folder import spool_root

    paused = is_paused(spool_root(folder) / plan.camera_id, plan.encoding, plan.fps)
    if plan.in_hours(time.time()) and not paused:
        try_source(plan.source)
        return
    why = "is paused by a command" if paused else "is outside its schedule"
    typer.echo(f"{plan.camera_id} {why}: its source is not tried", err=True)


def stream_address(url: str | None, setting: SecretStr | None) -> str:
    """Return the address of a stream: the argument, else the setting. Raises ConfigError without either."""
    place = resolve(url or (setting.get_secret_value() if setting is not None else ""))
    if not place:
        raise ConfigError(
            "URL is missing: expected an address such as rtsp://…, a device or a file. Give it as the argument."
        )
    return place


def _check_size(size: tuple[int, int], most_pixels: int) -> None:
    """Raise ConfigError for a size of more pixels than the processors accept in a frame."""
    width, height = size
    if width * height > most_pixels:
        raise ConfigError(f"--size: {over_size(width, height, most_pixels)}")
