"""The operations of the REST API for presets, and for switches of groups."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.rights import Right, RightScope
from consumers.console.access.sites import sight_of
from consumers.console.actions.presets import listed, remove, save, switch
from consumers.console.api.operation import NUMBER, TEXT, Operation, answer_change, fields
from consumers.console.context import ConsoleContext
from consumers.console.data.presets import read_presets
from schemas.messages.frame import PROFILES

_PRESETS: Final = "/presets"
_SWITCHES: Final = "/switches"
SETTINGS_FIELDS: Final[dict[str, Any]] = {
    "drop_ratio": NUMBER,
    "probe_share": NUMBER,
    "profile": {"enum": [*PROFILES]},
    "enabled": {"type": "boolean"},
    "fps": {"type": "number", "description": "Frames per second; 0 restores the camera's own rate"},
}
"""The settings of a camera that commands change."""


async def _all(context: ConsoleContext, _request: Request) -> Response:
    found = await context.read(read_presets, context.store.engine)
    return JSONResponse([each._asdict() for each in found])


async def _switches(context: ConsoleContext, request: Request) -> Response:
    own = ("number", "cameras", "preset", "changes", "who", "at_ms", "refused")
    return JSONResponse(
        [
            {name: getattr(each.switch, name) for name in own} | {"outcomes": each.cameras}
            for each in await listed(context, sight_of(request))
        ]
    )


PRESET_OPERATIONS: Final = (
    Operation(
        "GET", _PRESETS, "The presets, which are named sets of settings", _all,
        "A list of `name`, `changes` (settings by the names of the message `Command`), `who` and `at_ms`.",
        reach=RightScope.SAME,
    ),
    Operation(
        "POST", _PRESETS, "Save a preset", partial(answer_change, save),
        body=fields("name", name=TEXT, **SETTINGS_FIELDS), needed=Right.OPERATOR, reach=RightScope.FLEET,
    ),
    Operation(
        "POST", f"{_PRESETS}/remove", "Remove a preset; cameras keep their settings",
        partial(answer_change, remove),
        body=fields("name", name=TEXT), needed=Right.OPERATOR, reach=RightScope.FLEET,
    ),
    Operation(
        "GET", _SWITCHES, "The newest switches of groups, and which cameras have obeyed", _switches,
        "A list of switches: `number`, `cameras`, `preset`, `changes`, `who`, `at_ms`; `outcomes`, the names of its "
        "cameras by `obeyed`, `not sent yet`, `away`, `not confirmed`, `changed since` and `refused`; `refused`, the "
        "reasons.",
        reach=RightScope.PART,
    ),
    Operation(
        "POST", _SWITCHES, "Switch a group to a preset, or to settings without a name, by signed, retained commands",
        partial(answer_change, switch),
        body=fields(
            "cameras",
            cameras=TEXT,
            preset={"type": "string", "description": "A preset's name; `own settings` returns cameras to theirs"},
            settings=fields(**SETTINGS_FIELDS),
        ),
        needed=Right.OPERATOR, reach=RightScope.PART,
    ),
)  # fmt: skip
