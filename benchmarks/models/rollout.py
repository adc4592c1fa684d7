"""Rollouts live: `python -m benchmarks.models.rollout PART … --json FILE`, about five minutes at most for each part.

- `bad`: 20 bad candidates, four of each kind, as shadow with leave to be promoted by rule. A backdoored one is scanned
  first, as `model candidate --clean` does, and begins no rollout if the scan finds a trigger. A candidate on which the
  gate has not decided within two minutes counts as undecided. The part ends after `--seconds`; the same command again
  continues with the candidates that are not in the JSON yet.
- `canary`: a canary with shuffled labels on half of the cameras; seconds from its publication until its last verdict.
- `shadow`, `saturated`: turns without and with a shadow of a fifth of the frames, at a usual load and at saturation.
- `swaps`: 100 published models in turn, or as many as `--seconds` allow; growth of the processor's memory from the
  20th on.

A part that is in the JSON already is replaced. Others stay.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import torch
import yaml

from benchmarks.harness.command_line import command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.quantile import quantile
from benchmarks.harness.records import count_frames, rows
from benchmarks.harness.system import RunningSystem, audit
from benchmarks.harness.waiting import wait_until
from benchmarks.models.bad_candidates import bad_candidates
from infra.bundling.models_topic import ModelsTopic
from infra.cli.access import kafka_place
from infra.state_folder import Layout
from lab.data import LabelledPictures
from lab.repair.scan import scan
from lab.training.scene import scenes
from processors.bundle import load_bundle, shipped_bundle
from processors.models.store import ModelStore
from schemas.clock import unix_ms
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import publish, sign
from schemas.messages.rollout import begin, ended
from schemas.pointillist_pb2 import CANARY, FAILED, PROMOTED, SHADOW, Assessment, Model, Rollout, Slot
from schemas.runtime.json_files import read_json

CAMERAS: Final = 8
FPS: Final = 4.0
SATURATING_FPS: Final = 100.0
DRAIN_S: Final = 300.0
DECIDES_S: Final = 120.0
"""Longest wait for a decision: a slow candidate needs a minute to load and to be timed."""
SWAPS: Final = 100
SETTLED: Final = 20
TURN_S: Final = 15.0
TURNS: Final = 3
SWAPPED_FPS: Final = 1.0
UNDECIDED: Final = "undecided, dismissed"
_CLEAN_SCAN: Final = '{"clean": true, "suspects": {}}'

Result = dict[str, Any]


class Piece(NamedTuple):
    """One run of a part."""

    folder: Path
    known: Result
    """The part's earlier result; empty without one."""
    seconds: float
    """Seconds after which no further candidate and no further swap begins."""


class Drill:
    """A running system, and the rights of its administrator."""

    def __init__(self, folder: Path, fps: float, processors: int = 1) -> None:
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        scenario = folder / "scenario.yaml"
        source = {"kind": "scene", "seed": 5, "prerendered": 64}
        group = {
            "name": "cam-{index:02}", "count": CAMERAS, "source": source, "fps": fps, "drop_ratio": 0.25,
            "probe_share": 0.1,
        }  # fmt: skip
        scenario.write_text(yaml.safe_dump({"site": "drill", "cameras": [group]}))
        # At saturation, the spools hold more than the usual minute drains.
        drain = ("--drain-s", DRAIN_S)
        options = ("--scenario", scenario, "--bundle", shipped_bundle("scene"), "--processors", processors, *drain)
        self.system = RunningSystem(self.state, *options)
        self.layout = Layout(self.state)
        self.system.await_role("fleet")
        self.system.await_role("monitor")
        wait_until(lambda: count_frames(self.layout.database), "a frame", 120, system=self.system)

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the recorder's database."""
        return rows(self.layout.database, query, *values)

    def run(self, work: Callable[[ModelsTopic], Awaitable[Any]]) -> Any:
        """Run `work` on the topic of models."""
        signer = self.layout.signer()

        async def body() -> Any:
            where = kafka_place(None, self.state, "admin")
            async with ModelsTopic(where, TrustedSigners.read(self.layout.trusted), signer) as topic:
                return await work(topic)

        return asyncio.run(body())

    def stored(self, folder: Path) -> Model:
        """Return a bundle in the system's store, signed."""
        model_id = load_bundle(folder, torch.device("cpu"), vouched=True).model_id
        return sign(ModelStore(str(self.layout.models)).add(folder, model_id), self.layout.signer())

    def rollout(self, model: Model, slot: Slot, **fields: Any) -> Rollout:
        """Return a rollout that begins now, on which this system's gate decides."""
        decider = self.layout.decider().public
        return Rollout(candidate=model, begun_ms=unix_ms(), slot=slot, decider=decider, **fields)

    def finish(self) -> Result:
        """End the system, and return the result of the audit."""
        self.system.interrupt()
        self.system.finish(2 * DRAIN_S + 60.0)
        status, found = audit(self.state)
        return {"status": status, **{name: found[name] for name in ("frames_recorded", "frames_lost")}}


