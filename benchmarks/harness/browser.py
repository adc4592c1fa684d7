"""Chromium, and the console's pages in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness.system import RunningSystem
from consumers.console.access.owner import owner_link
from infra.state_folder import Layout

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
"""The program; None if it is not installed."""


@contextmanager
def chromium(timeout_s: float = 30.0) -> Iterator[Browser]:
    """Run Chromium, which must start within `timeout_s`. Raises SystemExit if it is not installed."""
    if CHROMIUM is None:
        raise SystemExit("chromium is missing: install the Debian package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * timeout_s)
        yield browser
        browser.close()


def owner_page(browser: Browser, system: RunningSystem) -> tuple[Page, str]:
    """Return a page with the owner's rights in the system's console, and the console's URL."""
    page, console = browser.new_page(), f"http://{system.roles()['console']['listen']}"
    page.goto(owner_link(console, Layout(system.state).owner_token))
    page.wait_for_url(f"{console}/")
    return page, console
