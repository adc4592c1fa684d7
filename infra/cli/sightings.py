"""`pointillist sightings …`: the rules by which cameras raise alerts on a class or group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from consumers.sightings.rule import DEFAULTS, RANGES
from infra.cli import app
from infra.cli.access import DEFAULT_STATE, existing_layout
from infra.cli.audit_line import note
from schemas.camera_groups import parse_typed_group
from schemas.clock import unix_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection

sightings_app = typer.Typer(
    help="Rules that raise an alert when cameras see a class. A change takes effect within seconds and is "
    "kept in the audit log.",
    no_args_is_help=True,
)
app.add_typer(sightings_app, name="sightings")

T = TypeVar("T")
Cameras = Annotated[
    str, typer.Argument(help="Cameras: SITE/CAMERA, SITE/* or SITE/PREFIX*. Without SITE/, the site is `local`.")
]
Wanted = Annotated[str, typer.Argument(help="A class of the network, or a group of its classes, such as vehicle.")]
State = Annotated[Path, typer.Option(help="State folder of the system, running or not.")]


def _range(name: str, meaning: str) -> str:
    least, most = RANGES[name]
    return f"{meaning}, {least:g} to {most:g}."


@sightings_app.command("list")
def list_rules(state: State = DEFAULT_STATE) -> None:
    """Print the rules, each with its author."""
    from consumers.sightings.rules_table import read_rules, words_of

    for each in _change(state, read_rules):
        typer.echo(f"{each.cameras} {words_of(each)}, by {each.who}")


@sightings_app.command("set")
def set_rule(
    cameras: Cameras,
    wanted: Wanted,
    frames: Annotated[
        int,
        typer.Option(
            help=_range("frames", "Number n of frames of this class, among the newest 2n - 1, that raises an alert")
        ),
    ] = int(DEFAULTS["frames"]),
    confidence: Annotated[
        float, typer.Option(help=_range("confidence", "Minimum confidence of a verdict that counts"))
    ] = DEFAULTS["confidence"],
    absent_s: Annotated[
        float, typer.Option(help=_range("absent_s", "Seconds without the class after which a sighting ends"))
    ] = DEFAULTS["absent_s"],
    cooldown_s: Annotated[
        float, typer.Option(help=_range("cooldown_s", "Minimum seconds between two alerts of a camera"))
    ] = DEFAULTS["cooldown_s"],
    state: State = DEFAULT_STATE,
) -> None:
    """Set a rule: an alert is raised when these cameras see this class. It replaces their earlier rule for the
    class."""
    from consumers.console.access.owner import owner_name
    from consumers.sightings.rules_table import LOGGED_AS, new_rule, save_rule, words_of

    numbers = {"frames": frames, "confidence": confidence, "absent_s": absent_s, "cooldown_s": cooldown_s}
    fields = {"cameras": parse_typed_group(cameras), "wanted": wanted} | numbers
    rule = new_rule(fields, owner_name(), unix_ms())
    _change(state, lambda each: save_rule(each, rule))
    note(state, LOGGED_AS, rule.cameras, words_of(rule), "saved")
    typer.echo(f"{rule.cameras} {words_of(rule)}")


@sightings_app.command()
def remove(cameras: Cameras, wanted: Wanted, state: State = DEFAULT_STATE) -> None:
    """Remove a rule; its open sightings end."""
    from consumers.sightings.rules_table import LOGGED_AS, remove_rule, wanted_of

    known, name = parse_typed_group(cameras), wanted_of(wanted)
    _change(state, lambda each: remove_rule(each, known, name))
    note(state, LOGGED_AS, known, name, "removed")
    typer.echo(f"{known} {name} is removed")


def _change(state: Path, change: Callable[[Connection], T]) -> T:
    from consumers.database.changes import change_recorded

    return change_recorded(existing_layout(state).database_url, change)
