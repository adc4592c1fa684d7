"""The System page: roles and rules, conservation as a picture, recent charts, and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.rights import GuardedRoute, RightScope
from consumers.console.access.sight import ALL
from consumers.console.access.sites import sight_of
from consumers.console.actions.system import audited, history
from consumers.console.context import ConsoleContext
from consumers.console.data.roles import chain
from consumers.console.data.sentences import system_sentence
from consumers.console.data.sites import FATES, Site, audits_of, summed
from consumers.console.data.stream import Streams
from consumers.console.data.system_charts import RANGES, USUAL
from consumers.console.pages.fleet import header_changes


def system_routes(context: ConsoleContext, streams: Streams) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        GuardedRoute("/system", partial(_system, context), reach=RightScope.FLEET),
        GuardedRoute("/system/conservation", partial(_conservation, context), reach=RightScope.FLEET),
        GuardedRoute("/system/history", partial(history, context), reach=RightScope.FLEET),
        GuardedRoute("/system/live", partial(_live, context, streams), reach=RightScope.FLEET),
        GuardedRoute("/rules", partial(_rules, context), reach=RightScope.PART),
        GuardedRoute("/rules/graph", _rules_of_prometheus, reach=RightScope.SAME),
        GuardedRoute("/runbooks", partial(_runbooks, context), reach=RightScope.SAME),
    ]


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fates as parts of a bar 1,000 wide. Each non-empty part is wide enough to see."""
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


def balances(found: dict[str, Any], sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Return the audits of this system and of those of other consoles as rows of a table, and their sum.

    Empty without sites of other consoles.
    """
    own = {"name": "this console", "note": found.get("error", ""), "away": False, **found}
    rows = [
        {"name": site.name, "note": site.no_audit or ("" if site.audit else "not read"), "away": site.state != "up"}
        | {**(site.audit or {})}
        for site in sites
    ]
    known = [each for each in (found, *audits_of(sites)) if "frames_published" in each]
    total = {"name": f"sum of {len(known)} systems", "note": "", "away": False, **summed(known)}
    return [own, *rows, total] if rows else []


async def _conservation(context: ConsoleContext, _request: Request) -> Response:
    found = await audited(context)
    rows = balances(found, context.fleet.sites())
    text = context.render("balance.html", found=found, bars=bars(found), balances=rows)
    return Response(text, media_type="text/html")


async def _system(context: ConsoleContext, request: Request) -> Response:
    asked = request.query_params.get("range", USUAL)
    found = await audited(context)
    return context.page(
        request,
        "system.html",
        ranges=list(RANGES),
        range=asked if asked in RANGES else USUAL,
        operations=await context.read(context.store.newest_operations, None, 50),
        found=found,
        bars=bars(found),
        balances=balances(found, context.fleet.sites()),
        stream="/system/live",
        **now(context),
    )


def now(context: ConsoleContext) -> dict[str, Any]:
    """Return the context of the templates that show the system as it is now."""
    fleet = context.fleet
    traffic = fleet.traffic()
    levels = [card.level for card in fleet.own_cards()]
    return context.watch.document() | {
        "conditions": context.health.report()[1] if context.health is not None else {},
        "sites": fleet.sites(),
        "sentence": system_sentence(context.watch.roles, traffic),
        "chain": chain(context.watch.roles, levels, traffic.frames_per_second, context.watch.rates),
    }


async def _live(context: ConsoleContext, streams: Streams, request: Request) -> Response:
    return streams.answer(request, changes_of_system(context))


def changes_of_system(context: ConsoleContext) -> Callable[[], str]:
    """Return a function that renders the changed parts of the System page: header, roles and rules."""
    header, shown = header_changes(context, ALL), ""

    def changed() -> str:
        nonlocal shown
        rendered = context.render("system_now.html", pushed=True, runbooks=context.runbooks is not None, **now(context))
        if rendered == shown:
            return header()
        shown = rendered
        return header() + rendered

    return changed


async def _rules(context: ConsoleContext, request: Request) -> Response:
    rules = context.watch.firing_rules(sight_of(request))
    return context.page(request, "rules.html", **context.watch.document() | {"rules": rules})


async def _rules_of_prometheus(_request: Request) -> Response:
    """Redirect to the rules: under `up`, the `generatorURL` of an alert leads here."""
    return RedirectResponse("/rules", 303)


async def _runbooks(context: ConsoleContext, request: Request) -> Response:
    if context.runbooks is None:
        return context.page(
            request,
            "missing.html",
            404,
            what="The console was started without runbooks. Set `runbooks` in its settings to read them here.",
        )
    text = await context.read(context.runbooks.read_text, encoding="utf-8")
    body = text.partition("<body>")[2].partition("</body>")[0]
    return context.page(request, "runbooks.html", body=body)
