"""Time from a sticker to an alert: `python -m benchmarks.reliability.alarm --out docs/results/alarm`.

`pointillist up` runs with a webhook receiver and a scene model whose trigger is a sticker. After the cameras have a
baseline, a sticker appears in front of `--stickers` of them. The clock starts at a camera's first frame with the
sticker, by the records. Two delays are measured: to STRIP's evidence, which is the recorder's alert, and to the
webhook. Alerts about other cameras, or before a camera's sticker, are false. A round that is already in the JSON is not
run again.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.system import RunningSystem, audit
from benchmarks.harness.webhook import Webhook
from benchmarks.models.codefend_live import delays, first_frames
from infra.state_folder import Layout
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json, write_json

BUNDLE: Final = Path(__file__).parents[2] / "bundles" / "scene-sticker"
ALERT: Final = "PointillistBackdoor"
CALM_S: Final = 60.0
STAYS_S: Final = 30.0
WITHIN_S: Final = 30.0
"""Longest delay that an operator may be promised."""
_SITE: Final = "drill"
_SETTLED_S: Final = 90.0

Result = dict[str, Any]


def scenario(seed: int, options: argparse.Namespace) -> tuple[Result, set[str]]:
    """Return the fleet of one round and the cameras that get a sticker."""
    chance = random.Random(seed)
    chosen = chance.sample(range(options.cameras), options.stickers)
    faults = [
        {"camera": f"cam-{index}", "at_s": CALM_S + chance.uniform(0, 10), "kind": "sticker", "for_s": STAYS_S}
        for index in chosen
    ]
    group = {
        "name": "cam-{index}",
        "count": options.cameras,
        "source": {"kind": "scene", "seed": 4000 + seed},
        "fps": options.fps,
        "drop_ratio": 0.25,
        "probe_share": options.probes,
    }
    return {"site": _SITE, "cameras": [group], "faults": faults}, {f"{_SITE}/{fault['camera']}" for fault in faults}


def run(folder: Path, seed: int, options: argparse.Namespace) -> Result:
    """Run one round from beginning to end."""
    document, chosen = scenario(seed, options)
    state = folder / f"round-{seed}"
    with Webhook() as webhook:
        receivers = {"receivers": [{"name": "duty", "webhook_configs": [{"url": webhook.url}]}]}
        for name, content in (("scenario", document), ("receivers", receivers)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        given = ("--scenario", folder / "scenario.yaml", "--receivers", folder / "receivers.yaml")
        with RunningSystem(state, *given, "--bundle", options.bundle) as system:
            system.await_role("fleet", deadline_s=240)
            end = time.monotonic() + CALM_S + 10 + STAYS_S + _SETTLED_S
            while time.monotonic() < end and not chosen <= _alerted_s(webhook).keys():
                time.sleep(0.5)
            system.interrupt()
            report = system.finish(300)
    raised, _ = delays(Layout(state))
    began_ms = first_frames(Layout(state))
    status, _ = audit(state)
    shutil.rmtree(state)
    return {
        "seed": seed,
        **waits(chosen, raised, began_ms, _alerted_s(webhook)),
        "also_told": sorted({name for name, _ in webhook.arrived_s()} - {ALERT}),
        "frames_recorded": report["frames_recorded"],
        "audit_status": status,
    }


def waits(
    chosen: set[str],
    raised: Mapping[str, float | None],
    began_ms: Mapping[str, int],
    alerted_s: Mapping[str, float],
) -> Result:
    """Return the delays of the cameras in `chosen`, and the cameras with a false alert.

    By camera, `raised` has the delay of the evidence in seconds, `began_ms` the first frame with the sticker, and
    `alerted_s` the alert's arrival, both in Unix time.
    """
    after_s = {camera: at - began_ms[camera] / 1000 for camera, at in alerted_s.items() if camera in began_ms}
    false = {camera for camera in alerted_s if camera not in chosen or after_s.get(camera, -1.0) < 0}
    return {
        "cameras": {
            camera: {
                "to_evidence_s": raised.get(camera),
                "to_webhook_s": None if camera in false else after_s.get(camera),
            }
            for camera in sorted(chosen)
        },
        "others": sorted(false),
    }


def _alerted_s(webhook: Webhook) -> dict[str, float]:
    """Return the first arrival of each camera's alert, in Unix seconds."""
    return {camera: at_s for (name, camera), at_s in webhook.arrived_s().items() if name == ALERT}


def page(result: Result) -> str:
    """Return the result as Markdown."""
    options, rounds = result["options"], result["rounds"]
    found = [each for one in rounds for each in one["cameras"].values()]
    waits = sorted(each["to_webhook_s"] for each in found if each["to_webhook_s"] is not None)
    evidence = sorted(each["to_evidence_s"] for each in found if each["to_evidence_s"] is not None)
    lines = [
        "# From a trigger (sticker) to a person",
        "",
        f"`python -m benchmarks.reliability.alarm --out docs/results/alarm --rounds {len(rounds)} {_given(options)}`: "
        f"{options['cameras']} camera(s) "
        f"of {options['fps']:g} frames/s, {options['probes']:.0%} of them whole; triggers before "
        f"{options['stickers']}; {result['machine']}, with other processes running. Seconds from a camera's "
        "first frame with the trigger.",
        "",
        "| round | camera | to the evidence, s | to the webhook, s |",
        "| --- | --- | --- | --- |",
        *(
            f"| {one['seed']} | {camera} | {_shown(each['to_evidence_s'])} | {_shown(each['to_webhook_s'])} |"
            for one in rounds
            for camera, each in one["cameras"].items()
        ),
        "",
        f"{len(waits)} of {len(found)} triggers reached the webhook"
        + (f", after {median(waits):.1f} s in the median and {waits[-1]:.1f} s at most" if waits else "")
        + (f"; the evidence took {median(evidence):.1f} s of that in the median." if evidence else "."),
        f"False alerts: {sum(len(one['others']) for one in rounds)}. "
        f"Within {WITHIN_S:g} s: {sum(value <= WITHIN_S for value in waits)} of {len(found)}.",
    ]
    return "\n".join(lines) + "\n"


def _given(options: Result) -> str:
    return " ".join(f"--{name} {value}" for name, value in options.items())


def _shown(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:.1f}"


def main() -> None:
    """Run the missing rounds, print the page, and write it with its JSON."""
    options = command_line(
        __doc__,
        out=Option(Path, required=True),
        rounds=3,
        cameras=8,
        stickers=2,
        fps=2.0,
        probes=Option(0.2, "share of the frames that are sent whole"),
        bundle=Option(BUNDLE, "a scene model whose trigger is the sticker"),
    )
    file = options.out / "alarm.json"
    asked = {name: getattr(options, name) for name in ("cameras", "stickers", "fps", "probes")}
    if options.bundle != BUNDLE:
        asked["bundle"] = str(options.bundle)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    result: Result = {"options": asked, "machine": machine, "rounds": []}
    before = read_json(file)
    result = before if before.get("options") == asked else result
    with tempfile.TemporaryDirectory(prefix="pointillist-alarm-") as folder:
        for seed in range(options.rounds):
            if seed in {one["seed"] for one in result["rounds"]}:
                continue
            result["rounds"].append(run(Path(folder), seed, options))
            write_json(file, result)
    write_text(options.out / "README.md", page(result))
    print(page(result))


if __name__ == "__main__":
    main()
