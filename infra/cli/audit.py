"""`pointillist audit`: the fate of every published frame."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from infra.cli import app
from infra.cli.access import CONNECT_TIMEOUT_S, DEFAULT_STATE, KafkaLogin, KafkaTls, kafka_place, require_brokers
from infra.cli.terminal import Console, Json, print_json
from infra.settings.variable import resolve
from schemas.errors import ConfigError, StateError

if TYPE_CHECKING:
    from infra.audit.audit import Audit
    from infra.audit.report import AttackedCamera


@app.command()
def audit(
    state: Annotated[
        Path | None, typer.Option(help="State folder of a system, running or not. Default: .pointillist.")
    ] = None,
    kafka: Annotated[
        str | None, typer.Option(help="Kafka bootstrap server of a deployment as host:port. Requires --database.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the recorders' database of a deployment. Requires --kafka.")
    ] = None,
    spool: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --kafka: folder of spools, with a sub-folder SITE/CAMERA for each camera. For other "
            "cameras, the signed ledgers show the published frames. Can be given again."
        ),
    ] = None,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    json: Json = False,
) -> None:
    """Compare what the cameras published with what was recorded, from the database, Kafka's logs and the spools.

    With --state, the audit reads the files of the state folder. With --kafka and --database, it reads a deployment's
    Kafka and database over the network. It lists records that cannot be read, and counts all others. Exit status 0 when
    no frame is lost and the fate of every frame could be read, else 1.
    """
    from infra.audit.audit import audit as run_audit
    from infra.audit.audit import audit_deployment, auditor_keys
    from infra.audit.report import attacked_by_camera, audit_report
    from infra.preflight.database import look_for_refusal
    from infra.state_folder import Layout

    if (kafka is None) != (database is None) or (spool and kafka is None):
        raise ConfigError(
            "audit: expected --kafka and --database together, with or without --spool, or --state alone, got "
            "another combination. Correct the options."
        )
    if kafka is None or database is None:
        layout = Layout((state or DEFAULT_STATE).resolve())
        url = layout.database_url
        found = run_audit(layout)
    else:
        for folder in spool or ():
            if not folder.is_dir():
                raise StateError(f"--spool: expected a folder with spools, got {folder}. Correct the path.")
        bootstrap = kafka_place(kafka, state, "audit", tls=kafka_tls, login=kafka_login)
        require_brokers(CONNECT_TIMEOUT_S, kafka=bootstrap)
        url = resolve(database)
        look_for_refusal(url)
        keys = auditor_keys(Layout(state.resolve()) if state is not None else None)
        found = audit_deployment(bootstrap, url, spool or [], keys)
    attacked = attacked_by_camera(url)
    if json:
        print_json(audit_report(found, attacked))
    else:
        _print_tables(found, attacked)
    counts = found.counts()
    raise typer.Exit(1 if counts.frames_lost or counts.frames_unread else 0)


def _print_tables(found: Audit, attacked: dict[str, AttackedCamera] | None) -> None:
    console = Console(soft_wrap=True)
    table = Table("count", "frames", title="audit", title_justify="left")
    for name, value in found.counts().as_dict().items():
        table.add_row(name, str(value))
    console.print(table)
    if attacked:
        table = Table("attacked camera", "frames", "right", "right when clean", title_justify="left")
        for name, each in attacked.items():
            shares = ("-" if part is None else f"{part:.1%}" for part in (each["accuracy"], each["accuracy_clean"]))
            table.add_row(name, str(each["frames"]), *shares)
        console.print(table)
    for camera, boot_id in found.ledgers_refused[:10]:
        console.print(f"not counted, for its camera has not signed it: the ledger of {camera} boot {boot_id:016x}")
    for camera, boots in groupby((boot for boot in found.boots if boot.lost), lambda boot: boot.camera_id):
        first, *more = boots
        others = f", and in {len(more)} more boots" if more else ""
        ranges = list(first.lost.ranges())[:10]
        console.print(f"lost: {camera} boot {first.boot_id:016x}: {ranges}{others}", soft_wrap=True)
    for summed in found.summed:
        if summed.lost:
            console.print(f"lost: {summed.camera}: {summed.lost} frames of boots whose ledgers are summed")
    for line in found.unread:
        console.print_line(f"unread: {line}")
