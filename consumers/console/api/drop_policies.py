"""The operations of the REST API for drop policies."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.rights import Right, RightScope
from consumers.console.access.sites import sight_of
from consumers.console.actions.drop_policies import listed, remove, save
from consumers.console.api.operation import TEXT, Operation, answer_change, fields
from consumers.console.context import ConsoleContext
from consumers.console.data.drop_policies import DEFAULTS, OPTIONAL, RANGES

_PLACE: Final = "/drop-policies"
_REQUIRED: Final = ("cameras", *(name for name in RANGES if name not in DEFAULTS))


async def _all(context: ConsoleContext, request: Request) -> Response:
    found = listed(context, sight_of(request))
    return JSONResponse([each.policy._asdict() | each.counts._asdict() for each in found])


def _schema(name: str) -> dict[str, Any]:
    least, most = RANGES[name]
    words = f"{least:g} to {most:g}"
    if name in DEFAULTS:
        default = DEFAULTS[name]
        words += f"; {'ignored' if default is None else format(default, 'g')} without it"
    return {"type": ["number", "null"] if name in OPTIONAL else "number", "description": words}


POLICY_OPERATIONS: Final = (
    Operation(
        "GET",
        _PLACE,
        "The drop policies",
        _all,
        "A list of policies: the fields of a new one, `who` and `at_ms`; `steered`, the number of its cameras; "
        "`raised`, of those above the lowest ratio; `disobeying`, of those that do not announce the wanted one.",
        reach=RightScope.PART,
    ),
    Operation(
        "POST",
        _PLACE,
        "Set the drop policy of a group: `site/camera`, `site/*` or `site/beginning*`",
        partial(answer_change, save),
        body=fields(*_REQUIRED, cameras=TEXT, **{name: _schema(name) for name in RANGES}),
        needed=Right.OPERATOR,
        reach=RightScope.PART,
    ),
    Operation(
        "POST",
        f"{_PLACE}/remove",
        "Remove the drop policy of a group; its cameras return to the lowest ratio",
        partial(answer_change, remove),
        body=fields("cameras", cameras=TEXT),
        needed=Right.OPERATOR,
        reach=RightScope.PART,
    ),
)
