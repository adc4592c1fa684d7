"""The REST API: what the pages do, for programs. `/api/v1/openapi.json` is made of the same table as its routes."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumers.cameras.episodes import STATES
from consumers.cameras.state import State
from consumers.console.alerts_page import find_raised, review
from consumers.console.camera_page import name_of, past, tell
from consumers.console.cards import Card
from consumers.console.commands import settings_of
from consumers.console.dead_letters_page import replay_reason
from consumers.console.desk import Desk
from consumers.console.export import COLUMNS, LONGEST_MS, as_csv, as_parquet, rows
from consumers.console.fleet_page import forget, query_of
from consumers.console.gate import may, no, path_of, session_of
from consumers.console.history import RANGES
from consumers.console.jobs_api import JOB_OPERATIONS
from consumers.console.openapi import described
from consumers.console.operation import NUMBER, OBJECT, TEXT, WHOLE, Operation, fields, json_of
from consumers.console.replay import reasons
from consumers.console.system_charts import RANGES as SYSTEM_RANGES
from consumers.console.system_page import audited
from consumers.console.system_page import past as past_of_system
from consumers.console.users import Right
from schemas.errors import UserError
from schemas.identity import camera_id

ROOT: Final = "/api/v1"
_CAMERA: Final = "/cameras/{site}/{camera}"
_ROLE: Final = ("name", "state", "detail", "backlog", "restarts")


def card_json(card: Card) -> dict[str, Any]:
    """A camera as the API gives it."""
    return asdict(card) | {"state": card.state.value, "site": card.site}


async def _cameras(desk: Desk, request: Request) -> Response:
    view = desk.fleet.view(query_of(request))
    return JSONResponse(
        {
            "cameras": [card_json(card) for card in view.cards],
            "counts": dict(view.counts),
            "found": view.found,
            "page": view.page,
            "pages": view.pages,
        }
    )


async def _camera(desk: Desk, request: Request) -> Response:
    name = name_of(request)
    card, camera = desk.fleet.card(name), desk.fleet.camera(name)
    if card is None or camera is None:
        return no(404, f"no camera is known as {name}")
    pictures = {way: shown and shown.told() for way, shown in desk.fleet.ways(name)._asdict().items()}
    return JSONResponse(card_json(card) | {"settings": settings_of(camera.meta), "pictures": pictures})


async def _history(desk: Desk, request: Request) -> Response:
    length_ms = RANGES.get(request.query_params.get("range", "day"))
    if length_ms is None:
        return no(400, f"expected range={'|'.join(RANGES)}")
    return JSONResponse(await past(desk, name_of(request), time.time_ns() // 10**6, length_ms))


async def _command(desk: Desk, request: Request) -> Response:
    asked = await json_of(request)
    if asked is None:
        return no(400, "expected a JSON object")
    reset = asked.pop("reset", False)
    if reset and asked:
        return no(400, "expected reset alone, or other settings")
    said = await tell(desk, session_of(request).name, name_of(request), None if reset else asked)
    sent = said == "obeyed" or said.startswith("sent")
    return JSONResponse({"outcome": said}, 200 if sent else 400)


async def _forget(desk: Desk, request: Request) -> Response:
    complaint = await forget(desk, session_of(request).name, name_of(request))
    return no(409, complaint) if complaint else JSONResponse({"outcome": "forgotten"})


async def _alerts(desk: Desk, request: Request) -> Response:
    state = request.query_params.get("state", "")
    if state not in ("", *STATES):
        return no(400, f"expected state={'|'.join(STATES)}")
    found = await find_raised(desk, state, request.query_params.get("camera", ""))
    comments = await desk.read(desk.store.said, [each.alert_id for each in found])
    return JSONResponse([asdict(each) | {"comments": comments[each.alert_id]} for each in found])


async def _review(desk: Desk, request: Request) -> Response:
    asked = await json_of(request)
    if asked is None:
        return no(400, "expected a JSON object")
    state, text = asked.get("state"), asked.get("comment", "")
    if not isinstance(text, str) or not (state is None or isinstance(state, str)):
        return no(400, "expected texts as state and comment")
    complaint = await review(desk, session_of(request).name, request.path_params["alert_id"], state, text)
    return no(400, complaint) if complaint else JSONResponse({"outcome": "done"})


async def _operations(desk: Desk, request: Request) -> Response:
    found = await desk.read(desk.store.noted, request.query_params.get("subject") or None, 1_000)
    return JSONResponse([asdict(each) for each in found])


async def _export(desk: Desk, request: Request) -> Response:
    asked, kind = request.query_params, path_of(request).rpartition(".")[2]
    now_ms = time.time_ns() // 10**6
    try:
        until_ms = int(asked.get("until_ms", now_ms))
        since_ms = int(asked.get("since_ms", until_ms - 3_600_000))
        camera = camera_id(asked["camera"]) if "camera" in asked else None
        if not 0 <= since_ms <= until_ms < 2**53 or until_ms - since_ms > LONGEST_MS:
            raise ValueError
        engine = await desk.read(desk.engine)
    except ValueError:
        return no(400, "expected since_ms and until_ms, Unix times in milliseconds at most 31 days apart")
    except UserError as error:
        return no(400, str(error))
    found = rows(engine, since_ms, until_ms, camera)
    made, media = (
        (as_csv(found), "text/csv") if kind == "csv" else (as_parquet(found), "application/vnd.apache.parquet")
    )
    headers = {"content-disposition": f'attachment; filename="verdicts.{kind}"'}
    return desk.exports.answer(request, made, media, headers)


async def _audit(desk: Desk, _request: Request) -> Response:
    return JSONResponse(await audited(desk))


async def _letters(desk: Desk, _request: Request) -> Response:
    try:
        return JSONResponse(await desk.read(lambda: reasons(desk.engine())))
    except UserError as error:
        return no(503, str(error))


async def _replay(desk: Desk, request: Request) -> Response:
    asked = await json_of(request)
    reason = asked.get("reason") if asked is not None else None
    if not isinstance(reason, str) or not reason:
        return no(400, "expected a text as reason")
    return JSONResponse({"outcome": await replay_reason(desk, session_of(request).name, reason[:80])})


async def _models(desk: Desk, _request: Request) -> Response:
    watch = desk.models
    if watch is None:
        return no(503, "this console reads no models")
    served = {
        name: {"model": each.model_id, "since_ms": each.since_ms, "runs": each.runs, "refuses": each.error}
        for name, each in watch.served.items()
    }
    published = [
        {"model": each.model_id, "digest": each.digest, "published_ms": each.published_ms}
        | {"withdrawn_ms": each.withdrawn_ms or None, "classes": list(each.classes), "strip": each.strip}
        for each in watch.models.published
    ]
    live = watch.live.model_id if watch.live is not None else None
    return JSONResponse({"live": live, "served": served, "published": published, "refused": watch.refused})


async def _system(desk: Desk, _request: Request) -> Response:
    watch = desk.watch
    roles = [{name: getattr(role, name) for name in _ROLE} for role in watch.roles]
    firing = [asdict(each) for each in watch.rules.firing]
    status = {"text": watch.pill().text, "level": watch.pill().level}
    return JSONResponse(
        {"status": status, "roles": roles, "no_roles": watch.no_roles, "rules": firing, "no_rules": watch.no_rules}
    )


async def _openapi(_desk: Desk, _request: Request) -> Response:
    return JSONResponse(document())


_SPAN: Final = {"camera": TEXT, "since_ms": WHOLE, "until_ms": WHOLE}
OPERATIONS: Final = (
    Operation(
        "GET", "/cameras", "The cameras, the worst first", _cameras,
        "`cameras`, a page of cards; `counts`, how many are in each state; `found`, how many fit the query; "
        "`page`, `pages`.",
        {"site": TEXT, "state": {"enum": [state.value for state in State]}, "text": TEXT, "page": WHOLE},
    ),
    Operation(
        "GET", _CAMERA, "One camera, its settings and its last pictures", _camera,
        "Its card, and `settings`: `drop`, `probes`, `profile`, `enabled`, `frames_per_second`, `source` and "
        "`software` as it says itself; `commanded`, which of them were, and `told_ms`, when; `pictures`, the last "
        "ones, as sent, rebuilt and whole.",
    ),
    Operation(
        "GET", f"{_CAMERA}/history", "Its past, in columns by time", _history,
        "`span_s`, `step_s`; `columns`, lists of numbers by name, beside the times `t` in Unix seconds; "
        "`classes`, how often each was the verdict; `outages` and `alerts` in that time.",
        {"range": {"enum": list(RANGES)}},
    ),
    Operation(
        "POST", f"{_CAMERA}/command", "Tell it: signed, retained at the broker, in the audit log", _command,
        body=fields(
            drop=NUMBER, probes=NUMBER, profile={"enum": ["raw", "lossless"]},
            enabled={"type": "boolean"}, reset={"type": "boolean"},
            fps={"type": "number", "description": "Frames a second; 0 lets the camera's own rate hold again"},
        ),
        needed=Right.OPERATOR,
    ),
    Operation(
        "POST", f"{_CAMERA}/forget", "Show one that is gone no more", _forget, body=OBJECT, needed=Right.OPERATOR
    ),
    Operation(
        "GET", "/alerts", "Alerts, newest first", _alerts,
        "A list of alerts, each with the state of its `episode` and its `comments`: `at_ms`, `who`, `text`.",
        {"state": {"enum": list(STATES)}, "camera": TEXT},
    ),
    Operation(
        "POST", "/alerts/{alert_id}", "Acknowledge, close or reopen its episode, and comment on it", _review,
        body=fields(state={"enum": list(STATES)}, comment=TEXT), needed=Right.OPERATOR,
    ),
    Operation(
        "GET", "/operations", "The audit log, the newest first", _operations,
        "A list of its lines, at most 1,000.", {"subject": TEXT},
    ),
    Operation(
        "GET", "/export/verdicts.csv", f"Verdicts: {', '.join(COLUMNS)}", _export,
        "A line of names, then one for each verdict.", _SPAN, gives="text/csv",
    ),
    Operation(
        "GET", "/export/verdicts.parquet", "The same as Parquet", _export, "A file of the same columns.", _SPAN,
        gives="application/vnd.apache.parquet",
    ),
    Operation(
        "GET", "/models", "What was published, and what each processor serves", _models,
        "`live`; `served`, by processor; `published`, newest first; `refused`, why the newest list is not believed.",
    ),
    Operation(
        "GET", "/system", "The status of the system, its roles and the rules that fire", _system,
        "`status`, the words of the header and their level, `good`, `warn` or `bad`; `roles`, each with `name`, "
        "`state`, `detail`, `backlog` and `restarts`; `rules`, those that fire; `no_roles` and "
        "`no_rules`, why there are none.",
    ),
    Operation(
        "GET", "/system/history", "The system's past as charts", past_of_system,
        "The charts, and where they come from.", {"range": {"enum": list(SYSTEM_RANGES)}},
    ),
    Operation(
        "GET", "/audit", "The conservation law, as it stands now", _audit,
        "The counts, and what the live audit says besides; `error` where there is none yet.",
    ),
    Operation(
        "GET", "/dead-letters", "How many payloads were refused, by reason", _letters,
        "A list, with `reason`, `stage`, `verified`, `letters` (how many), `newest_ms`, `error` (one of them) each.",
    ),
    Operation(
        "POST", "/dead-letters/replay", "Send the frames that were refused for a reason once more", _replay,
        body=fields(reason=TEXT), needed=Right.ADMIN,
    ),
    *JOB_OPERATIONS,
    Operation("GET", "/openapi.json", "This document", _openapi, "OpenAPI 3.1."),
)  # fmt: skip


def api_routes(desk: Desk) -> list[Route]:
    """The routes of the table."""
    return [Route(ROOT + each.path, partial(_answer, desk, each), methods=[each.method]) for each in OPERATIONS]


async def _answer(desk: Desk, operation: Operation, request: Request) -> Response:
    if not may(request, operation.needed):
        return no(403, f"expected an {operation.needed}")
    return await operation.answer(desk, request)


def document() -> dict[str, Any]:
    """The API as OpenAPI 3.1."""
    return described(ROOT, OPERATIONS)
