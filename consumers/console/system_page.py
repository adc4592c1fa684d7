"""The system: conservation as a picture, charts of the last hours, what the console reaches, and the audit log."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumers.console.desk import Desk
from consumers.console.gate import no
from consumers.console.system_charts import RANGES, USUAL, system_past

FATES: Final = ("recorded", "dead_lettered", "shed", "pending", "lost", "unread")
"""What can have become of a published frame, as the audit's counts name them."""


def system_routes(desk: Desk) -> list[Route]:
    """Its routes."""
    return [
        Route("/conservation", partial(_conservation, desk)),
        Route("/conservation/now", partial(_conservation_now, desk)),
        Route("/system", partial(_system, desk)),
        Route("/system/history", partial(past, desk)),
    ]


async def audited(desk: Desk) -> dict[str, Any]:
    """The audit as it is now; its `error` where there is none yet."""
    if desk.audit is None:
        return {"error": "this console audits nothing"}
    found: dict[str, Any] = json.loads(await desk.audit.answer())
    return found


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The fates as parts of a bar 1000 wide; each that is not empty is wide enough to be seen."""
    counts = {fate: int(found.get(f"frames_{fate}", 0)) for fate in FATES}
    published = max(1, sum(counts.values()))
    widths = {fate: max(4.0, 1000 * number / published) if number else 0.0 for fate, number in counts.items()}
    scale = 1000 / max(1.0, sum(widths.values()))
    parts, x = [], 0.0
    for fate, number in counts.items():
        width = widths[fate] * scale
        parts.append({"fate": fate, "count": number, "x": round(x, 1), "width": round(width, 1)})
        x += width
    return parts


async def _conservation(desk: Desk, request: Request) -> Response:
    found = await audited(desk)
    return desk.page(request, "conservation.html", found=found, bars=bars(found))


async def _conservation_now(desk: Desk, _request: Request) -> Response:
    found = await audited(desk)
    return Response(desk.render("balance.html", found=found, bars=bars(found)), media_type="text/html")


async def _system(desk: Desk, request: Request) -> Response:
    asked = request.query_params.get("range", USUAL)
    conditions = desk.health.report()[1] if desk.health is not None else {}
    return desk.page(
        request,
        "system.html",
        ranges=list(RANGES),
        range=asked if asked in RANGES else USUAL,
        conditions=conditions,
        operations=await desk.read(desk.store.noted, None, 50),
        cameras=len(desk.fleet.cards()),
        rate=sum(card.frames_per_second for card in desk.fleet.cards()),
    )


async def past(desk: Desk, request: Request) -> Response:
    """The charts of a range."""
    length_ms = RANGES.get(request.query_params.get("range", USUAL))
    if length_ms is None:
        return no(400, f"expected range={'|'.join(RANGES)}")
    return JSONResponse(await system_past(desk, length_ms))
