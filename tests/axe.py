"""Findings of axe-core: faults of a page that keep people with impairments from using it."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from infra.release.assets import NODE_MODULES, TESTED_WITH, make


def findings(page: Page, *, contrast_alone: bool = False) -> list[str]:
    """Return the serious findings on a page, each with the first element that it concerns."""
    make(to_test=True)
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate((NODE_MODULES / TESTED_WITH).read_text())
    only = ", runOnly: {type: 'rule', values: ['color-contrast']}" if contrast_alone else ""
    found: dict[str, Any] = page.evaluate(f"axe.run({{resultTypes: ['violations']{only}}})")
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in serious]
