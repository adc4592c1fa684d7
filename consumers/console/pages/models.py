"""The models page: the model of each processor, publications, and accuracy where the true class is known."""

from __future__ import annotations

import time
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumers.console.context import ConsoleContext
from consumers.console.data.rollup import HOUR_MS
from consumers.console.pages.jobs import offered
from consumers.database.history import minutes
from schemas.errors import UserError


def model_routes(context: ConsoleContext) -> list[Route]:
    """Return the route of the page."""
    return [Route("/models", partial(_page, context))]


async def _page(context: ConsoleContext, request: Request) -> Response:
    watch = context.models

    def judged() -> tuple[float | None, float | None]:
        with context.engine().begin() as connection:
            hour = minutes(connection, time.time_ns() // 10**6 - HOUR_MS)
        return _share(hour, "judged"), _share(hour, "attacked")

    try:
        clean, robust = await context.read(judged)
    except UserError:
        clean = robust = None
    return context.page(
        request,
        "models.html",
        published=list(watch.models.published) if watch else [],
        live=watch.live if watch else None,
        refused=watch.refused if watch else "",
        served=sorted(watch.served.items()) if watch else [],
        clean=clean,
        robust=robust,
        **await offered(context),
    )


def _share(hour: list[dict[str, int]], kind: str) -> float | None:
    total = sum(minute[kind] for minute in hour)
    return sum(minute[f"{kind}_correct"] for minute in hour) / total if total else None
