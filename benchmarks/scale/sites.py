"""Several sites in one console: `python -m benchmarks.scale.sites --json docs/results/console/sites.json`.

Three consoles have 200 cameras each, a fourth one reads them all and has no cameras. The figures are the seconds until
Chromium shows the first cards of the fourth, ten times each: with all sites up, right after one console was stopped by
SIGSTOP, and once its site is away. Next to them are the age of the other sites' data meanwhile, and the seconds to
*away* and back.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx2
import psutil

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.harness.recorder_store import NO_BROKER
from benchmarks.harness.waiting import wait_until
from benchmarks.scale.console import Result, Room, in_browser
from consumers.console.access.tokens import create_token
from infra.settings.document import toml

SITES: Final = ("east", "north", "south")
STOPPED: Final = "south"

_WAIT_S: Final = 60.0
_WATCHED_S: Final = 20.0


def sites(page: str) -> dict[str, dict[str, Any]]:
    """Return the sites as the console at `page` knows them, by name."""
    return {each["name"]: each for each in httpx2.get(f"{page}/api/v1/sites").json()}


def seconds_to(page: str, state: str) -> float:
    """Return the seconds until the stopped site has a state. Raises TimeoutError."""
    what = f"{STOPPED} in the state {state}"
    return wait_until(lambda: sites(page)[STOPPED]["state"] == state, what, _WAIT_S, every_s=0.05)


def oldest_s(page: str) -> float:
    """Return the greatest age of the other sites' data during some seconds."""
    oldest, end_s = 0.0, time.monotonic() + _WATCHED_S
    while time.monotonic() < end_s:
        others = [each["answered_ms"] for name, each in sites(page).items() if name != STOPPED]
        oldest = max(oldest, time.time() - min(others) / 1000)
        time.sleep(0.1)
    return oldest


def cards(page: str, times: int) -> Result:
    """Return the seconds until Chromium shows the first cards, in order, the first page after its start included."""
    found = in_browser(f"{page}/", "#grid .card", times)
    return {"median": median(found), "slowest": max(found), "times": len(found), "seconds": found}


@contextmanager
def consoles(folder: Path, cameras: int) -> Iterator[tuple[str, Mapping[str, psutil.Process]]]:
    """Run the consoles. Yield the page of the one that reads the others, and the processes of these by site."""
    tables: dict[str, dict[str, str]] = {}
    processes: dict[str, psutil.Process] = {}
    with ExitStack() as stack:
        for site in SITES:
            own = folder / site
            own.mkdir()
            room, token = Room(own), own / "link.token"
            room.fill([f"{site}/cam-{number}" for number in range(cameras)])
            token.write_text(create_token(own / "tokens", "link", "viewer", 1, "benchmark", time.time()))
            processes[site] = stack.enter_context(room.console(NO_BROKER, "--tokens", str(own / "tokens")))
            room.await_cameras(cameras)
            tables[site] = {"url": room.page, "token_file": str(token)}
        (folder / "all").mkdir()
        reader, config = Room(folder / "all"), folder / "sites.toml"
        config.write_text(toml({"sites": tables}))
        stack.enter_context(reader.console(NO_BROKER, "--config", str(config)))
        reader.await_cameras(cameras * len(SITES))
        yield reader.page, processes


def measure(folder: Path, cameras: int, times: int) -> Result:
    """Measure with all sites up, with one stopped, and with that one away."""
    with consoles(folder, cameras) as (page, processes):
        found: Result = {"cameras": cameras * len(SITES), "up": cards(page, times)}
        stopped = processes[STOPPED]
        stopped.suspend()
        begun_s = time.monotonic()
        try:
            found["stopped"] = cards(page, times)
            seconds_to(page, "away")
            found["away_after_s"] = time.monotonic() - begun_s
            found["away"] = cards(page, times)
            found["others_oldest_s"] = oldest_s(page)
            counted = httpx2.get(f"{page}/api/v1/cameras").json()
            found["shown"], found["shown_away"] = counted["found"], counted["counts"].get("away", 0)
        finally:
            stopped.resume()
        found["up_after_s"] = seconds_to(page, "up")
    return found


def main() -> None:
    """Measure, and write the document."""
    options = command_line(__doc__, json=Option(Path), cameras=200, times=10)
    document: Result = {"cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as name:
        document["result"] = measure(Path(name), options.cameras, options.times)
    report(document, options.json)


if __name__ == "__main__":
    main()
