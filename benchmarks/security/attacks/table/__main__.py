"""The table of attacks: `python -m benchmarks.security.attacks.table [--out docs/results/attacks] [NAME …]`.

One system runs with the defaults of `pointillist up`, TLS, access rights and sealed frames, but without regular probes.
While its cameras send, the attacks run one after the other. Each attack runs in rounds, and each round follows a quiet
period of the same length. The ratio of p99 latency (capture to record, good cameras) compares the attack with the quiet
periods. `nobody` does nothing and is the control. An attack that was measured before is not run again, except with
`--again` for those that are named.

An attack is refused or bounded if five conditions hold: the attack reached no aim; no good frame is lost; no good
camera was disconnected, or captured less than half as many frames; and the counters that should detect it have grown.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.quantile import quantile
from benchmarks.harness.system import RunningSystem
from benchmarks.harness.waiting import await_cameras
from benchmarks.security.attacks.table.attack import Attack
from benchmarks.security.attacks.table.enrolled import ENROLLED
from benchmarks.security.attacks.table.page import markdown
from benchmarks.security.attacks.table.strangers import STRANGERS
from benchmarks.security.attacks.table.target import DROPPED, Target, Window
from schemas.batched import batched
from schemas.clock import unix_ms
from schemas.runtime.json_files import read_json, write_json


def _nothing(_target: Target, end: float) -> Counter[str]:
    time.sleep(max(0.0, end - time.monotonic()))
    return Counter()


CONTROL: Final = Attack(
    "nothing", "nobody", "does nothing: how much two times of quiet differ", "bounded", (), _nothing
)
ATTACKS: Final = (CONTROL, *STRANGERS, *ENROLLED)
CAMERAS: Final = 8
FPS: Final = 5
ROUNDS: Final = 2
COUNTED_S: Final = 40.0
"""Time within which the counters must have detected an attack."""
SETTLE_S: Final = 2.0
"""Time for messages in flight when an attack ends. Counters are scraped and frames are recorded after it."""
OPTIONS: Final = ("--cameras", CAMERAS, "--fps", FPS, "--probe-share", 0, "--drop-ratio", DROPPED / 64, "--drain-s", 60)


def measured(target: Target, attack: Attack, seconds: float) -> dict[str, Any]:
    """Run one attack in rounds, each after a quiet period of the same length.

    Other load on the machine affects both alike.
    """
    before, reconnects = target.counters(), target.reconnects()
    done: Counter[str] = Counter()
    quiet: list[Window] = []
    during: list[Window] = []
    for _ in range(ROUNDS):
        begun_ms = unix_ms()
        time.sleep(seconds)
        quiet.append((begun_ms, unix_ms()))
        done += attack.run(target, time.monotonic() + seconds)
        during.append((quiet[-1][1], unix_ms()))
        time.sleep(SETTLE_S)
    seen = _seen(target, attack, before)
    reached = {name: count for name, count in done.items() if name.startswith("reached") and count}
    if target.reconnects() > reconnects:
        reached["reached: connections of good cameras ended"] = round(target.reconnects() - reconnects)
    return {
        "attack": attack.name,
        "who": attack.who,
        "what": attack.what,
        "answer": attack.answer,
        "done": {name: count for name, count in done.items() if not name.startswith("reached")},
        "reached": reached,
        "seen": seen,
        "unseen": _unseen(attack, seen),
        "quiet_ms": quiet,
        "during_ms": during,
        "load": os.getloadavg()[0],
    }


def _seen(target: Target, attack: Attack, before: dict[str, float]) -> dict[str, float]:
    """Return the counters that have grown. Wait until all expected ones have: a role that lags may count late."""
    end = time.monotonic() + COUNTED_S
    while True:
        after = target.counters()
        seen = {name: after[name] - before.get(name, 0.0) for name in after if after[name] > before.get(name, 0.0)}
        if not _unseen(attack, seen) or time.monotonic() > end:
            return seen
        time.sleep(1)


def _unseen(attack: Attack, seen: dict[str, float]) -> list[str]:
    return [name for name in attack.seen_by if not any(_is(name, counter) for counter in seen)]


def judged(target: Target, cell: dict[str, Any]) -> dict[str, Any]:
    """Return the cell with the good frames' results, after all frames are recorded."""
    found, expected = target.latencies_s(cell["during_ms"]), target.latencies_s(cell["quiet_ms"])
    reached = dict(cell["reached"])
    if changed := target.frames_changed(cell["during_ms"]):
        reached["reached: frames that drop other than set"] = changed
    if silenced := target.silenced(cell["quiet_ms"], cell["during_ms"]):
        reached["reached: good cameras silenced"] = silenced
    return cell | {
        "reached": reached,
        "frames_a_second": {
            "quiet": len(expected) / _length_s(cell["quiet_ms"]),
            "during": len(found) / _length_s(cell["during_ms"]),
        },
        "p99_before_s": quantile(expected, 0.99),
        "p99_during_s": quantile(found, 0.99),
        "median_before_s": quantile(expected, 0.5),
        "median_during_s": quantile(found, 0.5),
    }


def _length_s(windows: list[Window]) -> float:
    return sum(until - since for since, until in windows) / 1000


def _is(name: str, found: str) -> bool:
    return found.startswith(name) if name.endswith(" ") else found == name


def run(wanted: Sequence[Attack], cells: dict[str, Any], keep: Path, seconds: float) -> None:
    """Measure the wanted attacks on one system. Write the cells when it has ended and all frames are recorded."""
    with tempfile.TemporaryDirectory(prefix="pointillist-attacks-") as folder:
        state = Path(folder) / "state"
        with RunningSystem(state, *OPTIONS) as system:
            system.await_role("fleet")
            target = Target.of(system, CAMERAS, Path(folder))
            await_cameras(system, CAMERAS)
            time.sleep(seconds)
            found = {}
            for attack in wanted:
                found[_name(attack)] = measured(target, attack, seconds)
                print(json.dumps(found[_name(attack)], indent=2), flush=True)
            system.interrupt()
            status, report = system.wait(300)
        ended = {"lost": report["frames_lost"], "status_of_up": status}
        cells |= {name: judged(target, cell) | ended for name, cell in found.items()}
    write_json(keep, cells)


def _name(attack: Attack) -> str:
    return f"{attack.who}: {attack.name}"


def main() -> None:
    """Run the missing or the named attacks."""
    known = {_name(attack): attack for attack in ATTACKS}
    options = command_line(
        __doc__,
        *known,
        out=Path("docs/results/attacks"),
        seconds=Option(5.0, "length of a round of an attack, and of the quiet period before it"),
        at_once=Option(5, "attacks to run on one system before its results are written"),
        again=False,
    )
    keep = options.out / "table.json"
    cells: dict[str, Any] = read_json(keep)
    wanted = [known[name] for name in options.names or known if options.again or name not in cells]
    for some in batched(wanted, options.at_once):
        run(some, cells, keep, options.seconds)
        (options.out / "README.md").write_text(markdown([cells[name] for name in known if name in cells]))


if __name__ == "__main__":
    main()
