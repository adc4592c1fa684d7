"""The dead-letter page: counts by reason, one payload decoded, and replay after the cause is fixed."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.gate import form_of
from consumers.console.access.rights import GuardedRoute, Right, RightScope
from consumers.console.access.sight import Sight
from consumers.console.access.sites import may, sight_of
from consumers.console.actions.dead_letters import replay_reason
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.pages.outcomes import back, outcome_of
from consumers.console.replay import MOST, MOST_BYTES, is_frame, reasons
from consumers.database.tables import dead_letters
from schemas.pointillist_pb2 import Frame

SHOWN: Final = 50
IDENTITIES: Final = {"verified": True, "not verified": False}
"""Values of the filter by identity."""
_EXPLAINED: Final = (
    "boot_id", "seq", "captured_ms", "width", "height", "channels", "dropped_per_block", "whole", "profile",
    "key_generation", "key_distance",
)  # fmt: skip


def letter_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        GuardedRoute("/dead-letters", partial(_page, context), reach=RightScope.PART),
        GuardedRoute(
            "/dead-letters/{topic}/{partition:number}/{offset:number}", partial(_letter, context), reach=RightScope.PART
        ),
        GuardedRoute("/dead-letters/replay", partial(_replay, context), "POST", Right.ADMIN, RightScope.PART),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    reason, identity = (request.query_params.get(name, "")[:80] for name in ("reason", "identity"))
    identity = identity if identity in IDENTITIES else ""
    sight = sight_of(request)

    def read(connection: Connection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        newest = _newest(connection, reason, IDENTITIES.get(identity), sight) if reason else []
        return reasons(connection, sight), newest

    (found, shown), no_records = await unless_away(context.read_recorded(read), ([], []))
    totals = Counter[str]()
    for each in found:
        totals[each["reason"]] += each["letters"]
    return context.page(
        request,
        "dead_letters.html",
        reasons=found,
        totals=totals.most_common(),
        reason=reason,
        identity=identity,
        shown=shown,
        no_records=no_records,
        can_replay=may(request, Right.ADMIN) and any(is_frame(each) for each in found if each["reason"] == reason),
        outcome=outcome_of(request),
        most=SHOWN,
        most_replayed=MOST,
        most_bytes_replayed=MOST_BYTES,
    )


def _newest(connection: Connection, reason: str, verified: bool | None, sight: Sight) -> list[dict[str, Any]]:
    """Return the newest letters of a reason, those with a verified identity first: anybody can send others."""
    columns = [column for column in dead_letters.columns if column.name not in ("payload", "stored_bytes")]
    query = select(*columns).where(dead_letters.c.reason == reason, sight.where(dead_letters.c.camera))
    if verified is not None:
        query = query.where(dead_letters.c.verified == verified)
    query = query.order_by(dead_letters.c.verified.desc(), dead_letters.c.recorded_ms.desc())
    return [dict(row) for row in connection.execute(query.limit(SHOWN)).mappings()]


async def _letter(context: ConsoleContext, request: Request) -> Response:
    place = request.path_params

    def read(connection: Connection) -> dict[str, Any] | None:
        mine = [dead_letters.c[name] == place[name] for name in ("topic", "partition", "offset")]
        row = connection.execute(select(dead_letters).where(*mine)).mappings().first()
        return dict(row) if row is not None else None

    found = await context.read_recorded(read)
    if found is None or not sight_of(request).sees(found["camera"]):
        return context.page(request, "missing.html", 404, what="This dead letter does not exist or was purged.")
    return context.page(
        request, "dead_letter.html", letter=found, frame=explained(found["payload"]), dump=dumped(found["payload"])
    )


def explained(payload: bytes) -> dict[str, Any]:
    """Return the frame fields at a payload's beginning; empty if it is not a frame. Nothing is verified here."""
    for end in (len(payload), *range(min(len(payload), 64), 8, -1)):
        try:
            frame = Frame.FromString(payload[:end])
        except DecodeError:
            continue
        if frame.boot_id:
            return {name: getattr(frame, name) for name in _EXPLAINED}
    return {}


def dumped(payload: bytes) -> str:
    """Return the first 512 bytes in hexadecimal and as text, sixteen bytes a line."""
    lines = []
    for start in range(0, min(len(payload), 512), 16):
        part = payload[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)


async def _replay(context: ConsoleContext, request: Request) -> Response:
    reason = form_of(request).get("reason", "")[:80]
    outcome, is_done = await replay_reason(context, request, reason)
    return back("/dead-letters", outcome, failed=not is_done, reason=reason)
