"""Floods of the console: `python -m benchmarks.security.floods [--out docs/results/floods] [NAME …]`.

`pointillist up` runs with users. Each flood lasts `--seconds`, from a separate process. Meanwhile two visitors load the
login page, the fleet page (with a session) and `/health`, each time on a fresh connection. One visitor uses its own
address, the other one an address of the flood. A third one logs in once a second. A flood is withstood if no page fails
and none takes more than 1 s. With names, only these floods are measured; the document keeps the others.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.harness.system import RunningSystem
from benchmarks.harness.waiting import wait_until
from benchmarks.security.floods.crowd import Address, besiege
from benchmarks.security.floods.kinds import FLOODS, SOURCE, Flood, Target
from benchmarks.security.floods.page import LONGEST_PAGE_S, markdown
from benchmarks.security.floods.visits import PAGES, Visitor, Visits, post_login
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from infra.local.ports import free_port
from infra.state_folder import Layout
from schemas.clock import unix_ms
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json

CAMERAS: Final = 4
FPS: Final = 2
PASSWORD: Final = "long enough to guess at"
VISITOR: Final = "127.0.0.2"
LOGS_IN: Final = "127.0.0.3"
_WAIT_S: Final = 240.0
_CALM_S: Final = 120.0
"""Longest wait for the console to recover before the next flood."""
_SETTLE_S: Final = 2.0

Result = dict[str, Any]


def log_in(address: Address, name: str) -> str:
    """Return the cookie of a new session."""
    answer = post_login(address, VISITOR, name, PASSWORD)
    if answer.status != 303:
        raise RuntimeError(f"login of {name}: expected status 303, got {answer.status}")
    return answer.headers["set-cookie"].partition(";")[0]


def look_around(address: Address, source: str, cookie: str, visits: Visits) -> None:
    """Load all pages once."""
    for path in PAGES:
        visits.load(address, source, path, cookie)


def visited(target: Target, cookie: str, source: str, seconds: float) -> Result:
    """Return the results of visits over `seconds`: from another address, from `source`, and logins."""
    address = target.address
    visitors = {
        "elsewhere": Visitor(partial(look_around, address, VISITOR, cookie)),
        "same_address": Visitor(partial(look_around, address, source, cookie)),
        "logins": Visitor(lambda visits: visits.log_in(address, LOGS_IN, "visitor", PASSWORD), pause_s=1.0),
    }
    time.sleep(seconds)
    found = {name: visitor.close() for name, visitor in visitors.items()}
    return {**found, "load": round(os.getloadavg()[0], 1)}


def await_calm(address: Address, cookie: str) -> float:
    """Return the seconds until all pages are answered within half of the bound, five times in succession."""
    begun_s, good = time.monotonic(), 0
    while good < 5:
        if time.monotonic() - begun_s > _CALM_S:
            break
        visits = Visits()
        look_around(address, VISITOR, cookie, visits)
        good = good + 1 if not visits.failures and visits.summary()["max_s"] < LONGEST_PAGE_S / 2 else 0
        time.sleep(0.2)
    return round(time.monotonic() - begun_s, 1)


def measured(target: Target, visitors_cookie: str, flood: Flood, seconds: float) -> Result:
    """Measure one flood and the visits during it."""
    made = multiprocessing.get_context("spawn")
    begins, ends, counts = made.Event(), made.Event(), made.Queue()
    # A separate process: threads of this one would delay the visitors.
    place = (target.address, flood.habit(target), flood.held, flood.per_second, flood.sources)
    process = made.Process(target=besiege, args=(*place, begins, ends, counts))
    process.start()
    try:
        if not begins.wait(60):
            raise TimeoutError(f"flood {flood.name}: expected its start within 60 s, got none")
        visits = visited(target, visitors_cookie, flood.sources[0], seconds)
    finally:
        ends.set()
        found = counts.get(timeout=60)
        process.join()
    if isinstance(found, str):
        raise RuntimeError(f"flood {flood.name}: expected connections to the end, got {found}")
    return {
        "flood": flood.name, "who": flood.who, "what": flood.what, "held": flood.held,
        "per_second": flood.per_second, **found, **visits,
    }  # fmt: skip


def run(folder: Path, floods: list[Flood], seconds: float, recorded_s: float) -> list[Result]:
    """Run all floods on one system."""
    state = folder / "system"
    state.mkdir()
    users = Layout(state).users
    for name in ("visitor", "flood"):
        write_user(users, name, Right.VIEWER, PASSWORD)
    address = ("127.0.0.1", free_port())
    options = ("--cameras", CAMERAS, "--fps", FPS, "--no-prometheus", "--http", f"{address[0]}:{address[1]}")
    with RunningSystem(state, *options) as system:
        system.await_role("console")
        _await_health(address)
        time.sleep(recorded_s)
        cookie = log_in(address, "visitor")
        target = Target(address, log_in(address, "flood"), unix_ms())
        console = system.await_role("console")
        quiet = {"flood": "none", "who": "nobody", "what": "the visits without a flood"}
        results = [quiet | visited(target, cookie, SOURCE, seconds)]
        for flood in floods:
            calm_s = await_calm(address, cookie)
            time.sleep(_SETTLE_S)
            results.append(measured(target, cookie, flood, seconds) | {"calm_before_s": calm_s})
            print(json.dumps(results[-1]), flush=True)
        restarted = system.await_role("console") != console
        system.interrupt()
        system.wait(300)
    if restarted:
        raise RuntimeError("console: expected one process throughout, got a restart")
    return results


def _await_health(address: Address) -> None:
    def answers() -> bool:
        visits = Visits()
        visits.load(address, VISITOR, "/health", "")
        return not visits.failures

    wait_until(answers, "an answer of the console", _WAIT_S)


def main() -> None:
    """Measure, and write the document and the page."""
    options = command_line(
        __doc__,
        *sorted({flood.name for flood in FLOODS}),
        out=Path,
        seconds=Option(20.0, "length of each flood"),
        recorded=Option(60.0, "seconds of frames recorded before the first flood"),
    )
    file = options.out / "floods.json" if options.out else None
    before = read_json(file) if file and options.names else {}
    if before.get("seconds", options.seconds) != options.seconds:
        raise SystemExit(f"--seconds: expected {before['seconds']:g} as in {file}, got {options.seconds:g}")
    chosen = [flood for flood in FLOODS if not options.names or flood.name in options.names]
    with tempfile.TemporaryDirectory(prefix="pointillist-floods-") as folder:
        found = run(Path(folder), chosen, options.seconds, options.recorded)
    known = before.get("floods", [])
    merged = {(each["flood"], each["who"]): each for each in [*known, *found]}
    document = {"cores": len(os.sched_getaffinity(0)), "seconds": options.seconds, "floods": list(merged.values())}
    page = markdown(document)
    print(page)
    if file:
        report(document, file, shown=False)
        write_text(file.with_name("README.md"), page)


if __name__ == "__main__":
    main()
