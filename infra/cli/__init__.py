"""The command `pointillist`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Final

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as typer gives it while a command runs."""

try:
    import typer

    from infra.cli.command_group import CommandGroup
    from schemas.errors import ConfigError
    from schemas.runtime.abandoned import end_process
    from schemas.runtime.user_errors import run_command
except KeyboardInterrupt:  # imports take up to a second
    sys.exit(INTERRUPTED)

VARIABLES: Final = {
    "POINTILLIST_FLEET_SECRET(_FILE), POINTILLIST_ROLE_SECRET(_FILE)": "Secrets from which keys are derived.",
    "POINTILLIST_CAMERA_KEY(_FILE)": "Key of the camera of `camera attach`.",
    "POINTILLIST_MQTT_TLS, POINTILLIST_KAFKA_TLS": "Folder with ca.crt, and tls.crt and tls.key of a client.",
    "POINTILLIST_MQTT_LOGIN(_FILE), POINTILLIST_KAFKA_LOGIN(_FILE)": "Login at the broker, as user:password.",
    "POINTILLIST_GENERATIONS_FILE": "JSON file with the lowest accepted key generation of each camera.",
    "POINTILLIST_SHARE_FILE": "File with the name of the bridges' shared subscription.",
    "POINTILLIST_ALLOW_CODE, POINTILLIST_FACTORIES": "Bundles may run code: as by --allow-code and --factories.",
    "POINTILLIST_DATA": "Folder of the data sets, such as cifar10.npz.",
    "POINTILLIST_TRACING, POINTILLIST_TRACING_SHARE": "URL of an OpenTelemetry collector; share of traced frames.",
    "POINTILLIST_TRACE": "Folder for files with the time stamps of each frame in each role.",
}
"""Variables for secrets: every user can see arguments. `NAME(_FILE)` is also read from the file `NAME_FILE`."""

EPILOG: Final = "Variables: " + "\n\n".join(f"{names}: {meaning}" for names, meaning in VARIABLES.items())
"""The variables' part of `--help`."""

app = typer.Typer(
    name="pointillist",
    cls=CommandGroup,
    help="Cameras send only a part of their pixels; the server reconstructs, classifies and checks the pictures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from infra.process.metrics_server import software_version

        typer.echo(f"pointillist {software_version()}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def options(
    factories: Annotated[
        str | None,
        typer.Option(
            help="Your Python packages, separated by commas, whose factories bundles may call. Code in these "
            "packages runs. POINTILLIST_FACTORIES sets it too."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Send a part of the pixels of many cameras; reconstruct, classify and check the pictures on a server."""
    if factories is not None:
        # For this process and for every role that it starts.
        os.environ["POINTILLIST_FACTORIES"] = factories


MODULES: Final = {
    "audit": ("audit",),
    "backup": ("backup",),
    "restore": ("backup",),
    "bundle": ("bundle",),
    "camera": ("camera", "camera_discover", "camera_forget", "camera_run", "camera_test", "camera_settings"),
    "config": ("config",),
    "console": ("console",),
    "doctor": ("doctor",),
    "homeassistant": ("homeassistant",),
    "key": ("key",),
    "model": ("model", "model_rollout"),
    "monitor": ("monitor",),
    "mute": ("mute",),
    "enroll": ("pki",),
    "rotate": ("pki",),
    "revoke": ("pki",),
    "ca": ("pki",),
    "bridge": ("roles",),
    "process": ("roles",),
    "record": ("roles",),
    "fleet": ("roles",),
    "sightings": ("sightings",),
    "signer": ("signer",),
    "status": ("status",),
    "cameras": ("status",),
    "logs": ("status",),
    "down": ("status",),
    "teach": ("teach",),
    "topics": ("topics",),
    "replicas": ("topics",),
    "up": ("up",),
    "token": ("token",),
    "user": ("user",),
    "lab": tuple(
        f"lab.{name}"
        for name in (
            "evaluate",
            "aigan",
            "certify",
            "evidence",
            "golden",
            "harden",
            "learn_table",
            "red_team",
            "repair",
            "stale",
            "strip",
        )
    ),
}
"""The modules that register each command, relative to this package."""


def register(command: str | None = None) -> None:
    """Put the modules of `command` into `app`; all commands for None or for an unknown name."""
    for name in MODULES if command not in MODULES else (command,):
        for module in MODULES[name]:
            import_module(f"{__name__}.{module}")


def command_of(arguments: Sequence[str]) -> str | None:
    """Return the first word of a command line that is not an option; None when an option other than `--factories`
    leads."""
    rest = iter(arguments)
    for word in rest:
        if word == "--factories":
            next(rest, None)
        elif not word.startswith("--factories="):
            return None if word.startswith("-") else word
    return None


def main() -> None:
    """Run the command; a user's error becomes one line on stderr and exit status 2."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack a character, such as Latin-1
    try:
        from infra.cli.passwords import hide_passwords

        hide_passwords()  # before the imports, because it may start the process again
        # One command's modules: those of all commands take longer to import than most commands run.
        register(command_of(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        run_command(_run)
    except BaseException as error:  # also SystemExit, by which every command ends
        end_process(error)
        raise


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise ConfigError that names `extra` in place of a ModuleNotFoundError for a library that it installs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OWN_PACKAGES:
            raise
        remedy = f"Install pointillist[{extra}], or run `make setup-dev` in a checkout."
        raise ConfigError(f"{error.name} is missing: this command needs it. {remedy}") from None


def _run() -> None:
    with needs_extra("server"):
        app()


OWN_PACKAGES = frozenset(("schemas", "producers", "processors", "consumers", "lab", "infra", "bundles"))
