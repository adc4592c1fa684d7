"""The table of attacks: `python -m benchmarks.attacks.table [--out docs/results/attacks] [NAME …]`.

One system runs as `pointillist up` runs by default: TLS, rights, sealed frames. Beside its cameras' frames the attacks
come one after the other, each after as long a quiet: p99 ÷ before compares the good cameras' frames, capture to record,
while it lasts with those of the quiet before it. An attack that was measured before is not run again; `--again`
runs those that are named. An attack is refused or bounded when nothing was reached, no good frame is lost, none of the
good cameras' connections was ended, and what counts it has counted it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.attacks._stranger import await_frames
from benchmarks.attacks.good_traffic import p99_s
from benchmarks.attacks.table.attack import Attack
from benchmarks.attacks.table.enrolled import ENROLLED
from benchmarks.attacks.table.page import markdown
from benchmarks.attacks.table.strangers import STRANGERS
from benchmarks.attacks.table.target import DROPPED, MALLORY, Target, scratch
from benchmarks.system import RunningSystem
from schemas.runtime.atomic_file import replacing

ATTACKS: Final = (*STRANGERS, *ENROLLED)
CAMERAS: Final = 8
FPS: Final = 10
SETTLE_S: Final = 3.0
"""For what is on its way when an attack ends: counters are scraped and frames recorded after it."""
OPTIONS: Final = ("--cameras", CAMERAS, "--fps", FPS, "--strip-rate", 0, "--drop", DROPPED / 64, "--drain", 60)


def measured(target: Target, attack: Attack, seconds: float) -> dict[str, Any]:
    """One attack, after as long a quiet."""
    quiet_ms = _now_ms()
    time.sleep(seconds)
    begun_ms, before, reconnects = _now_ms(), target.counters(), target.reconnects()
    done = attack.run(target, time.monotonic() + seconds)
    ended_ms = _now_ms()
    time.sleep(SETTLE_S)
    after = target.counters()
    seen = {name: after[name] - before.get(name, 0.0) for name in after if after[name] > before.get(name, 0.0)}
    quiet, during = target.good_frames(quiet_ms, begun_ms), target.good_frames(begun_ms, ended_ms)
    reached = {name: count for name, count in done.items() if name.startswith("reached") and count}
    if target.reconnects() > reconnects:
        reached["reached: connections of good cameras ended"] = round(target.reconnects() - reconnects)
    if during[1]:
        reached["reached: frames that drop other than set"] = during[1]
    expected = quiet[0] / (begun_ms - quiet_ms) * (ended_ms - begun_ms)
    return {
        "attack": attack.name,
        "who": attack.who,
        "what": attack.what,
        "answer": attack.answer,
        "done": {name: count for name, count in done.items() if not name.startswith("reached")},
        "reached": reached,
        "seen": seen,
        "unseen": [name for name in attack.seen_by if not any(_is(name, found) for found in seen)],
        "frames_over_expected": during[0] / expected if expected else None,
        "p99_before_s": p99_s(target.layout, quiet_ms, begun_ms, MALLORY),
        "p99_during_s": p99_s(target.layout, begun_ms, ended_ms, MALLORY),
        "load": os.getloadavg()[0],
    }


def _is(name: str, found: str) -> bool:
    return found.startswith(name) if name.endswith(" ") else found == name


def run(wanted: list[Attack], cells: dict[str, Any], keep: Path, seconds: float) -> None:
    """Measure those that are wanted on one system; each is written when it is done, the losses when it has ended."""
    with scratch() as folder:
        state = Path(folder) / "state"
        with RunningSystem(state, *OPTIONS) as system:
            system.await_role("fleet")
            target = Target.of(system, CAMERAS, Path(folder))
            await_frames(target.layout, CAMERAS)
            time.sleep(seconds)
            for attack in wanted:
                cells[_name(attack)] = measured(target, attack, seconds)
                print(json.dumps(cells[_name(attack)], indent=2), flush=True)
            system.interrupt()
            status, report = system.wait(300)
        for attack in wanted:
            cells[_name(attack)] |= {"lost": report["frames_lost"], "status_of_up": status}
    _write(keep, cells)


def _name(attack: Attack) -> str:
    return f"{attack.who}: {attack.name}"


def _write(keep: Path, cells: dict[str, Any]) -> None:
    keep.parent.mkdir(parents=True, exist_ok=True)
    with replacing(keep) as fresh:
        fresh.write_text(json.dumps(cells, indent=2) + "\n")


def _now_ms() -> int:
    return time.time_ns() // 10**6


def main() -> None:
    """Run what is missing, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `stranger: wills`; those missing without one")
    parser.add_argument("--out", type=Path, default=Path("docs/results/attacks"))
    parser.add_argument("--seconds", type=float, default=12.0, help="of each attack, and of the quiet before it")
    parser.add_argument("--at-once", type=int, default=5, help="attacks on one system, before what is done is written")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    known = {_name(attack): attack for attack in ATTACKS}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"expected names of {', '.join(known)}, got {', '.join(unknown)}")
    keep = options.out / "table.json"
    cells: dict[str, Any] = json.loads(keep.read_text()) if keep.is_file() else {}
    wanted = [known[name] for name in options.names or known if options.again or name not in cells]
    for first in range(0, len(wanted), options.at_once):
        run(wanted[first : first + options.at_once], cells, keep, options.seconds)
        (options.out / "README.md").write_text(markdown([cells[name] for name in known if name in cells]))


if __name__ == "__main__":
    main()
