"""`pointillist signer …`: keys of those who may publish models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import app
from infra.cli.access import existing_layout
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from schemas.keys.signers import Signer, TrustedSigners

signer_app = typer.Typer(help="Keys of the signers whose models processors accept.", no_args_is_help=True)
app.add_typer(signer_app, name="signer")

Trust = Annotated[
    Path | None,
    typer.Option(
        help="File of the trusted signers, whose published models are accepted: one line `ssh-ed25519 BASE64 "
        "NAME` for each. It is read again at each publication. Default: the file in the state folder."
    ),
]
SignerFile = Annotated[
    Path | None,
    typer.Option(
        "--signer",
        help="File of the private key to sign with, see `signer init`. Default: the key in the state folder.",
    ),
]


@signer_app.callback()
def group() -> None:
    """Keys of those who may publish models."""


@signer_app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the signer, as processors and logs show it.")],
    folder: Annotated[Path, typer.Option(help="Folder for NAME.key and NAME.pub.")] = Path(),
) -> None:
    """Create a key pair. Keep NAME.key secret, and add the line in NAME.pub to the processors' --trust file."""
    from schemas.keys.signers import Signer, write_signer

    signer = Signer.new()
    line = signer.line(name)
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_signer(private, signer)
        try:
            with public.open("x") as fresh:
                fresh.write(line + "\n")
        except OSError:
            private.unlink()
            raise
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            raise ConfigError(
                f"{error.filename}: expected no signer of that name, got an existing file. Choose another name."
            ) from None
        raise ConfigError(
            f"--folder: expected a writable folder, got {private}: {error.strerror}. Choose another folder."
        ) from None
    typer.echo(line)


def signer_of(given: Path | None, state: Path | None) -> Signer:
    """Return the signer: from a key file, else the state folder's.

    Raises ConfigError without either, StateError if there is no such state folder.
    """
    from schemas.keys.signers import Signer

    if given is not None:
        return Signer.read(given)
    if state is None:
        raise ConfigError(
            "--signer is missing: expected a private key made by `pointillist signer init`. Give --signer "
            "FILE or --state."
        )
    return existing_layout(state).signer()


def trust_file(given: Path | None, state: Path | None) -> Path | None:
    """Return the file of the trusted signers: the given one, else the state folder's; None without either.

    Raises StateError if there is no such state folder.
    """
    if given is not None or state is None:
        return given
    layout = existing_layout(state)
    layout.signer()
    return layout.trusted


def trusted_of(given: Path | None, state: Path | None) -> TrustedSigners:
    """Return the trusted signers."""
    from schemas.keys.signers import TrustedSigners

    return TrustedSigners.read(trust_file(given, state))
