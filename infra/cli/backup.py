"""`pointillist backup` and `restore`: the state folder of a system in one file."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import DEFAULT_STATE, existing_layout, text_of
from infra.cli.audit_line import note
from infra.settings.variable import resolve
from schemas.errors import ConfigError
from schemas.runtime.moment import format_utc

Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File with the passphrase of the encrypted backup, 12 characters or more; - is standard input. Required "
        "for a URL.",
        metavar="FILE",
    ),
]


@app.command()
def backup(
    to: Annotated[
        str, typer.Option(help="Folder of the backup file, or a URL that fsspec opens, such as s3://bucket/prefix.")
    ],
    state: Annotated[Path, typer.Option(help="State folder of a system, running or not.")] = DEFAULT_STATE,
    database: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of the recorders' PostgreSQL. Default: the database in the state folder."),
    ] = None,
    passphrase_file: Passphrase = None,
) -> None:
    """Write the database, keys, models, quarantine and settings of a state folder into one file.

    The database is a snapshot with its Kafka offsets, from which the recorder continues after a restore. The backup
    contains neither Kafka's log nor the cameras' spools, nor anything outside the state folder, such as a quarantine at
    a URL or the volumes of Compose and Kubernetes. Without a passphrase the file is not encrypted, and only your user
    can read it.
    """
    from infra.process.metrics_server import software_version
    from infra.state_folder.backup import write_backup

    layout = existing_layout(state)
    begun = time.monotonic()
    place, manifest = write_backup(
        layout,
        to,
        software_version(),
        database=None if database is None else resolve(database),
        passphrase=_passphrase(passphrase_file),
    )
    typer.echo(f"{place}: {manifest.records} records of Kafka, in {time.monotonic() - begun:.1f} s")
    sealed = "with" if passphrase_file is not None else "without"
    # The name only: the URL may hold a password.
    note(
        state,
        "backup",
        "state folder",
        f"{PurePosixPath(place).name}, {sealed} a passphrase",
        "done",
        existing_log=True,
    )
    if database is not None:
        typer.echo(
            f"not included: what lies outside {state} and this database, such as a quarantine at a URL and the volumes "
            "of compose or Kubernetes"
        )


@app.command()
def restore(
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Backup, or a folder whose newest backup is restored: a path or a URL.", metavar="URL"
        ),
    ],
    state: Annotated[
        Path,
        typer.Option(
            help="State folder to fill. It may hold Kafka's log and spools, but nothing that the backup contains."
        ),
    ] = DEFAULT_STATE,
    database: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of an empty PostgreSQL, if the backup contains a PostgreSQL database."),
    ] = None,
    new_kafka: Annotated[
        bool, typer.Option("--new-kafka", help="Read Kafka from its beginning, if its log was lost too.")
    ] = False,
    passphrase_file: Passphrase = None,
) -> None:
    """Fill a state folder from a backup. The next start records again the frames that Kafka holds beyond the backup.

    Everything else is as it was at the time of the backup. Repeat later revocations, changes of passwords and settings,
    mutes, sighting rules and publications.
    """
    from infra.local.private_folder import private_folder
    from infra.local.role_table import RoleTable
    from infra.state_folder import Layout
    from infra.state_folder.restore import find_backup, restore_backup

    place, folder = find_backup(source), state.resolve()
    with private_folder(folder), RoleTable(folder, holder="restore"):
        manifest = restore_backup(
            Layout(folder),
            place,
            database=None if database is None else resolve(database),
            passphrase=_passphrase(passphrase_file),
            new_kafka=new_kafka,
        )
    typer.echo(f"{folder}: as of {format_utc(manifest.made_ms)}, {manifest.records} records of Kafka")
    done = f"{PurePosixPath(place).name}, as of {format_utc(manifest.made_ms)}"
    note(folder, "restore", "state folder", done, "done", existing_log=True)


def _passphrase(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return text_of(file).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--passphrase-file: expected a text file, got {file}: {error}. Correct the path.") from None
