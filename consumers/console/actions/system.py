"""The last live audit, and the charts of the system: from Prometheus if it responds, else from the recorder."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.conservation.result import read_result
from consumers.console.access.error_response import error_response
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.system_charts import (
    CHARTS,
    RANGES,
    TRUTH,
    USUAL,
    alerts_by_minute,
    by_column,
)
from consumers.database.history import MINUTE_MS, minutes
from schemas.clock import unix_ms
from schemas.errors import BrokerError


async def audited(context: ConsoleContext) -> dict[str, Any]:
    """Return the last result of the monitor's live audit, or an object with its `error`."""
    found, no_records = await unless_away(context.read_recorded(read_result), None)
    if no_records:
        return {"error": no_records}
    return found or {"error": "the monitor has not finished an audit yet"}


async def history(context: ConsoleContext, request: Request) -> Response:
    """Return the charts of a time range."""
    asked = request.query_params.get("range", USUAL)
    if asked not in RANGES:
        return error_response(400, f"range: expected {', '.join(RANGES)}, got {asked[:40]!r}. Correct it.")
    return JSONResponse(await read_system_charts(context, RANGES[asked]))


async def read_system_charts(context: ConsoleContext, length_ms: int) -> dict[str, Any]:
    """Return `charts`, `columns`, `span_s`, and their source in `note`."""
    note = "From the recorder's own history, by the minute."
    if context.prometheus is not None:
        try:
            return await context.prometheus.read_charts(length_ms // 1000) | {
                "source": "prometheus",
                "note": "From Prometheus.",
            }
        except BrokerError as error:
            note = f"{error}. {note}"
    now_ms = unix_ms()
    since_ms = now_ms - length_ms

    def read(connection: Connection) -> dict[str, list[float | None]]:
        over = [each for each in minutes(connection, since_ms) if each["minute_ms"] + MINUTE_MS <= now_ms]
        return by_column(over, alerts_by_minute(connection, since_ms))

    columns, no_records = await unless_away(context.read_recorded(read), by_column([], {}))
    note = f"{no_records}. {note}" if no_records else note
    judged = any(value is not None for name in ("accuracy", "robust") for value in columns[name])
    charts = [*CHARTS, *([TRUTH] if judged else [])]
    span_s = (since_ms / 1000, now_ms / 1000)
    return {"span_s": span_s, "charts": charts, "columns": columns, "source": "recorder", "note": note}
