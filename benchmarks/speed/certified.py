"""The effect of live certificates on classification: `python -m benchmarks.speed.certified --json
docs/results/certified/live.json`.

`pointillist up` runs with certificates for a share of its frames and without, in turns. At full speed, the figure is
`frames_kept`: recorded frames per second with certificates ÷ without. At a rate that the system keeps up with, it is
`over_p99`: the 99th percentile from capture to record with ÷ without. Both are medians over the rounds; the order
changes from round to round. `examined` is the number of frames whose label was examined ÷ the number that is chosen on
average. Chance and flagged probes can bring it above 1. It is lower on a busy machine: certificates make frames wait
for 15 % of the device time at most, and no frame waits for longer than `certify_wait_s`, so some chosen frames get a
verdict without a certificate.

Most labels of the network `scene` get no certificate, which their first passes show. A network that was trained for
certificates, such as `--bundle lab/networks/scene-stickers`, takes all passes for most of its examined frames.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from sqlalchemy import func, select

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.system import RunningSystem, undisturbed
from benchmarks.speed.latency import parsed
from benchmarks.speed.own_networks import SIZE, scenario
from benchmarks.speed.pipeline import DRAIN_S, WARM_S, measure_window
from consumers.database.queries import Records, open_records
from consumers.database.tables import frames
from infra.state_folder import Layout
from processors.bundle import load_bundle, shipped_bundle

Result = dict[str, Any]

SIDES: Final = ("without", "certified")


def run(load: str, size: Sequence[int], seconds: float, share: float, bundle: Path) -> Result:
    """Run a system with `bundle` once: frames per second, latency and certificates over `seconds` after the warm-up."""
    with tempfile.TemporaryDirectory(prefix="pointillist-certified-") as name:
        folder = Path(name)
        config, layout = folder / "up.toml", Layout(folder / "state")
        config.write_text(f"[processor]\ncertify_share = {share}\n")
        fleet = scenario(folder / "scenario.yaml", *parsed(load), "raw", size)
        options = ("--scenario", fleet, "--config", config, "--bundle", bundle, "--no-prometheus")
        timing = ("--seconds", seconds + 2 * WARM_S, "--drain-s", DRAIN_S)
        with RunningSystem(folder / "state", *options, *timing) as system:
            window = measure_window(system, seconds)
            _, found = system.wait(DRAIN_S + 300)
            undisturbed(found, system.output())
        with open_records(layout.database_url) as records:
            latency = records.latency_quantiles(window.begun_ms, window.ended_ms)
            every, examined, certified = certificates(records)
    return {
        "frames_per_second": window.frames / window.seconds, "p50_s": latency.p50, "p99_s": latency.p99,
        "recorded": every, "examined": examined, "certified": certified, "frames_lost": found["frames_lost"],
    }  # fmt: skip


def certificates(records: Records) -> tuple[int, int, int]:
    """Return the numbers of frames: all, with an examined label, with a certified one."""
    examined = frames.c.certified_patch > 0
    counts = (func.count(), func.count().filter(examined), func.count().filter(examined & (frames.c.certified == 1)))
    with records.engine.connect() as connection:
        every, some, certified = connection.execute(select(*counts).select_from(frames)).one()
    return every, some, certified


def summary(rounds: Sequence[dict[str, dict[str, Result]]], share: float) -> Result:
    """Return the medians of the rounds' ratios, and the sums of certificates, from results by load and side."""
    runs = [found for each in rounds for load in each.values() for found in load.values()]

    def over(load: str, key: str) -> Result:
        pairs = [(each[load]["certified"][key], each[load]["without"][key]) for each in rounds]
        sides = {"certified": statistics.median(pair[0] for pair in pairs)}
        sides["without"] = statistics.median(pair[1] for pair in pairs)
        ratios = [certified / without for certified, without in pairs]
        return {"ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)} | sides

    def certificates_of(load: str) -> Result:
        chosen = share * sum(each[load]["certified"]["recorded"] for each in rounds)
        examined, certified = (
            sum(each[load]["certified"][key] for each in rounds) for key in ("examined", "certified")
        )
        return {"examined": examined / chosen, "certified": certified / max(1, examined)}

    return {
        "frames_kept": over("full", "frames_per_second"),
        "over_p99": over("steady", "p99_s"),
        "full": certificates_of("full"),
        "steady": certificates_of("steady"),
        "frames_lost": sum(found["frames_lost"] for found in runs),
    }


def main() -> None:
    """Measure both sides at both loads in turns, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        size=Option(SIZE, "width and height of a frame", several=2),
        full=Option("4x0", "cameras x frames per second at full speed; 0 is as many as possible"),
        steady=Option("4x2", "cameras x frames per second at a rate that the system keeps up with"),
        share=0.05,
        bundle=Option(shipped_bundle("scene"), "bundle that classifies the frames"),
        seconds=30.0,
        rounds=3,
    )
    rounds: list[dict[str, dict[str, Result]]] = []
    for number in range(arguments.rounds):
        found: dict[str, dict[str, Result]] = {"full": {}, "steady": {}}
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            share = arguments.share if side == "certified" else 0.0
            for load in found:
                result = run(getattr(arguments, load), arguments.size, arguments.seconds, share, arguments.bundle)
                found[load][side] = result
                print(f"round {number + 1}, {load}, {side}: {result}", flush=True)
        rounds.append(found)
    document = {
        "command": arguments.command,
        "machine": machine("torch"),
        "size": list(arguments.size),
        "model": load_bundle(arguments.bundle, torch.device("cpu")).model_id,
        "share": arguments.share,
        "result": summary(rounds, arguments.share),
        "rounds": rounds,
    }
    report(document, arguments.json)


if __name__ == "__main__":
    main()
