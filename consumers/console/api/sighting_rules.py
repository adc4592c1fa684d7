"""The operations of the REST API for sighting rules."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.rights import Right, RightScope
from consumers.console.access.sites import sight_of
from consumers.console.actions.sighting_rules import listed, remove, save
from consumers.console.api.operation import TEXT, Operation, answer_change, fields
from consumers.console.context import ConsoleContext
from consumers.sightings.rule import DEFAULTS, RANGES

_PLACE: Final = "/sighting-rules"
_WANTED: Final = {"type": "string", "description": "A class of the network, or a group of its classes"}


async def _all(context: ConsoleContext, request: Request) -> Response:
    return JSONResponse([each._asdict() for each in await listed(context, sight_of(request))])


def _schema(name: str) -> dict[str, Any]:
    least, most = RANGES[name]
    words = f"{least:g} to {most:g}; {DEFAULTS[name]:g} without it"
    return {"type": "integer" if name == "frames" else "number", "description": words}


RULE_OPERATIONS: Final = (
    Operation(
        "GET",
        _PLACE,
        "The sighting rules",
        _all,
        "A list of rules: the fields of a new one, `who` and `at_ms`.",
        reach=RightScope.PART,
    ),
    Operation(
        "POST",
        _PLACE,
        "Set the sighting rule of a class or group for `site/camera`, `site/*` or `site/beginning*`",
        partial(answer_change, save),
        body=fields("cameras", "wanted", cameras=TEXT, wanted=_WANTED, **{name: _schema(name) for name in RANGES}),
        needed=Right.OPERATOR,
        reach=RightScope.PART,
    ),
    Operation(
        "POST",
        f"{_PLACE}/remove",
        "Remove a sighting rule; its sightings end",
        partial(answer_change, remove),
        body=fields("cameras", "wanted", cameras=TEXT, wanted=_WANTED),
        needed=Right.OPERATOR,
        reach=RightScope.PART,
    ),
)
