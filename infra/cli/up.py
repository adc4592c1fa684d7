"""`pointillist up`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from infra.cli import app
from infra.cli.code import AllowCode
from infra.cli.passwords import resolve
from infra.cli.roles import BehindProxy
from schemas.errors import ConfigError
from schemas.limits import USUAL_FRAME_PIXELS


@app.command()
def up(
    cameras: Annotated[
        int | None,
        typer.Option(
            help="Number of cameras; else 8 of scenes or a data set, and 1 of a URL, a device or a video file."
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(help="Frames a second of each camera; 0 = as fast as back-pressure allows.")
    ] = 2.0,
    seconds: Annotated[
        float | None, typer.Option(help="End after this time; else when the sources end, or on Ctrl-C.")
    ] = None,
    drop: Annotated[float, typer.Option(help="Share of the pixels that are not sent.")] = 0.25,
    source: Annotated[
        str, typer.Option(help="scene, cifar10, a URL, a device, a video file or an npz file.")
    ] = "scene",
    scenario: Annotated[
        Path | None,
        typer.Option(help="A YAML scenario instead of equal cameras: a file, or the name of a shipped one."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Model bundle; else the shipped one that fits the source.")
    ] = None,
    strip_rate: Annotated[float, typer.Option(help="Share of frames sent whole and checked by STRIP.")] = 0.05,
    profile: Annotated[str, typer.Option(help="raw or lossless.")] = "raw",
    allow_code: AllowCode = False,
    mode: Annotated[
        str,
        typer.Option(
            help="Reconstruction: default, paper (Algorithm 1), plate (not learned) or none (the network alone)."
        ),
    ] = "default",
    backend: Annotated[str, typer.Option(help="What runs the networks on a CPU; see `process`.")] = "auto",
    precision: Annotated[str, typer.Option(help="Their arithmetic; see `process`.")] = "auto",
    processors: Annotated[int, typer.Option(help="Processors side by side.")] = 1,
    bridges: Annotated[int, typer.Option(help="Bridges side by side.")] = 1,
    kafka_nodes: Annotated[
        int, typer.Option(help="1, or 3: then any one may die, hang or lose its disk. Stays for a state folder.")
    ] = 1,
    batch: Annotated[int, typer.Option(help="Most frames in a batch.")] = 64,
    max_pixels: Annotated[
        int, typer.Option(help="Height x width of the largest frame; what is larger goes to the dead letters.")
    ] = USUAL_FRAME_PIXELS,
    spool_bytes: Annotated[int, typer.Option(help="Bound of each camera's spool on disk.")] = 256 * 2**20,
    drain: Annotated[float, typer.Option(help="Seconds to wait, after the end, for what is under way.")] = 60.0,
    state: Annotated[Path, typer.Option(help="State folder: brokers' files, database, spools, logs.")] = Path(
        ".pointillist"
    ),
    report: Annotated[
        Path | None, typer.Option(help="File for the report of the run, as JSON; else report.json in the state folder.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON at the end, and all else to standard error.")
    ] = False,
    http: Annotated[
        str | None,
        typer.Option(
            help="host:port of the console; else a free loopback port. Where other machines reach it, it needs a user "
            "(`pointillist user add`) and speaks HTTPS with a certificate of the fleet's own authority, "
            "STATE/pki/ca.crt."
        ),
    ] = None,
    http_tls: Annotated[
        Path | None, typer.Option(help="Another certificate for the console: a folder with tls.crt and tls.key.")
    ] = None,
    http_plain: Annotated[
        bool, typer.Option("--http-plain", help="Take passwords by plain HTTP where other machines reach the console.")
    ] = False,
    behind_proxy: BehindProxy = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS[:PORT]",
            help="Let cameras on other machines in at this address or host name of this one; port 8883.",
        ),
    ] = None,
    served_as: Annotated[
        list[str] | None,
        typer.Option(help="A host name that the pages answer to, besides their address; can be given again."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Without TLS, certificates and rights: only to compare, on a machine alone.")
    ] = False,
    prometheus: Annotated[
        bool, typer.Option(help="Start Prometheus, Alertmanager and Grafana too, those that are installed.")
    ] = True,
    receivers: Annotated[
        Path | None, typer.Option(help="Whom alerts are told: a YAML file with receivers as Alertmanager has them.")
    ] = None,
) -> None:
    """Run brokers, bridge, processors, recorder and a camera fleet on this machine.

    Exit status 0 when nothing is lost or pending, 1 when something is, 2 for what you can mend.
    """
    from infra.environment import Environment
    from infra.up.run import run_up
    from infra.up.settings import UpSettings, usual_cameras
    from infra.up.table import LiveTable
    from infra.up.terminal import own_foreground

    options: dict[str, Any] = {
        "cameras": usual_cameras(resolve(source)) if cameras is None else cameras,
        "fps": fps,
        "seconds": seconds,
        "drop": drop,
        "source": resolve(source),
        "scenario": scenario,
        "bundle": bundle,
        "strip_rate": strip_rate,
        "profile": profile,
        "mode": mode,
        "backend": backend,
        "precision": precision,
        "processors": processors,
        "bridges": bridges,
        "kafka_nodes": kafka_nodes,
        "batch_frames": batch,
        "max_frame_pixels": max_pixels,
        "spool_bytes": spool_bytes,
        "drain_s": drain,
        "state": state,
        "report": report,
        "http": http,
        "listen": listen,
        "http_tls": http_tls,
        "http_plain": http_plain,
        "behind_proxy": behind_proxy,
        "served_as": tuple(served_as or ()),
        "prometheus": prometheus,
        "receivers": receivers,
        "plain": plain,
    }
    try:
        settings = UpSettings(**options)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None
    console = Console(soft_wrap=True, stderr=json)
    with own_foreground():
        status, document = run_up(settings, Environment(), LiveTable(console))
    if json:
        typer.echo(json_format.dumps(document, indent=2))
    raise typer.Exit(status)


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in one line."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    option = _OPTIONS.get(place, place).replace("_", "-")
    return f"--{option}: {problem['msg'].lower()}, got {problem['input']!r}"


_OPTIONS = {"drain_s": "drain", "batch_frames": "batch", "max_frame_pixels": "max_pixels"}
"""Options whose name differs from that of the setting."""
