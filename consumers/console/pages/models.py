"""The models page: the model of each processor, publications, and accuracy where the true class is known."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.error_response import error_response
from consumers.console.access.rights import GuardedRoute, RightScope
from consumers.console.actions.jobs import job_choices
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.rollup import HOUR_MS
from consumers.database.comparisons import differences, newest_rollouts
from consumers.database.history import minutes
from consumers.database.tables import comparisons
from schemas.clock import unix_ms
from schemas.errors import MalformedError
from schemas.identity import CameraId
from schemas.messages.models import DRIFT_WINDOWS
from schemas.messages.rollout import slots
from schemas.messages.server_messages import open_difference
from schemas.pointillist_pb2 import Comparison, ServedModel, Slot


def model_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        GuardedRoute("/models", partial(_page, context), reach=RightScope.FLEET),
        GuardedRoute(
            "/models/differences/{begun_ms:number}/{boot:number}/{seq:number}/{site}/{camera}.jpg",
            partial(_picture, context),
        ),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    watch = context.models

    def judged(connection: Connection) -> tuple[float | None, float | None]:
        hour = minutes(connection, unix_ms() - HOUR_MS)
        return _share(hour, "judged"), _share(hour, "attacked")

    running = slots(watch.models).rollout if watch is not None else None
    rollout = watch.listed.rollout if watch is not None and watch.listed.HasField("rollout") else None

    def compared(connection: Connection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        past = newest_rollouts(connection)
        newest = rollout.begun_ms if rollout is not None else past[0]["begun_ms"] if past else 0
        return past, differences(connection, newest)

    # The recorder of an earlier release has made no such tables.
    (clean, robust), _ = await unless_away(context.read_recorded(judged), (None, None))
    (rollouts, differing), _ = await unless_away(context.read_recorded(compared), ([], []))
    return context.page(
        request,
        "models.html",
        published=list(watch.models.published) if watch else [],
        live=watch.live if watch else None,
        refused=watch.refused if watch else "",
        served=sorted(watch.served.items()) if watch else [],
        drift_line=drift_line,
        rollout=rollout,
        runs=running is not None,
        slot=Slot.Name(running.slot).lower() if running is not None else "",
        rollouts=rollouts,
        differing=differing,
        clean=clean,
        robust=robust,
        **await job_choices(context, request),
    )


def drift_line(served: ServedModel) -> str:
    """Return the drift of a processor's model in words; ratios above 1 are drift."""
    if not served.HasField("drift"):
        return "not measured: the bundle has no [drift] table"
    if served.drift.windows < DRIFT_WINDOWS:
        return f"collecting frames, window {served.drift.windows + 1} of {DRIFT_WINDOWS}"
    ratios = {"pictures": served.drift.pictures, "answers": served.drift.answers}
    shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    return f"{shown} of the limit{'; drift' if max(ratios.values()) > 1 else ''}"


def _share(hour: list[dict[str, int]], kind: str) -> float | None:
    total = sum(minute[kind] for minute in hour)
    return sum(minute[f"{kind}_correct"] for minute in hour) / total if total else None


async def _picture(context: ConsoleContext, request: Request) -> Response:
    """Return the picture of a frame on which the models differ, opened with the console's key."""
    asked = request.path_params
    camera = f"{asked['site']}/{asked['camera']}"
    frame = (comparisons.c.camera == camera, comparisons.c.boot == asked["boot"], comparisons.c.seq == asked["seq"])

    mine = select(comparisons.c.picture).where(*frame, comparisons.c.begun_ms == asked["begun_ms"])
    found, _ = await unless_away(context.read_recorded(Connection.scalar, mine), b"")
    if not found:
        return error_response(404, "picture: expected a frame of this rollout with a picture, got none")
    comparison = Comparison(boot_id=asked["boot"], seq=asked["seq"], picture=found)
    try:
        open_difference(comparison, CameraId(camera), context.keys)
    except MalformedError:
        comparison.picture = b""
    if not comparison.picture:
        return error_response(404, "picture: expected a frame of this rollout with a picture, got none")
    return Response(comparison.picture, media_type="image/jpeg")
