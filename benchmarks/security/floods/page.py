"""The results of the floods as a page."""

from __future__ import annotations

from typing import Any, Final

LONGEST_PAGE_S: Final = 1.0
"""A page that takes longer counts as unavailable."""

Result = dict[str, Any]


def is_withstood(found: Result) -> bool:
    """Return whether each page of both visitors was answered in time."""
    return all(
        not visits["failed"] and visits["max_s"] <= LONGEST_PAGE_S
        for visits in (found["elsewhere"], found["same_address"])
    )


def markdown(document: Result) -> str:
    """Return the page as Markdown."""
    floods = document["floods"]
    rows = [each for each in floods if each["flood"] != "none"]
    withstood = sum(map(is_withstood, rows))
    seconds = document["seconds"]
    lines = [
        "# The console under floods",
        "",
        f"{withstood} of {len(rows)} floods are withstood: no page failed, and none took more than "
        f"{LONGEST_PAGE_S:g} s.",
        "",
        "| flood | who | each connection | held | opened | another address: p99, slowest, failed of pages "
        "| the flood's address: p99, slowest, failed of pages | withstood "
        "| a login: slowest, failed |",
        "| --- | --- | --- | ---: | ---: | --- | --- | --- | --- |",
    ]
    for each in floods:
        is_flood = each["flood"] != "none"
        held, opened = (f"{each['most_open']:,}", f"{each['opened']:,}") if is_flood else ("–", "–")
        verdict = ("yes" if is_withstood(each) else "**no**") if is_flood else "–"
        lines.append(
            f"| {each['flood']} | {each['who']} | {each['what']} | {held} | {opened} | {_visits(each['elsewhere'])} "
            f"| {_visits(each['same_address'])} | {verdict} "
            f"| {each['logins']['max_s']:.2f} s, {each['logins']['failed']} of {each['logins']['pages']} |"
        )
    loads = [each["load"] for each in floods]
    lines += [
        "",
        f"`python -m benchmarks.security.floods --out docs/results/floods --seconds {seconds:g}` printed this: "
        f"`pointillist up` with users, each flood for {seconds:g} s from a process of its own. "
        "*Held* is the most connections that the flood had open at "
        "once, "
        "*opened* how many it opened: it replaces those that the console closes, at a bounded rate. Two visitors load "
        "the login page, the fleet page (with a session) and `/health` meanwhile, each time on a fresh connection. A "
        "failed page counts with the time until it failed. Logins come from a third address, and do not count.",
        "",
        f"{document['cores']} cores for the console, the cameras, the brokers, the flood and the visitors together, "
        f"other work on the machine: load {min(loads):.1f} to {max(loads):.1f}.",
    ]
    return "\n".join(lines) + "\n"


def _visits(visits: Result) -> str:
    return f"{visits['p99_s']:.2f} s, {visits['max_s']:.2f} s, {visits['failed']} of {visits['pages']}"