async def _decided(topic: ModelsTopic, deadline_s: float) -> Assessment | None:
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        await topic.refresh()
        found = topic.assessment
        if found is not None and found.outcome in (FAILED, PROMOTED):
            return found
        await asyncio.sleep(0.2)
    return topic.assessment


def bad(piece: Piece) -> Result:
    """Return the fate of each bad candidate."""
    images, labels = scenes(90, 150)
    clean = LabelledPictures("scenes", images, labels)
    rows: list[Result] = list(piece.known.get("candidates", []))
    names = {row["candidate"] for row in rows}
    drill = Drill(piece.folder, FPS)
    end_s = time.monotonic() + piece.seconds
    for kind, place in bad_candidates(piece.folder / "candidates", names):
        if time.monotonic() > end_s and len(rows) > len(names):
            break
        row: Result = {"candidate": place.name, "scan": None, "outcome": "refused before the rollout"}
        rows.append(row)
        if kind == "backdoored":
            found = scan(load_bundle(place, torch.device("cpu")), clean)
            row["scan"] = found.suspects or "clean"
            if not found.clean:
                continue
        model = drill.stored(place)
        rollout = drill.rollout(model, SHADOW, frames=1.0, cameras=0.5, by_rule=True, scan=_CLEAN_SCAN)

        async def judged(topic: ModelsTopic, begun: Rollout = rollout) -> Assessment | None:
            await topic.write(begin(topic.models, begun))
            assessment = await _decided(topic, DECIDES_S)
            await topic.write(ended(topic.models))
            return assessment

        begun_s = time.monotonic()
        assessment = drill.run(judged)
        row["seconds"] = round(time.monotonic() - begun_s, 1)
        row["outcome"] = outcome(assessment)
        row["report"] = None if assessment is None else assessment.report
    audits = [*piece.known.get("audits", []), drill.finish()]
    return {"candidates": rows, **counted(rows), "audits": audits}


def outcome(assessment: Assessment | None) -> str:
    """Return the end of a candidate's rollout in words."""
    if assessment is None or assessment.outcome not in (FAILED, PROMOTED):
        return UNDECIDED
    return "promoted" if assessment.outcome == PROMOTED else "rolled back"


def counted(rows: Sequence[Result]) -> Result:
    """Return the number of candidates that were promoted, and of those that the gate neither promoted nor rejected."""
    outcomes = [row["outcome"] for row in rows]
    return {"promoted": outcomes.count("promoted"), "undecided": outcomes.count(UNDECIDED)}


def canary(piece: Piece) -> Result:
    """Return the time in which a failing canary is rolled back."""
    drill = Drill(piece.folder, FPS, processors=2)
    name, place = next(iter(bad_candidates(piece.folder / "candidates")))
    model = drill.stored(place)
    rollout = drill.rollout(model, CANARY, frames=1.0, cameras=0.5, by_rule=True, scan=_CLEAN_SCAN)

    async def served(topic: ModelsTopic) -> Assessment | None:
        await topic.write(begin(topic.models, rollout))
        return await _decided(topic, 60.0)

    begun_ms = unix_ms()
    assessment = drill.run(served)
    time.sleep(5)
    query = "select count(*), min(processed_ms), max(processed_ms) from frames where model_id = ?"
    ((frames, first_ms, last_ms),) = drill.ask(query, model.model_id)
    return {
        "candidate": name,
        "rolled_back": assessment is not None and assessment.outcome == FAILED,
        "verdicts_of_the_canary": frames,
        "seconds_from_publication_to_last_verdict": (last_ms - begun_ms) / 1000 if last_ms else None,
        "seconds_from_first_to_last_verdict": (last_ms - first_ms) / 1000 if last_ms else None,
        "audit": drill.finish(),
    }


