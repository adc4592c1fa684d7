"""The page of presets: named sets of settings, switches of groups to one, and the cameras that have obeyed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.gate import session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sight import Sight
from consumers.console.access.sites import may, require, visible_to
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
from consumers.console.pages.outcomes import REMOVED, SAVED, list_routes, outcome_of, sites_of, submit
from schemas.camera_groups import most_specific, parse_group
from schemas.clock import unix_ms
from schemas.errors import ConfigError
from schemas.messages.frame import PROFILES

_PLACE: Final = "/presets"
_SHOWN: Final = 20
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


def preset_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        *list_routes(context, _PLACE, _page, save, remove, RightScope.FLEET),
        GuardedRoute(
            f"{_PLACE}/switch", partial(submit, context, _PLACE, switch), "POST", Right.OPERATOR, RightScope.PART
        ),
    ]


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

    return [ListedSwitch(each, outcomes(each, context.fleet, is_steered)) for each in found[:_SHOWN]]


async def _page(context: ConsoleContext, request: Request) -> Response:
    sight = visible_to(request)
    sites = sites_of(context, sight)
    return context.page(
        request,
        "presets.html",
        presets=await context.read(read_presets, context.store.engine),
        words_of=words_of,
        switches=await listed(context, sight),
        shown=_SHOWN,
        profiles=sorted(PROFILES),
        own_settings=OWN_SETTINGS,
        sites=sites,
        can_change=may(request, Right.OPERATOR, EVERYWHERE),
        can_switch=any(may(request, Right.OPERATOR, f"{site}/") for site in sites),
        can_send=context.commands is not None,
        outcome=outcome_of(request),
    )
