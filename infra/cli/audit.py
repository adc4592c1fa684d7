"""`pointillist audit`: what became of every published frame."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.cli import app


@app.command()
def audit(
    state: Annotated[Path, typer.Option(help="State folder of a system, running or not.")] = Path(".pointillist"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare what the cameras published with what was recorded, from the database, Kafka's logs and the spools.

    Names what it cannot read and counts the rest. Exit status 0 when nothing is lost, and no frame's fate is unread.
    """
    from infra.audit import audit as run_audit
    from infra.layout import Layout
    from infra.report import attacked_by_camera

    layout = Layout(state.resolve())
    found = run_audit(layout)
    attacked = attacked_by_camera(layout)
    counts = found.counts()
    console = Console(soft_wrap=True)
    lost = [boot for boot in found.boots if boot.lost]
    if json:
        document = {
            **counts.as_dict(),
            "kafka_frames": found.kafka_frames,
            "covers_from_ms": found.frames_from_ms,
            "ledgers_refused": len(found.ledgers_refused),
            "lost": [
                {"camera_id": b.camera_id, "boot_id": f"{b.boot_id:016x}", "ranges": list(b.lost.ranges())}
                for b in lost
            ],
            "unread": list(found.unread),
            "attacked_by_camera": attacked,
        }
        console.print_json(data=document)
    else:
        table = Table("count", "frames", title="audit", title_justify="left")
        for name, value in counts.as_dict().items():
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
        for boot in lost:
            console.print(f"lost: {boot.camera_id} boot {boot.boot_id:016x}: {list(boot.lost.ranges())[:10]}")
        for line in found.unread:
            console.print(f"unread: {line}", markup=False, highlight=False)
    raise typer.Exit(1 if counts.frames_lost or counts.frames_unread else 0)
