"""The system: its roles and rules, conservation as a picture, charts of the last hours, and the audit log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from consumers.conservation.result import read_result
from consumers.console.desk import Desk
from consumers.console.fleet_page import header_changes
from consumers.console.gate import no
from consumers.console.stream import Streams
from consumers.console.system_charts import RANGES, USUAL, system_past
from schemas.errors import UserError

FATES: Final = ("recorded", "dead_lettered", "shed", "pending", "lost", "unread")
"""What can have become of a published frame, as the audit's counts name them."""


def system_routes(desk: Desk, streams: Streams) -> list[Route]:
    """Its routes."""
    return [
        Route("/conservation", partial(_conservation, desk)),
        Route("/conservation/now", partial(_conservation_now, desk)),
        Route("/system", partial(_system, desk)),
        Route("/system/history", partial(past, desk)),
        Route("/system/live", partial(_live, desk, streams)),
        Route("/rules", partial(_rules, desk)),
        Route("/rules/graph", _rules_of_prometheus),
        Route("/runbooks", partial(_runbooks, desk)),
    ]


async def audited(desk: Desk) -> dict[str, Any]:
    """Return the last result of the monitor's live audit; its `error` where there is none."""

    def read() -> dict[str, Any] | None:
        with desk.engine().begin() as connection:
            return read_result(connection)

    try:
        found = await desk.read(read)
    except (UserError, SQLAlchemyError) as error:
        return {"error": str(error) if isinstance(error, UserError) else "the recorder's database does not answer"}
    return found or {"error": "the monitor has not audited yet"}


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
        stream="/system/live",
        **desk.watch.told(),
    )


async def _live(desk: Desk, streams: Streams, request: Request) -> Response:
    return streams.answer(request, changes_of_system(desk))


def changes_of_system(desk: Desk) -> Callable[[], str]:
    """The parts of the System page that changed since the last call: the header, the roles and the rules."""
    header, shown = header_changes(desk), ""

    def changed() -> str:
        nonlocal shown
        now = desk.render("system_now.html", pushed=True, runbooks=desk.runbooks is not None, **desk.watch.told())
        if now == shown:
            return header()
        shown = now
        return header() + now

    return changed


async def _rules(desk: Desk, request: Request) -> Response:
    return desk.page(request, "rules.html", **desk.watch.told())


async def _rules_of_prometheus(_request: Request) -> Response:
    """Redirect to the rules: under `up`, the `generatorURL` of an alert leads here."""
    return RedirectResponse("/rules", 303)


async def _runbooks(desk: Desk, request: Request) -> Response:
    if desk.runbooks is None:
        return desk.page(request, "missing.html", 404, what="This console was started without runbooks.")
    text = await desk.read(desk.runbooks.read_text, encoding="utf-8")
    body = text.partition("<body>")[2].partition("</body>")[0]
    return desk.page(request, "runbooks.html", body=body)


async def past(desk: Desk, request: Request) -> Response:
    """The charts of a range."""
    length_ms = RANGES.get(request.query_params.get("range", USUAL))
    if length_ms is None:
        return no(400, f"expected range={'|'.join(RANGES)}")
    return JSONResponse(await system_past(desk, length_ms))
