"""Presets that users save and remove, and switches of groups to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from consumers.console.access.gate import session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.sight import Sight
from consumers.console.access.sites import require
from consumers.console.actions.changes import REMOVED, SAVED
from consumers.console.context import ConsoleContext
from consumers.console.data.commands import NO_BROKER, changes_of
from consumers.console.data.presets import (
    OWN_SETTINGS,
    new_preset,
    preset_name,
    read_presets,
    remove_preset,
    save_preset,
    words_of,
)
from consumers.console.data.switches import Outcome, Switch, add_switch, outcomes, read_switches
from schemas.camera_groups import most_specific, parse_group
from schemas.clock import unix_ms
from schemas.errors import ConfigError

SHOWN: Final = 20
"""Switches on the page, and names of cameras for each outcome."""


@dataclass(frozen=True)
class ListedSwitch:
    """A switch with the cameras by the outcome of their commands."""

    switch: Switch
    cameras: Mapping[Outcome, list[str]]

    @property
    def words(self) -> str:
        """Its settings in plain words."""
        return words_of(self.switch.changes)


async def save(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Save a preset, and log it. Return `SAVED`. Raises ConfigError for wrong fields."""
    who = session_of(request).name
    made = new_preset(fields, who, unix_ms())
    await context.write(save_preset, context.store.engine, made)
    await context.note(who, "preset", made.name, words_of(made.changes), SAVED)
    return SAVED


async def remove(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Remove a preset, and log it. Return `REMOVED`. Cameras keep their settings.

    Raises ConfigError without such a preset.
    """
    known = preset_name(fields.get("name"))
    if not await context.write(remove_preset, context.store.engine, known):
        raise ConfigError(f"preset: expected one of the list, got {known}. Reload the page.")
    await context.note(session_of(request).name, "preset", known, "", REMOVED)
    return REMOVED


async def switch(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Switch a group to a preset or to other settings, and log it. Return the outcome.

    `fields` are `cameras`, and either `preset`, where `own settings` returns cameras to theirs, or `settings`. Raises
    ConfigError for others.
    """
    who, outcome = session_of(request).name, "switched"
    group = parse_group(fields.get("cameras"))
    require(request, group)
    if context.commands is None:
        raise RefusedActionError(NO_BROKER, 503)
    preset, changes = await _preset_fields(context, fields)
    own = (card.name for card in context.fleet.own_cards())
    names = sorted(name for name in own if most_specific(name, {group: True}))
    if not names:
        raise ConfigError(f"cameras: expected a group with cameras, got {group}. Correct it.")
    made = Switch(0, group, preset, changes, who, unix_ms(), names)
    await context.write(add_switch, context.store.engine, made)
    named = f"{preset}: " if preset and changes else ""
    await context.note(who, "preset", group, f"{named}{words_of(changes)}, {len(names)} cameras", outcome)
    context.switch_due.set()
    return outcome


async def _preset_fields(context: ConsoleContext, fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name of the preset and its settings by the names of `Command`. Raises ConfigError."""
    settings = fields.get("settings")
    if settings is not None:
        if "preset" in fields or not isinstance(settings, dict):
            raise ConfigError("settings: expected an object, and no preset next to it. Correct it.")
        return "", changes_of(settings)
    name = preset_name(fields.get("preset"))
    if name == OWN_SETTINGS:
        return name, {}
    found = {each.name: each for each in await context.read(read_presets, context.store.engine)}.get(name)
    if found is None:
        raise ConfigError(f"preset: expected one of the list or {OWN_SETTINGS!r}, got {name!r}. Correct it.")
    return name, found.changes


async def listed(context: ConsoleContext, sight: Sight) -> list[ListedSwitch]:
    """Return the newest switches of groups at these sites."""
    found = [each for each in await context.read(read_switches, context.store.engine) if sight.sees(each.cameras)]
    plan = context.drop_plan

    def is_steered(camera: str) -> bool:
        return plan.policy_of(camera) is not None

    return [ListedSwitch(each, outcomes(each, context.fleet, is_steered)) for each in found[:SHOWN]]
