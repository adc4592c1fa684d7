"""`pointillist camera run cameras.yaml`: real cameras by the dozen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.access import MQTT, mqtt_place, require_brokers
from infra.cli.camera import camera_app
from infra.cli.roles import COMMON, SAMPLING
from infra.settings.command import role_command
from schemas.clock import unix_ms
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from infra.cameras.roster import Broker, FileOfCameras
    from producers.camera.role_settings import CameraRunSettings
    from producers.fleet.camera_spec import CameraSpecs
    from schemas.identity import CameraId

ROLE: Final = "camera-run"
_END_S: Final = 15.0
"""Seconds beyond the time to drain, for closing a process."""


@role_command(camera_app, ROLE, "spool", *MQTT, *COMMON, *SAMPLING, "processes", "share", "seconds", "drain_s")
def run(
    settings: CameraRunSettings,
    file: Annotated[
        Path | None, typer.Argument(help="Camera file, cameras.yaml; it is read again when it changes.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check the file, open each camera's source once, print a line for each, and end."),
    ] = False,
) -> None:
    """Send the pictures of many real cameras, without the dropped pixels, to the fleet's broker.

    Adding, changing or removing a camera in the file affects no other camera. A camera that cannot be opened is shown
    as degraded with the reason, and tried again. cameras.json in the folder of the spools holds the state of each
    camera. With several processes, each serves its metrics on the next port.

    Exit status 2 when the file is invalid or no camera can run. With --check, status 2 also when one camera cannot run
    or its source gives no picture. Exit status 3 when spools still hold frames at the drain deadline.
    """
    from infra.cameras.identity import simulator_network_note, state_home
    from infra.cameras.roster import FileOfCameras, Share
    from schemas.settings import address

    file = file or settings.cameras
    if file is None:
        raise ConfigError("FILE is missing: expected the list of cameras, cameras.yaml. Give it as the argument.")
    part = Share.parse(settings.share) if settings.share is not None else None
    listed = FileOfCameras(
        file.resolve(), state=settings.state, broker=_broker(settings), share=part, allows_rates=not check
    )
    specs = listed.read()
    if check:
        raise typer.Exit(_check(file, specs))
    if specs.rejected and not specs.runnable and part is None:
        name, reason = next(iter(specs.rejected.items()))
        raise ConfigError(
            f"{file}: expected at least one camera that can run, got none of {len(specs.rejected)}. {name}: {reason}"
        )
    if settings.state is not None and part is None and (line := simulator_network_note(settings.state)):
        typer.echo(line, err=True)
    if settings.metrics is not None:
        _, port = address(settings.metrics)
        if port > 65_536 - settings.processes:
            raise ConfigError(
                f"--metrics: expected a port of at most {65_536 - settings.processes} for {settings.processes} "
                f"processes, of which each has the next port, got {port}. Choose a lower one."
            )
    folder = (settings.spool or settings.state or state_home()).resolve()
    if settings.processes > 1:
        raise typer.Exit(_several(settings, file, folder))
    _require_broker(settings.connect_timeout_s, specs)
    raise typer.Exit(_alone(settings, listed, folder, part.number if part else None))


def _require_broker(wait_s: float, specs: CameraSpecs) -> None:
    """Check that the broker answers and accepts a camera. Those that it rejects fail later, each by itself."""
    from infra.preflight.brokers import RejectionError
    from schemas.transport.access import MqttAccess

    rejections: dict[CameraId, RejectionError] = {}
    for name, spec in specs.runnable.items():
        try:
            require_brokers(wait_s, mqtt=MqttAccess(*spec.mqtt, spec.tls, spec.login))
            break
        except RejectionError as error:
            rejections[name] = error
    else:
        if rejections:
            raise next(iter(rejections.values()))
    for name, rejection in rejections.items():
        typer.echo(f"{name}: {rejection}", err=True)


def _broker(settings: CameraRunSettings) -> Broker:
    """Return the broker given next to the file; enrolments name the rest."""
    from infra.cameras.roster import Broker

    if not settings.mqtt and settings.state is None:
        return Broker()
    # A camera of a secure system uses the certificate of its enrolment, and no role's.
    folder = settings.mqtt_tls
    own = "camera" if folder is not None else None
    place = mqtt_place(str(settings.mqtt), settings.state, own, tls=folder, login=settings.mqtt_login_file)
    return Broker(place.address, place.tls, place.login)


def _check(file: Path, specs: CameraSpecs) -> int:
    """Open each source once and print a line for each camera; return the exit status."""
    from infra.cli.terminal import Console
    from producers.sources.trial import try_sources
    from producers.video.group import VIDEO_FROM

    console = Console(soft_wrap=True, highlight=False)
    tried = try_sources({name: spec.settings.source for name, spec in specs.runnable.items()}, picture=True)
    for name, spec in specs.runnable.items():
        settings, trial = spec.settings, tried[name]
        rate = f"{settings.fps:g} frames/s" if settings.fps else "all frames"
        seen = f"{trial.size[0]}x{trial.size[1]}" if trial.size is not None else f"no picture: {trial.error}"
        small = trial.size is not None and min(trial.size) < VIDEO_FROM
        profile = "raw" if small and settings.profile == "video" else settings.profile
        console.print(f"{name}: {rate}, {profile}, {seen}", markup=False)
    for name, reason in specs.rejected.items():
        console.print(f"{name}: cannot run: {reason}", markup=False)
    blind = sum(trial.error is not None for trial in tried.values())
    console.print(
        f"{file}: {len(specs.runnable)} cameras, {blind} without a picture, {len(specs.rejected)} that cannot run",
        markup=False,
    )
    return 2 if specs.rejected or blind else 0


def _alone(settings: CameraRunSettings, listed: FileOfCameras, folder: Path, number: int | None) -> int:
    """Run all cameras, or those of a share, in this process."""

    from infra.process.exit_status import FLEET_PENDING
    from infra.process.role import run_role
    from producers.fleet.real import run_listed_cameras

    report = folder / ("cameras.json" if number is None else f"cameras-{number}.json")
    seconds = settings.seconds
    until = unix_ms() + round(1000 * seconds) if seconds is not None else None
    outcome = run_role(
        "camera",
        settings.metrics,
        lambda registry, health, stop: run_listed_cameras(
            listed, state=folder, registry=registry, health=health, stop=stop, ends_at_ms=until,
            drain_s=settings.drain_s, report=report,
        ),
        tracing=settings.tracing,
        tracing_share=settings.tracing_share,
        certificates={"mqtt": listed.certificates},
    )  # fmt: skip
    return 0 if outcome.drained else FLEET_PENDING


def _several(settings: CameraRunSettings, file: Path, folder: Path) -> int:
    """Run one process for each share of the cameras."""
    from infra.cameras.processes import run_processes
    from infra.cameras.roster import empty_shares
    from infra.process.exit_status import FLEET_PENDING
    from infra.process.role import run_role
    from infra.process.tracing import require_exporter
    from infra.settings.document import toml
    from infra.settings.load import SHARED
    from infra.settings.roles import prefix_of
    from infra.state_folder import write_secret
    from schemas.runtime.file_lock import exclusive
    from schemas.settings import address, format_address

    if str(settings.mqtt_login_file) == "-":
        raise ConfigError(
            "--mqtt-login-file: expected a file that several processes can read, got standard input. Give a file."
        )
    common = settings.model_dump(mode="json", exclude_unset=True) | {
        "cameras": str(file.resolve()),
        "spool": str(folder),
        "processes": 1,
        "connect_timeout_s": 0,
    }

    def arguments(number: int) -> list[str]:
        own: dict[str, object] = {"share": f"{number}/{settings.processes}"}
        if settings.metrics is not None:
            host, port = address(settings.metrics)
            own["metrics"] = format_address((host, port + number - 1))
        written = folder / "settings" / f"cameras-{number}.toml"
        write_secret(written, toml(common | own))
        return ["camera", "run", "--config", str(written)]

    left_out = (prefix_of(ROLE), *(f"POINTILLIST_{name.upper()}" for name in SHARED))
    if settings.tracing is not None:
        require_exporter()
    final = frozenset((0, FLEET_PENDING))  # the file was right: a process that ends for any other reason is restarted
    with exclusive(folder / "settings" / "cameras.toml") as own:
        if not own:
            raise ConfigError(
                f"--spool: expected a folder that no other run of several processes uses, got {folder}. Stop that run, "
                "or choose another folder."
            )
        statuses = run_role(
            "camera",
            None,
            lambda _registry, _health, stop: run_processes(
                settings.processes,
                arguments,
                folder / "logs",
                final,
                stop,
                settings.drain_s + _END_S,
                left_out,
                partial(empty_shares, file, settings.processes),
            ),
        )
    # A process that was killed at the deadline has a negative status, and may have left frames.
    return max(FLEET_PENDING if status < 0 else status for status in statuses)
