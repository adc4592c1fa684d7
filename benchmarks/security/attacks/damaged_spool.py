"""A decaying disk: bytes of full spools and of their ledgers change while the fleet is stopped."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness.system import RunningSystem
from benchmarks.security.attacks.outcome import Outcome
from infra.audit.audit import Audit, audit
from infra.state_folder import Layout
from producers.spool import scan_spool
from producers.spool.segment import SUFFIX, read_segment
from schemas.ranges import RangeSet

CAMERAS: Final = 4
SPOOL_BYTES: Final = 512 * 2**10
SCENARIO: Final = f"""
site: field
cameras:
  - {{count: {CAMERAS}, fps: 20, spool: {{max_bytes: {SPOOL_BYTES}}}}}
"""
Boot = tuple[str, int]


def attack(folder: Path, seed: int = 0) -> Outcome:
    """Kill a system whose spools are full, change bytes of every segment and every ledger, and start it again."""
    state = folder / "state"
    scenario = folder / "scenario.yaml"
    scenario.write_text(SCENARIO)
    layout = Layout(state.resolve())
    with RunningSystem(state, "--scenario", scenario) as system:
        system.await_role("fleet")
        _await_recorded(layout, 20 * CAMERAS)
        system.send("bridge", signal.SIGSTOP)
        _await_full(layout)
        _kill(system)
    before = audit(layout)
    hit = _damage(layout, random.Random(seed))
    stopped = audit(layout)
    with RunningSystem(state, "--scenario", scenario, "--seconds", 5, "--drain-s", 120) as system:
        status, _ = system.wait(300)
    after = audit(layout)
    unexplained = {
        boot: sorted(gone) for boot, gone in _newly_shed(before, after).items() if not gone <= hit.get(boot, set())
    }
    logged = layout.log("fleet").read_text().count("spool_frames_damaged")
    counts = after.counts()
    return Outcome(
        what=(
            f"two bytes of each segment and a digit of each ledger of {CAMERAS} full spools were changed, "
            "for one camera in both copies of the ledger"
        ),
        succeeded=bool(counts.frames_lost or stopped.counts().frames_lost or unexplained or status or not logged),
        lost=counts.frames_lost,
        seen={
            "published": counts.frames_published,
            "recorded": counts.frames_recorded,
            "shed_by_full_spools": before.counts().frames_shed,
            "frames_hit": sum(map(len, hit.values())),
            "shed_for_damage": sum(map(len, _newly_shed(before, after).values())),
            "shed_for_damage_says_the_audit_of_the_stopped_fleet": sum(map(len, _newly_shed(before, stopped).values())),
            "shed_unexplained": sum(map(len, unexplained.values())),
            "cameras_that_logged_it": logged,
            "lost_says_the_audit_of_the_stopped_fleet": stopped.counts().frames_lost,
            "status_of_up": status,
        },
    )


def _await_recorded(layout: Layout, frames: int, deadline_s: float = 90.0) -> None:
    _until(lambda: layout.database.is_file() and audit(layout).counts().frames_recorded >= frames, deadline_s)


def _await_full(layout: Layout, deadline_s: float = 120.0) -> None:
    """Wait until every spool has shed frames for lack of space."""
    _until(lambda: sum(bool(boot.shed) for boot in scan_spool(layout.spool)) == CAMERAS, deadline_s)


def _until(condition: Any, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"spools: expected all full within {deadline_s:g} s, got a timeout")
        time.sleep(0.5)


def _kill(system: RunningSystem) -> None:
    """Kill all processes at once, as a power cut would."""
    running = [psutil.Process(entry["pid"]) for entry in system.roles().values() if psutil.pid_exists(entry["pid"])]
    os.kill(system.process.pid, signal.SIGKILL)
    for process in running:
        process.kill()
    psutil.wait_procs(running, timeout=30)


def _damage(layout: Layout, source: random.Random) -> dict[Boot, set[int]]:
    """Change the bytes, and return the frames whose records they were in, by camera and boot."""
    hit: dict[Boot, set[int]] = {}
    for number, folder in enumerate(sorted(path for path in layout.spool.glob("*/*") if path.is_dir())):
        camera = f"{folder.parent.name}/{folder.name}"
        for path in folder.glob(f"*{SUFFIX}"):
            content = read_segment(path)
            assert content is not None
            data = bytearray(path.read_bytes())
            ends = [record.offset + record.length for record in content.records]
            for _ in range(2):
                at = source.randrange(ends[-1])
                data[at] ^= 1 << source.randrange(8)
                seq = next(record.seq for record, end in zip(content.records, ends, strict=True) if at < end)
                hit.setdefault((camera, content.boot_id), set()).add(seq)
            path.write_bytes(data)
        for path in folder.glob("*.ledger.json"):
            for copy in [path, path.with_suffix(".copy")][: 2 if number == 0 else 1]:
                _other_digit(copy, source)
    return hit


def _other_digit(path: Path, source: random.Random) -> None:
    text = path.read_text()
    at = source.choice([at for at, letter in enumerate(text.partition("\n")[0]) if letter.isdigit()])
    digit = source.choice([digit for digit in "123456789" if digit != text[at]])
    path.write_text(text[:at] + digit + text[at + 1 :])


def _newly_shed(before: Audit, after: Audit) -> dict[Boot, set[int]]:
    """Return the frames that only the later audit counts as shed, by boot."""
    known = {(str(boot.camera_id), boot.boot_id): boot.shed for boot in before.boots}
    newly = {
        (str(boot.camera_id), boot.boot_id): set(
            boot.shed.minus(known.get((str(boot.camera_id), boot.boot_id), RangeSet()))
        )
        for boot in after.boots
    }
    return {boot: seqs for boot, seqs in newly.items() if seqs}
