"""Switches of groups of cameras to a preset: which cameras have their command, and which have obeyed it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Column, Connection, Engine, Integer, Row, Table, Text, delete, select, update

from consumers.cameras.camera import Camera
from consumers.console.data.commands import SETTINGS
from consumers.console.data.fleet import Fleet
from consumers.database.console_store import metadata
from schemas.pointillist_pb2 import Command

MOST_SWITCHES: Final = 50
"""Switches that are kept, the newest. Older ones stay until all their commands are sent."""
RATIO: Final = "dropped_per_block"
"""The setting that a drop policy may steer."""
RATE: Final = "frames_per_second"

switches = Table(
    "console_switches",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    *(Column(name, Text, nullable=False) for name in ("cameras", "preset", "changes", "who")),
    Column("at_ms", BigInteger, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("names", "unsent", "refused")),
)
"""`changes`, `names`, `unsent` and `refused` are JSON."""


class Outcome(StrEnum):
    """The state of a camera's command."""

    OBEYED = "obeyed"
    """The camera announces the settings of the switch."""
    UNSENT = "not sent yet"
    AWAY = "away"
    """The broker holds the command until the camera is back."""
    WAITING = "not confirmed"
    """The camera sends frames and has not announced the command."""
    CHANGED = "changed since"
    """The camera announces a later command with other settings."""
    REFUSED = "refused"
    """The console could not command it."""


class Switch(NamedTuple):
    """One switch of a group."""

    number: int
    """Ascending; 0 before it is saved."""
    cameras: str
    """The group, see `schemas.camera_groups`."""
    preset: str
    """Name of the preset, `own settings`, or empty for settings without a name."""
    changes: Mapping[str, Any]
    """Values by the names of `Command`; none returns cameras to their own settings."""
    who: str
    """The user."""
    at_ms: int
    """Time of the decision, Unix time in milliseconds."""
    names: Sequence[str]
    """The cameras of the group at that time."""
    unsent: Sequence[str] = ()
    """The cameras whose command is still to be sent."""
    refused: Mapping[str, str] = {}
    """Reasons by the name of a camera that could not be commanded."""


_JSON: Final = ("changes", "names", "unsent", "refused")
_SENT: Final = switches.c.unsent == "[]"
"""The condition that a switch has no unsent commands."""


def add_switch(engine: Engine, switch: Switch) -> int:
    """Insert a switch whose commands are all unsent, and return its number.

    Earlier switches no longer command these cameras. Beyond the newest `MOST_SWITCHES`, only those with unsent commands
    are kept: at most one for each camera.
    """
    values = switch._replace(unsent=switch.names)._asdict() | {"changes": dict(switch.changes), "refused": {}}
    del values["number"]
    values |= {name: json.dumps(values[name]) for name in _JSON}
    with engine.begin() as connection:
        _supersede(connection, set(switch.names))
        made = connection.execute(switches.insert().values(values)).inserted_primary_key
        assert made is not None
        connection.execute(delete(switches).where(switches.c.number <= made[0] - MOST_SWITCHES, _SENT))
        return int(made[0])


def supersede(engine: Engine, camera: str) -> None:
    """Remove a camera's unsent commands from all switches, before a later command to it is sent."""
    with engine.begin() as connection:
        _supersede(connection, {camera})


def _supersede(connection: Connection, names: Set[str]) -> None:
    for earlier in map(_switch, connection.execute(select(switches).where(~_SENT)).all()):
        if not names.isdisjoint(earlier.unsent):
            _write_progress(connection.execute, earlier, done=names, refused={})


def is_unsent(engine: Engine, number: int, camera: str) -> bool:
    """Return whether a camera's command of a switch is still to be sent."""
    with engine.begin() as connection:
        unsent = connection.scalar(select(switches.c.unsent).where(switches.c.number == number))
    return unsent is not None and camera in json.loads(unsent)


def note_sent(engine: Engine, number: int, sent: Collection[str], refused: Mapping[str, str]) -> None:
    """Note which commands of a switch were sent, and which cameras could not be commanded."""
    with engine.begin() as connection:
        row = connection.execute(select(switches).where(switches.c.number == number)).first()
        if row is not None:
            _write_progress(connection.execute, _switch(row), done={*sent, *refused}, refused=refused)


def _write_progress(
    execute: Callable[..., object], switch: Switch, *, done: Collection[str], refused: Mapping[str, str]
) -> None:
    unsent = [each for each in switch.unsent if each not in done]
    values = {"unsent": json.dumps(unsent), "refused": json.dumps({**switch.refused, **refused})}
    execute(update(switches).where(switches.c.number == switch.number).values(values))


def read_switches(engine: Engine, *, unfinished: bool = False) -> list[Switch]:
    """Return the switches, the newest first; only those with unsent commands if `unfinished`."""
    query = select(switches).order_by(switches.c.number.desc())
    if unfinished:
        query = query.where(~_SENT)
    with engine.begin() as connection:
        return [_switch(row) for row in connection.execute(query)]


def _switch(row: Row[Any]) -> Switch:
    found = Switch(*(getattr(row, name) for name in Switch._fields))
    return found._replace(**{name: json.loads(getattr(found, name)) for name in _JSON})


def wanted_of(changes: Mapping[str, Any], *, steered: bool) -> dict[str, Any]:
    """Return the settings that a camera gets: a drop policy that steers it keeps its ratio."""
    return {name: value for name, value in changes.items() if not (steered and name == RATIO)}


def outcomes(switch: Switch, fleet: Fleet, is_steered: Callable[[str], bool]) -> dict[Outcome, list[str]]:
    """Return the cameras of a switch by the outcome of their commands, as the cameras announce them now.

    `is_steered` returns whether a drop policy steers a camera. Cameras that were removed since are left out.
    """
    unsent = set(switch.unsent)
    found: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
    for name in switch.names:
        card, camera = fleet.card(name), fleet.camera(name)
        if card is None or camera is None:
            continue
        if name in switch.refused:
            outcome = Outcome.REFUSED
        elif name in unsent:
            outcome = Outcome.UNSENT
        elif camera.meta is not None and camera.meta.command_state.issued_ms >= switch.at_ms:
            wanted = wanted_of(switch.changes, steered=is_steered(name))
            outcome = Outcome.OBEYED if _announces(camera, wanted, bool(switch.changes)) else Outcome.CHANGED
        else:
            outcome = Outcome.AWAY if card.is_gone else Outcome.WAITING
        found[outcome].append(name)
    return found


def _announces(camera: Camera, wanted: Mapping[str, Any], has_changes: bool) -> bool:
    assert camera.meta is not None
    announced, expected = camera.meta.command_state, Command(**wanted)
    if not has_changes:
        return not any(announced.HasField(each) for each in SETTINGS)
    # The rate 0 restores the camera's own one: the camera then announces no commanded rate.
    is_held = {each: announced.HasField(each) or (each == RATE and not wanted[each]) for each in wanted}
    return all(is_held[each] and getattr(announced, each) == getattr(expected, each) for each in wanted)
