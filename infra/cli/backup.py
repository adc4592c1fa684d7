"""`pointillist backup` and `restore`: the state folder of a system in one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import DEFAULT_STATE, text_of
from infra.cli.passwords import resolve
from schemas.errors import ConfigError
from schemas.runtime.moment import format_utc

Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File with the passphrase, 12 characters or more, that encrypts the backup; - is standard input. A URL "
        "needs one.",
        metavar="FILE",
    ),
]


@app.command()
def backup(
    to: Annotated[str, typer.Option(help="Folder, or a URL that fsspec opens, such as s3://bucket/prefix.")],
    state: Annotated[Path, typer.Option(help="State folder of a system, running or not.")] = DEFAULT_STATE,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of a PostgreSQL that recorders use in place of the state folder.")
    ] = None,
    passphrase_file: Passphrase = None,
) -> None:
    """Write the database, keys, models, quarantine and settings of a state folder into one file.

    The database is a snapshot with its Kafka offsets: after a restore, the recorder continues at these. Kafka's log and
    the cameras' spools stay out, and all that lies elsewhere, such as a quarantine at a URL or the volumes of compose
    and Kubernetes. Without a passphrase only you can read the file.
    """
    from infra.process.metrics_server import software_version
    from infra.state_folder import Layout
    from infra.state_folder.backup import write_backup

    begun = time.monotonic()
    place, manifest = write_backup(
        Layout(state.resolve()),
        to,
        software_version(),
        database=None if database is None else resolve(database),
        passphrase=_passphrase(passphrase_file),
    )
    typer.echo(f"{place}: {manifest.records} records of Kafka, in {time.monotonic() - begun:.1f} s")
    if database is not None:
        typer.echo(
            f"not included: what lies outside {state} and this database, such as a quarantine at a URL and the volumes "
            "of compose or Kubernetes"
        )


@app.command()
def restore(
    source: Annotated[str, typer.Option("--from", help="Backup, or a folder: its newest backup.", metavar="URL")],
    state: Annotated[
        Path, typer.Option(help="State folder to fill. It may hold Kafka's log and spools, and nothing of the backup.")
    ] = DEFAULT_STATE,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of an empty PostgreSQL, for a backup of a PostgreSQL.")
    ] = None,
    new_kafka: Annotated[
        bool, typer.Option("--new-kafka", help="Kafka's log is lost too: read the new one from its beginning.")
    ] = False,
    passphrase_file: Passphrase = None,
) -> None:
    """Fill a state folder from a backup. The next start records again the frames that Kafka holds beyond the backup.

    All else is as at the backup: repeat later revocations, changes of passwords and settings, mutes, sighting rules and
    publications.
    """
    from infra.local.private_folder import private_folder
    from infra.local.role_table import RoleTable
    from infra.state_folder import Layout
    from infra.state_folder.backup import find_backup, restore_backup

    place, folder = find_backup(source), state.resolve()
    with private_folder(folder), RoleTable(folder):
        manifest = restore_backup(
            Layout(folder),
            place,
            database=None if database is None else resolve(database),
            passphrase=_passphrase(passphrase_file),
            new_kafka=new_kafka,
        )
    typer.echo(f"{folder}: as of {format_utc(manifest.made_ms)}, {manifest.records} records of Kafka")


def _passphrase(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return text_of(file).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--passphrase-file: expected a text file, got {file}: {error}. Correct the path.") from None
