"""`pointillist up`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from infra.cli.code import AllowCode
from infra.cli.terminal import Console, print_json
from infra.settings.command import role_command
from infra.settings.variable import resolve

if TYPE_CHECKING:
    from infra.up.settings import UpSettings


@role_command(
    app, "up", "cameras", "fps", "seconds", "drop_ratio", "source", "scenario", "cameras_file", "bundle", "probe_share",
    "profile", "processor.mode", "processor.backend", "processor.precision", "processors",
    "bridges", "fleets", "kafka_nodes", "kafka_retention_s", "processor.batch_frames", "processor.max_frame_pixels",
    "spool_bytes", "drain_s", "state", "report", "http", "http_tls", "http_plain", "behind_proxy", "listen",
    "allowed_host", "plain", "prometheus", "receivers", "tracing", "tracing_share", strip="processor",
)  # fmt: skip
def up(
    settings: UpSettings,
    allow_code: AllowCode = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON at the end, and all else to standard error.")
    ] = False,
) -> None:
    """Run brokers, bridge, processors, recorder and a camera fleet on this machine.

    Exit status 0 when no frame of this run is lost, pending or unread, 1 when one is, 2 for an error that you can
    correct.
    """
    from infra.process.tracing import require_exporter
    from infra.state_folder.environment import Environment
    from infra.up.foreground import own_foreground
    from infra.up.run import run_up
    from infra.up.settings import require_no_variable_of_a_role
    from infra.up.table import LiveTable

    require_no_variable_of_a_role(os.environ)
    settings = settings.model_copy(update={"source": resolve(settings.source)})
    if settings.tracing is not None:
        require_exporter()
    console = Console(soft_wrap=True, stderr=json)
    with own_foreground():
        status, document = run_up(settings, Environment(), LiveTable(console))
    if json:
        print_json(document)
    raise typer.Exit(status)
