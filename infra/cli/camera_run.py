"""`pointillist camera run cameras.yaml`: real cameras by the dozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.access import (
    CONNECT_TIMEOUT_S,
    ConnectTimeout,
    Mqtt,
    MqttLogin,
    MqttTls,
    mqtt_place,
    require_brokers,
)
from infra.cli.camera import camera_app
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from infra.cameras.roster import Broker
    from producers.fleet.camera_spec import CameraSpecs

_END_S = 15.0
"""Seconds beyond the time to drain, for closing a process."""


@camera_app.command()
def run(
    file: Annotated[
        Path, typer.Argument(help="cameras.yaml: which cameras there are; it is read again when it changes.")
    ],
    spool: Annotated[
        Path | None,
        typer.Option(help="Folder of the spools; else the state folder, or ~/.local/state/pointillist."),
    ] = None,
    mqtt: Mqtt = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    state: Annotated[
        Path | None, typer.Option(help="Join the running system of this state folder; it enrols the cameras.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Share the cameras among so many processes.", min=1, max=256)] = 1,
    share: Annotated[
        str | None, typer.Option(help="Run the part NUMBER/OF of the cameras, such as 2/3, alone.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check the file, open each camera's source once, print a line for each, and end."),
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="End after this time; else when all sources have ended, or on Ctrl-C.")
    ] = None,
    drain: Annotated[
        float, typer.Option("--drain-s", help="Seconds to wait, after the end, for confirmations.")
    ] = 30.0,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="host:port to serve /metrics and /healthz on; of several processes each takes the next port."
        ),
    ] = None,
    connect_timeout_s: ConnectTimeout = CONNECT_TIMEOUT_S,
) -> None:
    """Send the pictures of many real cameras, dots only, to the fleet's broker.

    Adding, changing or removing a camera in the file affects no other camera. A camera that cannot be opened is
    degraded, with the reason, and tried again. cameras.json in the folder of the spools holds the state of each camera.

    Exit status 2 when the file is wrong or not one camera can run. With --check, status 2 also when one camera cannot
    run or its source gives no picture. Exit status 3 when spools still hold frames at the drain deadline.
    """
    from infra.cameras.identity import state_home
    from infra.cameras.roster import FileOfCameras, Share
    from infra.process.role import address
    from schemas.transport.access import MqttAccess

    if share is not None and processes > 1:
        raise ConfigError("expected --processes or --share, got both")
    part = Share.parse(share) if share is not None else None
    listed = FileOfCameras(file.resolve(), state=state, broker=_broker(mqtt, state, mqtt_tls, mqtt_login), share=part)
    specs = listed.read()
    if check:
        raise typer.Exit(_check(file, specs))
    if specs.rejected and not specs.runnable and part is None:
        name, reason = next(iter(specs.rejected.items()))
        raise ConfigError(f"{file}: not one of {len(specs.rejected)} cameras can run; {name}: {reason}")
    if metrics is not None:
        address(metrics)
    folder = (spool or state or state_home()).resolve()
    if processes > 1:
        raise typer.Exit(_several(processes, file, folder, mqtt, mqtt_tls, mqtt_login, state, seconds, drain, metrics))
    first = next(iter(specs.runnable.values()), None)
    if first is not None:
        require_brokers(connect_timeout_s, mqtt=MqttAccess(*first.mqtt, first.tls, first.login))
    raise typer.Exit(_alone(listed, folder, part.number if part else None, seconds, drain, metrics))


def _broker(mqtt: str | None, state: Path | None, tls: Path | None, login: Path | None) -> Broker:
    """Return the broker given next to the file; enrolments name the rest."""
    from infra.cameras.roster import Broker
    from infra.process.environment import Environment

    if mqtt is None and state is None:
        return Broker()
    # A camera of a secure system uses the certificate of its enrolment, and no role's.
    folder = tls or Environment().mqtt_tls
    place = mqtt_place(mqtt, state, "camera" if folder is not None else None, tls=tls, login=login)
    return Broker(place.address, place.tls, place.login)


def _check(file: Path, specs: CameraSpecs) -> int:
    """Open each source once and print a line for each camera; return the exit status."""
    from rich.console import Console

    from producers.sources.trial import try_sources

    console = Console(soft_wrap=True, highlight=False)
    tried = try_sources({name: spec.settings.source for name, spec in specs.runnable.items()}, picture=True)
    for name, spec in specs.runnable.items():
        settings, trial = spec.settings, tried[name]
        rate = f"{settings.fps:g} frames/s" if settings.fps else "all frames"
        seen = f"{trial.size[0]}x{trial.size[1]}" if trial.size is not None else f"no picture: {trial.error}"
        console.print(f"{name}: {rate}, {settings.profile}, {seen}", markup=False)
    for name, reason in specs.rejected.items():
        console.print(f"{name}: cannot run: {reason}", markup=False)
    blind = sum(trial.error is not None for trial in tried.values())
    console.print(
        f"{file}: {len(specs.runnable)} cameras, {blind} without a picture, {len(specs.rejected)} that cannot run",
        markup=False,
    )
    return 2 if specs.rejected or blind else 0


def _alone(
    listed: object, folder: Path, number: int | None, seconds: float | None, drain: float, metrics: str | None
) -> int:
    """Run all cameras, or those of a share, in this process."""
    import time

    from infra.cameras.roster import FileOfCameras
    from infra.process.role import run_role
    from infra.up.processes import FLEET_PENDING
    from producers.fleet.real import run_listed_cameras

    assert isinstance(listed, FileOfCameras)
    report = folder / ("cameras.json" if number is None else f"cameras-{number}.json")
    until = time.time_ns() // 10**6 + round(1000 * seconds) if seconds is not None else None
    outcome = run_role(
        "camera",
        metrics,
        lambda registry, health, stop: run_listed_cameras(
            listed, state=folder, registry=registry, health=health, stop=stop, ends_at_ms=until, drain_s=drain,
            report=report,
        ),
    )  # fmt: skip
    return 0 if outcome.drained else FLEET_PENDING


def _several(
    count: int,
    file: Path,
    folder: Path,
    mqtt: str | None,
    mqtt_tls: Path | None,
    mqtt_login: Path | None,
    state: Path | None,
    seconds: float | None,
    drain: float,
    metrics: str | None,
) -> int:
    """Run one process for each share of the cameras."""
    from infra.cameras.processes import run_processes
    from infra.process.role import address, run_role
    from infra.up.processes import FLEET_PENDING

    if str(mqtt_login) == "-":
        raise ConfigError(
            "--mqtt-login-file: expected a file next to --processes, got standard input. It can be read once only."
        )
    common: list[str] = ["--spool", str(folder), "--drain-s", str(drain), "--connect-timeout-s", "0"]
    places = {
        "--mqtt": mqtt,
        "--mqtt-tls": mqtt_tls,
        "--mqtt-login-file": mqtt_login,
        "--state": state,
        "--seconds": seconds,
    }
    for option, value in places.items():
        if value is not None:
            common += [option, str(value)]

    def arguments(number: int) -> list[str]:
        served: list[str] = []
        if metrics is not None:
            host, port = address(metrics)
            served = ["--metrics", f"{host}:{port + number - 1}"]
        return ["camera", "run", str(file.resolve()), "--share", f"{number}/{count}", *common, *served]

    final = frozenset((0, FLEET_PENDING))  # the file was right: a process that ends for any other reason is restarted
    statuses = run_role(
        "camera",
        None,
        lambda _registry, _health, stop: run_processes(count, arguments, folder / "logs", final, stop, drain + _END_S),
    )
    return max(statuses)
