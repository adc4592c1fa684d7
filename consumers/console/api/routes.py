"""The REST API: the functions of the pages, for programs.

Its routes and `/api/v1/openapi.json` come from the same table.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.cameras.episodes import STATES
from consumers.cameras.state import State
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import path_of, session_of
from consumers.console.access.rights import GuardedRoute, Right, RightScope
from consumers.console.access.sight import ALL, Sight, site_of
from consumers.console.access.sites import sight_of
from consumers.console.actions.alerts import SHOWN, camera_of, find_alerts, review
from consumers.console.actions.camera import answer_history, name_of, request_certificates, send_command
from consumers.console.actions.changes import text_of
from consumers.console.actions.dead_letters import replay_reason
from consumers.console.actions.fleet import UNKNOWN, forget, page_of, query_of
from consumers.console.actions.mutes import mute
from consumers.console.actions.system import audited
from consumers.console.actions.system import history as system_history
from consumers.console.api.drop_policies import POLICY_OPERATIONS
from consumers.console.api.jobs import JOB_OPERATIONS
from consumers.console.api.openapi import described
from consumers.console.api.operation import OBJECT, TEXT, WHOLE, Operation, fields, json_of
from consumers.console.api.presets import PRESET_OPERATIONS, SETTINGS_FIELDS
from consumers.console.api.sighting_rules import RULE_OPERATIONS
from consumers.console.context import ConsoleContext
from consumers.console.data.cards import AWAY, Card
from consumers.console.data.commands import settings_of
from consumers.console.data.export import COLUMNS, LONGEST_MS, as_csv, as_parquet, rows
from consumers.console.data.history import RANGES
from consumers.console.data.site_documents import PAGE_CARDS
from consumers.console.data.sites import Site
from consumers.console.data.system_charts import RANGES as SYSTEM_RANGES
from consumers.console.replay import reasons
from consumers.database.console_store import LOGS
from consumers.database.engine import SETTLED_MS, settled_at_ms
from schemas.clock import unix_ms
from schemas.errors import ConfigError
from schemas.identity import camera_id
from schemas.limits import MAX_CERTIFIED_FRAMES

ROOT: Final = "/api/v1"
_CAMERA: Final = "/cameras/{site}/{camera}"
_STATES: Final = [*(state.value for state in State), AWAY]
_BY_NAME: Final = "name"
_ROLE: Final = ("name", "state", "detail", "backlog", "restarts")
_MOST_LINES: Final = 1_000
"""Maximum number of lines of the audit log in a response."""
_AFTER_HEADER: Final = "X-Pointillist-After"
_START: Final = "-".join("0" for _ in LOGS)
"""The cursor before the first line of the audit log."""
_END_HEADER: Final = "X-Pointillist-Until-Ms"


def card_json(card: Card) -> dict[str, Any]:
    """Return a camera as the API shows it."""
    return asdict(card) | {"state": card.state.value, "site": card.site}


async def _cameras(context: ConsoleContext, request: Request) -> Response:
    most = request.query_params.get("cards", "0")
    if not (most.isascii() and most.isdecimal() and len(most) < 5 and int(most) <= PAGE_CARDS):
        return error_response(400, f"cards: expected 1 to {PAGE_CARDS}, or 0 for the number on the pages")
    state, page = request.query_params.get("state", ""), request.query_params.get("page", "1")
    if state not in ("", *_STATES):
        return error_response(400, f"state: expected {', '.join(_STATES)}, got {state[:40]!r}. Correct it.")
    if page != str(max(1, page_of(request))):
        return error_response(400, f"page: expected a number from 1, got {page[:40]!r}. Correct it.")
    order = request.query_params.get("order", "")
    if order not in ("", _BY_NAME):
        return error_response(400, f"order: expected {_BY_NAME}, got {order[:40]!r}. Correct it.")
    view = context.fleet.view(replace(query_of(request), cards=int(most), by_name=order == _BY_NAME))
    return JSONResponse(
        {
            "cameras": [card_json(card) for card in view.cards],
            "counts": {status: view.counts.get(status, 0) for status in _STATES},
            "found": view.found,
            "page": view.page,
            "pages": view.pages,
        }
    )


async def _sites(context: ConsoleContext, request: Request) -> Response:
    sight = sight_of(request)
    return JSONResponse([_site_json(site, sight) for site in context.fleet.sites(sight)])


def _site_json(site: Site, sight: Sight) -> dict[str, Any]:
    own = {name: getattr(site, name) for name in ("name", "url", "state", "problem", "open_alerts", "no_audit")}
    # The counts are of all sites of that system.
    audit = {"audit": dict(site.audit) if site.audit is not None and sight == ALL else None}
    alerts = [asdict(each) for each in site.alerts]
    return own | audit | {"answered_ms": site.answered_ms or None, "cameras": len(site.cards), "alerts": alerts}


async def _camera(context: ConsoleContext, request: Request) -> Response:
    name = name_of(request)
    card, camera = context.fleet.card(name), context.fleet.camera(name)
    if card is None or camera is None:
        return error_response(404, UNKNOWN.format(name))
    pictures = {
        way: shown and shown.document() for way, shown in context.fleet.picture_versions(name)._asdict().items()
    }
    steered = context.drop_plan.steered(name)
    policy = steered and steered._asdict() | {"policy": steered.policy.cameras}
    settings = settings_of(camera.meta)
    return JSONResponse(card_json(card) | {"settings": settings, "drop_policy": policy, "pictures": pictures})


async def _command(context: ConsoleContext, request: Request) -> Response:
    asked = await json_of(request)
    reset = asked.pop("reset", False)
    if not isinstance(reset, bool):
        return error_response(400, f"reset: expected true or false, got {str(reset)[:40]!r}")
    if reset and asked:
        return error_response(400, "reset: expected no other setting next to it")
    outcome = await send_command(context, request, name_of(request), None if reset else asked)
    return JSONResponse({"outcome": outcome})


async def _certify(context: ConsoleContext, request: Request) -> Response:
    frames = (await json_of(request)).get("frames", 1)
    if isinstance(frames, bool) or not isinstance(frames, int) or not 1 <= frames <= MAX_CERTIFIED_FRAMES:
        return error_response(
            400, f"frames: expected 1 to {MAX_CERTIFIED_FRAMES}, got {str(frames)[:40]!r}. Correct it."
        )
    await request_certificates(context, session_of(request).name, name_of(request), frames)
    return JSONResponse({"outcome": "requested"})


async def _forget(context: ConsoleContext, request: Request) -> Response:
    await forget(context, session_of(request).name, name_of(request))
    return JSONResponse({"outcome": "forgotten"})


async def _mute(context: ConsoleContext, request: Request) -> Response:
    """Mute an alert, or a camera."""
    asked = await json_of(request)
    length, reason = text_of(asked, "for"), text_of(asked, "reason")
    alert_id = request.path_params.get("alert_id")
    camera = name_of(request) if alert_id is None else await camera_of(context, request, alert_id)
    subject = camera if alert_id is None else alert_id
    await mute(context, request, {subject: site_of(camera)}, length, reason)
    return JSONResponse({"outcome": "done"})


async def _alerts(context: ConsoleContext, request: Request) -> Response:
    state = request.query_params.get("state", "")
    if state not in ("", *STATES):
        return error_response(400, f"state: expected {', '.join(STATES)}, got {state[:40]!r}. Correct it.")
    sight = sight_of(request)
    if site := request.query_params.get("site", ""):
        sight = sight.at(site)
    found = await find_alerts(context, state, request.query_params.get("camera", ""), sight)
    comments = await context.read(context.store.read_comments, [each.alert_id for each in found])
    return JSONResponse([asdict(each) | {"comments": comments[each.alert_id]} for each in found])


async def _review(context: ConsoleContext, request: Request) -> Response:
    asked = await json_of(request)
    text = text_of(asked, "comment")
    state = None if asked.get("state") is None else text_of(asked, "state")
    if state is None and not text.strip():
        return error_response(400, "state, comment: expected at least one of them, got none. Add one.")
    alert_id = request.path_params["alert_id"]
    camera = await camera_of(context, request, alert_id)
    await review(context, session_of(request).name, {alert_id: camera}, state, text)
    return JSONResponse({"outcome": "done"})


async def _operations(context: ConsoleContext, request: Request) -> Response:
    subject, after = request.query_params.get("subject") or None, request.query_params.get("after")
    sight, headers = sight_of(request), {}
    if after is None:
        found = await context.read(context.store.newest_operations, subject, _MOST_LINES, sight)
    else:
        try:
            cursor = _cursor_of(after)
        except ValueError:
            return error_response(
                400, f"after: expected {_START!r} or the value of {_AFTER_HEADER}, got {after[:40]!r}. Correct it."
            )
        found, cursor = await context.read(context.store.operations_after, cursor, subject, _MOST_LINES, sight)
        headers = {_AFTER_HEADER: "-".join(map(str, cursor))}
    return JSONResponse([asdict(each) for each in found], headers=headers)


def _cursor_of(text: str) -> list[int]:
    """Return the numbers of a cursor. Raises ValueError for another text."""
    numbers = text.split("-")
    is_form = all(each.isascii() and each.isdecimal() and len(each) < 19 for each in numbers)
    if len(numbers) - len(LOGS) not in (0, 1) or not is_form:
        raise ValueError
    return list(map(int, numbers))


async def _export(context: ConsoleContext, request: Request) -> Response:
    asked, kind = request.query_params, path_of(request).rpartition(".")[2]
    now_ms = unix_ms()
    try:
        until_ms = int(asked.get("until_ms", now_ms))
        since_ms = int(asked.get("since_ms", until_ms - 3_600_000))
        camera = camera_id(asked["camera"]) if "camera" in asked else None
        if not 0 <= since_ms <= until_ms < 2**53 or until_ms - since_ms > LONGEST_MS:
            raise ValueError
    except ValueError:
        return error_response(400, "since_ms and until_ms: expected Unix times in milliseconds, at most 31 days apart")
    except ConfigError as error:
        return error_response(400, str(error))
    # An answer that has begun cannot be refused: a database that does not respond is found here.
    engine = await context.use_recorder(context.exported.read, lambda connection: connection.engine)
    end_ms = max(since_ms, min(until_ms, settled_at_ms(engine, now_ms)))
    found = rows(engine, since_ms, end_ms, sight_of(request), camera)
    made, media = (
        (as_csv(found), "text/csv") if kind == "csv" else (as_parquet(found), "application/vnd.apache.parquet")
    )
    headers = {"content-disposition": f'attachment; filename="verdicts.{kind}"', _END_HEADER: str(end_ms)}
    return context.exports.answer(request, made, media, headers, partial(context.sessions.holds, session_of(request)))


async def _audit(context: ConsoleContext, _request: Request) -> Response:
    return JSONResponse(await audited(context))


async def _letters(context: ConsoleContext, request: Request) -> Response:
    return JSONResponse(await context.read_recorded(reasons, sight_of(request)))


async def _replay(context: ConsoleContext, request: Request) -> Response:
    reason = text_of(await json_of(request), "reason")
    if not reason:
        return error_response(400, "reason: expected the reason of some dead letters, got none. Add it.")
    outcome, succeeded = await replay_reason(context, request, reason[:80])
    return JSONResponse({"outcome": outcome}) if succeeded else error_response(503, outcome)


async def _models(context: ConsoleContext, _request: Request) -> Response:
    watch = context.models
    if watch is None:
        return error_response(503, "models are missing: this console does not read them")
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


async def _system(context: ConsoleContext, _request: Request) -> Response:
    watch = context.watch
    roles = [{name: getattr(role, name) for name in _ROLE} for role in watch.roles]
    firing = [asdict(each) for each in watch.firing_rules(ALL).firing]
    status = {"text": watch.pill().text, "level": watch.pill().level}
    return JSONResponse(
        {"status": status, "roles": roles, "no_roles": watch.no_roles, "rules": firing, "no_rules": watch.no_rules}
    )


async def _openapi(_context: ConsoleContext, _request: Request) -> Response:
    return JSONResponse(document())


_SPAN: Final = {
    "camera": TEXT,
    "since_ms": WHOLE | {"description": "An hour before `until_ms` without it, at most 31 days before"},
    "until_ms": WHOLE
    | {
        "description": "Now without it. An export ends "
        f"{SETTLED_MS['sqlite'] // 1000} s before now at the latest, with PostgreSQL "
        f"{SETTLED_MS['postgresql'] // 1000} s: newer verdicts may not be in the database yet"
    },
}
_ENDS: Final = (
    f"`{_END_HEADER}`, a header of the response, is the end of the export. Use it as `since_ms` of the next export: "
    "together they have each verdict once."
)
_MUTED: Final[Any] = {
    "body": fields(
        "for",
        **{"for": {"type": "string", "description": "`30m`, `2h` or `1d`, at most 30 days; `end` ends the mute"}},
        reason=TEXT,
    ),
    "needed": Right.OPERATOR,
}
OPERATIONS: Final = (
    Operation(
        "GET", "/cameras", "The cameras, the worst first", _cameras,
        "`cameras`, a page of cards; `counts`, cameras in each state, whichever `state` selects; `found`, cameras "
        "that match the query; `page`, which is the last one for a higher number; `pages`. A camera of another console "
        "has that console's page of it as `console`.",
        {
            "site": TEXT, "state": {"enum": _STATES}, "text": TEXT, "group": TEXT,
            "page": WHOLE,
            "cards": {"type": "integer", "description": f"Cameras on a page, at most {PAGE_CARDS}"},
            "order": {
                "enum": [_BY_NAME],
                "description": "The worst first without it. Read several pages by name: a camera whose state changes "
                "between two requests then stays on its page",
            },
        },
        reach=RightScope.PART,
    ),
    Operation(
        "GET", "/sites", "The sites that other consoles show", _sites,
        "A list, with `name`, `url`, `state` (`up`, `away` or `refused`), `problem`, `answered_ms`, `cameras` (how "
        "many), `open_alerts`, `alerts` (the newest of each episode), `audit` of the site's system, null without a "
        "role for all sites, and `no_audit`, why there is none.",
        reach=RightScope.PART,
    ),
    Operation(
        "GET", _CAMERA, "One camera, its settings and its last pictures", _camera,
        "Its card, and `settings`: `drop_ratio`, `probe_share`, `profile`, `enabled`, `frames_per_second`, `source` "
        "and `software` as announced; `commanded`, the commanded ones, and `issued_ms`, their time; `pictures`, the "
        "last ones, `as_sent`, `rebuilt` and `whole`, each null or with `url`, `captured_ms`, `dropped`, "
        "`frame_bytes` and `entropy_bits`; `drop_policy`, its policy, the wanted ratio and the reason, or null.",
    ),
    Operation(
        "GET", f"{_CAMERA}/history", "Its history, in columns over time", partial(answer_history, usual="day"),
        "`span_s`, `step_s`; `summed_to_s`, the time up to which frames are counted; `columns`, lists of numbers by "
        "name, next to the times `t` in Unix seconds, for minutes or hours that are over; `classes`, pairs of a class "
        "and how often it was the verdict since the full hour `classes_since_s`, most frequent first; `outages`, times "
        "without frames for which the camera was silent, pairs in Unix milliseconds, newest first, the present one up "
        "to `summed_to_s`; and `alerts`, `commands` and `models` of that time. `alerts` is null while the recorder's "
        "database does not answer.",
        {"range": {"enum": list(RANGES), "description": "`day` without it"}},
    ),
    Operation(
        "POST", f"{_CAMERA}/command", "Send it a signed, retained command (in the audit log)", _command,
        body=fields(**SETTINGS_FIELDS, reset={"type": "boolean"}),
        needed=Right.OPERATOR,
    ),
    Operation(
        "POST", f"{_CAMERA}/certify", "Certify the labels of its next frames against stickers", _certify,
        body=fields(frames={"type": "integer", "description": f"1 to {MAX_CERTIFIED_FRAMES}; 1 without it"}),
        needed=Right.OPERATOR,
    ),
    Operation(
        "POST", f"{_CAMERA}/forget", "Remove a camera that is gone from the fleet", _forget,
        body=OBJECT, needed=Right.OPERATOR,
    ),
    Operation("POST", f"{_CAMERA}/mute", "Mute a camera, its alerts and the rules about it", _mute, **_MUTED),
    Operation(
        "GET", "/alerts", "Alerts, open ones first", _alerts,
        "A list by the state of the episode, then by time, the newest first. It has at most "
        f"{SHOWN} backdoor alerts and {SHOWN} sightings: the newest of each episode before further ones. Each has the "
        "state of its `episode` and its `comments`: `at_ms`, `who`, `text`.",
        {"state": {"enum": list(STATES)}, "camera": TEXT, "site": TEXT}, reach=RightScope.PART,
    ),
    Operation(
        "POST", "/alerts/{alert_id}", "Acknowledge, close or reopen its episode, and comment on it", _review,
        body=fields(state={"enum": list(STATES)}, comment=TEXT), needed=Right.OPERATOR, reach=RightScope.PART,
    ),
    Operation(
        "POST", "/alerts/{alert_id}/mute", "Mute the alerts of its episode", _mute, reach=RightScope.PART, **_MUTED
    ),
    Operation(
        "GET", "/operations", "The audit log", _operations,
        f"A list of at most {_MOST_LINES:,} lines. Without `after`, the newest come first, and half of the places are "
        f"for people's actions. With it, the next lines come, the oldest first, and the header `{_AFTER_HEADER}` is "
        "the `after` of the next request: a program that follows it misses no line, unless more are written between "
        "two requests than the log keeps. If the console's database was replaced or restored, it begins again at the "
        "oldest line.",
        {"subject": TEXT, "after": TEXT | {"description": f"`{_START}` begins at the oldest line"}},
        reach=RightScope.PART,
    ),
    Operation(
        "GET", "/export/verdicts.csv", f"Verdicts: {', '.join(COLUMNS)}", _export,
        f"A header line, then one line for each verdict. {_ENDS}", _SPAN, reach=RightScope.PART, gives="text/csv",
    ),
    Operation(
        "GET", "/export/verdicts.parquet", "The same as Parquet", _export,
        f"A file of the same columns. {_ENDS}", _SPAN, reach=RightScope.PART, gives="application/vnd.apache.parquet",
    ),
    Operation(
        "GET", "/models", "The published models, and the model of each processor", _models,
        "`live`; `served`, by processor; `published`, newest first; `refused`, why the newest list was rejected.",
        reach=RightScope.FLEET,
    ),
    Operation(
        "GET", "/system", "The status of the system, its roles and the rules that fire", _system,
        "`status`, the words of the header and their level, `good`, `warn` or `bad`; `roles`, each with `name`, "
        "`state`, `detail`, `backlog` and `restarts`; `rules`, those that fire; `no_roles` and "
        "`no_rules`, the reasons if there are none. After a pause without readers, states are up to 15 s old.",
        reach=RightScope.FLEET,
    ),
    Operation(
        "GET", "/system/history", "The system's history as charts", system_history,
        "`source`, `prometheus` or `recorder`; `charts`, each with `title`, `unit` and `series`, pairs of the name of "
        "a column and its label; `columns`, lists of numbers by name, next to the times `t` in Unix seconds; `span_s`; "
        "`note`. The two sources have different columns.",
        {"range": {"enum": list(SYSTEM_RANGES)}}, reach=RightScope.FLEET,
    ),
    Operation(
        "GET", "/audit", "The current counts of the conservation law", _audit,
        "The counts and further results of the live audit. Before the first result, and while the recorder's "
        "database does not answer, only `error`.",
        reach=RightScope.FLEET,
    ),
    Operation(
        "GET", "/dead-letters", "The number of rejected payloads, by reason", _letters,
        "A list, with `reason`, `stage`, `verified`, `letters` (how many), `newest_ms`, `error` (one of them) each.",
        reach=RightScope.PART,
    ),
    Operation(
        "POST", "/dead-letters/replay", "Send the frames rejected for a reason again", _replay,
        body=fields("reason", reason=TEXT), needed=Right.ADMIN, reach=RightScope.PART,
    ),
    *POLICY_OPERATIONS,
    *PRESET_OPERATIONS,
    *RULE_OPERATIONS,
    *JOB_OPERATIONS,
    Operation("GET", "/openapi.json", "This document", _openapi, "OpenAPI 3.1.", reach=RightScope.SAME),
)  # fmt: skip


def api_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the table."""
    return [
        GuardedRoute(ROOT + each.path, partial(each.respond, context), each.method, each.needed, each.reach)
        for each in OPERATIONS
    ]


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API."""
    return described(ROOT, OPERATIONS)
