"""Dead letters: by reason, one payload explained, and once more after the cause is mended."""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from google.protobuf.message import DecodeError
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from consumers.console.desk import Desk
from consumers.console.gate import form_of, may, no, session_of
from consumers.console.replay import letters, reasons, replay
from consumers.console.users import Right
from consumers.database.tables import dead_letters
from schemas.errors import UserError
from schemas.pointillist_pb2 import Frame

SHOWN: Final = 100
_EXPLAINED: Final = (
    "boot_id", "seq", "captured_ms", "width", "height", "channels", "dropped_per_block", "whole", "profile",
    "key_generation", "key_distance",
)  # fmt: skip


def letter_routes(desk: Desk) -> list[Route]:
    """Its routes."""
    return [
        Route("/dead-letters", partial(_page, desk)),
        Route("/dead-letters/{topic}/{partition:int}/{offset:int}", partial(_letter, desk)),
        Route("/dead-letters/replay", partial(_replay, desk), methods=["POST"]),
    ]


async def _page(desk: Desk, request: Request) -> Response:
    reason = request.query_params.get("reason", "")[:80]
    try:
        found = await desk.read(lambda: reasons(desk.engine()))
        shown = await desk.read(_newest, desk, reason) if reason else []
    except UserError:
        found, shown = [], []
    return desk.page(
        request,
        "dead_letters.html",
        reasons=found,
        reason=reason,
        shown=shown,
        can_replay=may(request, Right.ADMIN) and any(each["verified"] for each in found if each["reason"] == reason),
        said=request.query_params.get("said", "")[:300],
        most=SHOWN,
    )


def _newest(desk: Desk, reason: str) -> list[dict[str, Any]]:
    columns = [column for column in dead_letters.columns if column.name not in ("payload", "stored_bytes")]
    query = select(*columns).where(dead_letters.c.reason == reason).order_by(dead_letters.c.recorded_ms.desc())
    with desk.engine().begin() as connection:
        return [dict(row) for row in connection.execute(query.limit(SHOWN)).mappings()]


async def _letter(desk: Desk, request: Request) -> Response:
    place = request.path_params

    def read() -> dict[str, Any] | None:
        mine = [dead_letters.c[name] == place[name] for name in ("topic", "partition", "offset")]
        with desk.engine().begin() as connection:
            row = connection.execute(select(dead_letters).where(*mine)).mappings().first()
            return dict(row) if row is not None else None

    found = await desk.read(read)
    if found is None:
        return desk.page(request, "missing.html", 404, what="No such dead letter is kept.")
    return desk.page(
        request, "dead_letter.html", letter=found, frame=explained(found["payload"]), dump=dumped(found["payload"])
    )


def explained(payload: bytes) -> dict[str, Any]:
    """The fields of a frame that a payload's beginning names; empty when it is none. Nothing of it is verified here."""
    for end in (len(payload), *range(min(len(payload), 64), 8, -1)):
        try:
            frame = Frame.FromString(payload[:end])
        except DecodeError:
            continue
        if frame.boot_id:
            return {name: getattr(frame, name) for name in _EXPLAINED}
    return {}


def dumped(payload: bytes, most: int = 512) -> str:
    """The beginning in hexadecimal and as text, sixteen bytes a line."""
    lines = []
    for start in range(0, min(len(payload), most), 16):
        part = payload[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)


async def _replay(desk: Desk, request: Request) -> Response:
    if not may(request, Right.ADMIN):
        return no(403, "expected an admin")
    reason = form_of(request).get("reason", "")[:80]
    said = await replay_reason(desk, session_of(request).name, reason)
    return RedirectResponse(f"/dead-letters?{urlencode({'reason': reason, 'said': said})}", 303)


async def replay_reason(desk: Desk, who: str, reason: str) -> str:
    """Send what was refused for a reason once more, and note it; what came of it."""
    try:
        found, recorded = await desk.read(lambda: letters(desk.engine(), reason))
        if not found:
            return f"nothing to send once more; {recorded} recorded meanwhile"
        outcome = str(await replay(desk.settings.kafka, desk.settings.frames_topic, found, recorded))
    except UserError as error:
        outcome = str(error)
    await desk.write(desk.store.note, who, "replay", reason, "", outcome)
    return outcome