def shadow(piece: Piece, fps: float = FPS) -> Result:
    """Return latency and throughput of the live model without and with a shadow of a fifth of the frames."""
    drill = Drill(piece.folder, fps)
    model = drill.stored(shipped_bundle("scene-plain"))
    turns: dict[bool, list[Result]] = {False: [], True: []}
    for _ in range(TURNS):
        for on in (False, True):
            turns[on].append(_turn(drill, model, on))
    off, on_ = ({key: median(turn[key] for turn in turns[on]) for key in turns[on][0]} for on in (False, True))
    return {
        "fps": fps, "without": off, "with": on_, "turns": {str(on): each for on, each in turns.items()},
        "p99_ratio": on_["p99_s"] / off["p99_s"],
        "frames_ratio": on_["frames_per_s"] / off["frames_per_s"],
        "compared": int(drill.ask("select count(*) from comparisons")[0][0]), "audit": drill.finish(),
    }  # fmt: skip


def _turn(drill: Drill, model: Model, on: bool) -> Result:
    async def change(topic: ModelsTopic) -> None:
        rollout = drill.rollout(model, SHADOW, frames=0.2)
        await topic.write(begin(topic.models, rollout) if on else ended(topic.models))
        if on:
            await topic.wait_for_candidate(60.0)

    drill.run(change)
    time.sleep(3)
    since_ms = unix_ms()
    time.sleep(TURN_S)
    until_ms = unix_ms()
    query = "select processed_ms - captured_ms from frames where processed_ms >= ? and processed_ms < ?"
    times = [row[0] / 1000 for row in drill.ask(query, since_ms, until_ms)]
    return {"frames_per_s": 1000 * len(times) / (until_ms - since_ms), "p99_s": quantile(times, 0.99)}


def swaps(piece: Piece) -> Result:
    """Return the growth of a processor's memory over 100 published models."""
    drill = Drill(piece.folder, SWAPPED_FPS)
    models = [drill.stored(shipped_bundle(name)) for name in ("scene-plain", "scene")]
    resident: list[int] = []

    async def swap(topic: ModelsTopic) -> None:
        for number in range(SWAPS):
            if time.monotonic() - begun_s > piece.seconds and number > SETTLED:
                return
            model = Model()
            model.CopyFrom(models[number % 2])
            await topic.write(publish(topic.models, model))
            _, refused, silent = await topic.wait(60.0)
            if refused or silent:
                raise RuntimeError(f"swap {number}: expected every processor to serve it, got {refused} {silent}")
            resident.append(drill.system.resident_bytes("processor-1"))

    begun_s = time.monotonic()
    drill.run(swap)
    seconds = time.monotonic() - begun_s
    before, after = median(resident[SETTLED - 10 : SETTLED]), median(resident[-10:])
    return {
        "swaps": len(resident),
        "seconds": round(seconds, 1),
        "resident_mib": [round(each / 2**20, 1) for each in resident],
        "growth": after / before - 1,
        "audit": drill.finish(),
    }


PARTS: Final[dict[str, Callable[[Piece], Result]]] = {
    "bad": bad, "canary": canary, "shadow": shadow, "saturated": partial(shadow, fps=SATURATING_FPS), "swaps": swaps,
}  # fmt: skip


def main() -> None:
    """Run the parts, print their results, and write the JSON."""
    arguments = command_line(__doc__, *PARTS, json=Path, seconds=150.0)
    file = arguments.json
    result: Result = read_json(file) if file else {}
    result["machine"] = machine("torch", "openvino")
    for name in arguments.names or PARTS:
        load = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(prefix="pointillist-rollout-") as folder:
            found = PARTS[name](Piece(Path(folder), result.get(name, {}), arguments.seconds))
        result[name] = found | {"load": load}
        report(result, file, shown=False)
    report(result, None)


if __name__ == "__main__":
    main()
