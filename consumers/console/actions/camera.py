"""A camera's history, and the commands and certificates that users request."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.actions.fleet import UNKNOWN
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.commands import NO_BROKER, changes_of, settings_of
from consumers.console.data.history import RANGES, USUAL, alerts_of, history
from consumers.console.data.switches import supersede
from schemas.clock import monotonic_ms, unix_ms
from schemas.errors import ConfigError, UserError

MOST_MARKS: Final = 100
"""Maximum number of commands in a camera's timeline."""


def name_of(request: Request) -> str:
    """Return the camera named in the path."""
    return f"{request.path_params['site']}/{request.path_params['camera']}"


async def answer_history(context: ConsoleContext, request: Request, usual: str = USUAL) -> Response:
    """Answer with a camera's history, its alerts, commands and changes of the model. `usual` is the default range."""
    asked, name = request.query_params.get("range", usual), name_of(request)
    if asked not in RANGES:
        return error_response(400, f"range: expected {', '.join(RANGES)}, got {asked[:40]!r}. Correct it.")
    if context.fleet.card(name) is None:
        return error_response(404, UNKNOWN.format(name))
    patience_s, sends = context.fleet.patience_s(name), context.fleet.sends(name, monotonic_ms())
    until_ms = unix_ms()
    since_ms = until_ms - RANGES[asked]
    found = await context.read(history, context.store.engine, name, since_ms, until_ms, patience_s, sends=sends)
    noted = await context.read(context.store.newest_operations, name, MOST_MARKS)
    found["commands"] = [(each.at_ms, f"{each.what} {each.detail}".strip()) for each in noted if each.at_ms >= since_ms]
    found["models"] = [at_ms for at_ms in context.published_ms() if at_ms >= since_ms]
    found["alerts"], _ = await unless_away(context.read_recorded(alerts_of, name, since_ms), None)
    return JSONResponse(found)


async def request_certificates(context: ConsoleContext, who: str, name: str, frames: int) -> str:
    """Request certificates for a camera's next frames, and log that in the audit log. Return the outcome.

    Raises RefusedActionError.
    """
    camera = context.fleet.camera(name)
    if camera is None or context.fleet.card(name) is None:
        raise RefusedActionError(UNKNOWN.format(name), 404)
    if context.views is None:
        raise RefusedActionError("kafka is missing: start the console with --kafka to request certificates", 400)
    if settings_of(camera.meta).get("profile") == "video":
        why = "A codec spreads a sticker over later frames."
        raise RefusedActionError(f"{name}: expected the profile raw or lossless, got video. {why}", 400)
    context.views.certify(name, frames)
    await context.note(who, "certify", name, f"{frames} frames", "requested")
    return "Requested. Reload the page in some seconds."


async def send_command(context: ConsoleContext, request: Request, name: str, asked: dict[str, Any] | None) -> str:
    """Send a command of the request's user to a camera and log it in the audit log. Return the outcome.

    With `asked` None, reset the camera to its own settings. Commands of earlier switches that are still to be sent to
    the camera are dropped, even if this one fails. Raises RefusedActionError: 404 for an unknown camera, 400 for a
    wrong command, 503 if the broker does not answer.
    """
    if context.fleet.card(name) is None:
        raise RefusedActionError(UNKNOWN.format(name), 404)
    if context.commands is None:
        raise RefusedActionError(NO_BROKER, 503)
    policy = context.drop_plan.policy_of(name)
    if policy is not None and asked is not None and "drop_ratio" in asked:
        raise RefusedActionError(
            f"drop_ratio: expected no command, since {policy.name} steers it. Change or remove the policy.", 400
        )
    detail = "own settings" if asked is None else ", ".join(f"{key} {value}" for key, value in sorted(asked.items()))
    begin_long_answer(request.scope)
    refused: RefusedActionError | None = None
    try:
        changes = None if asked is None else changes_of(asked)
        await context.write(supersede, context.store.engine, name)
        if changes is None:
            outcome = await context.command(context.commands.reset, name)
        else:
            outcome = await context.command(context.commands.send, name, changes)
    except ConfigError as error:
        raise RefusedActionError(str(error), 400) from None  # nothing was sent
    except UserError as error:
        outcome, refused = str(error), RefusedActionError(str(error), 503)
    await context.note(session_of(request).name, "command", name, detail, outcome)
    if refused is not None:
        raise refused
    return outcome
