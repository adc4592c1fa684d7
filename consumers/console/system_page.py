"""The system: conservation as a picture, charts of the last day, what the console reaches, and the audit log."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumers.console.desk import Desk
from consumers.console.rollup import DAY_MS
from consumers.database.history import minutes
from schemas.errors import UserError

FATES: Final = ("recorded", "dead_lettered", "shed", "pending", "lost", "unread")
"""What can have become of a published frame, as the audit's counts name them."""


def system_routes(desk: Desk) -> list[Route]:
    """Its routes."""
    return [
        Route("/conservation", partial(_conservation, desk)),
        Route("/conservation/now", partial(_conservation_now, desk)),
        Route("/system", partial(_system, desk)),
        Route("/system/history", partial(_day, desk)),
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
    conditions = desk.health.report()[1] if desk.health is not None else {}
    return desk.page(
        request,
        "system.html",
        conditions=conditions,
        operations=await desk.read(desk.store.noted, None, 50),
        cameras=len(desk.fleet.cards()),
        rate=sum(card.frames_per_second for card in desk.fleet.cards()),
    )


async def _day(desk: Desk, _request: Request) -> Response:
    now_ms = time.time_ns() // 10**6

    def read() -> list[dict[str, int]]:
        with desk.engine().begin() as connection:
            return minutes(connection, now_ms - DAY_MS)

    try:
        found = await desk.read(read)
    except UserError:
        found = []
    return JSONResponse({"span_s": ((now_ms - DAY_MS) / 1000, now_ms / 1000), "columns": by_column(found)})


def by_column(found: list[dict[str, int]]) -> dict[str, list[float | None]]:
    """What was recorded in each minute, as it is drawn; in a gap one row without values."""
    names = ("t", "rate", "late_s", "slowest_s", "sent", "saved", "accuracy", "robust", "flagged")
    drawn: dict[str, list[float | None]] = {name: [] for name in names}
    before_ms: int | None = None
    for row in found:
        if before_ms is not None and row["minute_ms"] - before_ms > 60_000:
            for name, column in drawn.items():
                column.append((before_ms + 60_000) / 1000 if name == "t" else None)
        before_ms = row["minute_ms"]
        values = {
            "t": before_ms / 1000,
            "rate": row["frames"] / 60,
            "late_s": row["late_ms"] / row["frames"] / 1000,
            "slowest_s": row["slowest_ms"] / 1000,
            "sent": row["frame_bytes"] / 60,
            "saved": 1 - row["frame_bytes"] / row["raw_bytes"] if row["raw_bytes"] else None,
            "accuracy": row["judged_correct"] / row["judged"] if row["judged"] else None,
            "robust": row["attacked_correct"] / row["attacked"] if row["attacked"] else None,
            "flagged": row["flagged"] / row["checked"] if row["checked"] else None,
        }
        for name, column in drawn.items():
            column.append(values[name])
    return drawn
