"""The red team live: `python -m benchmarks.models.red_team_live --json FILE`.

Sixteen cameras send. After a while a generator attacks four of them in front of their lenses. The same fleet runs four
times: on the bare plain network (nothing dropped, nothing rebuilt), on the plain one with the drop, and twice on the
hardened one with the drop. The last attack is by a generator made against the hardened network, the others by one made
against the plain one. Accuracies and alerts are read from Prometheus, and the frames are counted again from the
records. A Markdown page of the same name is written next to the JSON. A run that is already in the JSON is not run
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import yaml

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.prometheus import Prometheus
from benchmarks.harness.records import rows
from benchmarks.harness.system import RunningSystem, audit
from benchmarks.harness.waiting import wait_until
from benchmarks.pages.red_team_figures import ALERT, ATTACK_S, CALM_S, CONDITIONS, Condition, Result, judged, page
from infra.state_folder import Layout
from infra.up.settings import UpSettings, bundle_folder
from producers.scene import SceneSimulator
from producers.simulation.generator import Generator
from producers.simulation.generator_toml import NETWORK, find_generator, read_generator
from producers.simulation.lens import attack
from schemas.messages.frame import ATTACKED
from schemas.metrics import CAMERA_TRUTH, TRUTH
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json, write_json

CAMERAS: Final = 16
CHOSEN: Final = (2, 6, 10, 14)
LENS_SIZES: Final = ((32, 32), (64, 64), (640, 480), (1920, 1080))
"""Width, height."""
LENS_FRAMES: Final = 100
_SITE: Final = "red-team"
_SETTLED_S: Final = 120.0
"""Longest wait for the last frames after the attack."""


class Plan(NamedTuple):
    """The settings that all runs share."""

    against_plain: str
    against_hardened: str
    eps: float
    target: str | int
    fps: float
    plain: Path
    hardened: Path

    def described(self) -> Result:
        """Return the plan as in the JSON: results of another plan are not mixed with these."""
        return {
            "against_plain": _generator(self.against_plain),
            "against_hardened": _generator(self.against_hardened),
            "eps": self.eps,
            "target": self.target,
            "fps": self.fps,
            "cameras": CAMERAS,
            "attacked": len(CHOSEN),
            "plain": _model(self.plain),
            "hardened": _model(self.hardened),
        }


def scenario(plan: Plan, condition: Condition, size: tuple[int, int], seed: int) -> Result:
    """Return the fleet of one run."""
    group = {
        "name": "cam-{index:02}",
        "count": CAMERAS,
        "source": {"kind": "scene", "seed": 2000 + seed, "size": list(size)},
        "fps": plan.fps,
        "drop_ratio": condition.drop,
    }
    fault = {
        "kind": "attack",
        "camera": [f"cam-{number:02}" for number in CHOSEN],
        "at_s": CALM_S,
        "for_s": ATTACK_S,
        "generator": getattr(plan, f"against_{condition.target}"),
        "eps": plan.eps,
        "target": plan.target,
    }
    return {"site": _SITE, "cameras": [group], "faults": [fault]}


def run(state: Path, plan: Plan, name: str, size: tuple[int, int], seed: int) -> Result:
    """Run once from beginning to end."""
    condition = CONDITIONS[name]
    state.mkdir(parents=True)
    file = state.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(scenario(plan, condition, size, seed)))
    options = ("--scenario", file, "--bundle", getattr(plan, condition.bundle), "--mode", condition.mode)
    load = os.getloadavg()[0]
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        layout = Layout(state)
        begun_s = _await_start(layout)
        prometheus = Prometheus(system.roles()["prometheus"]["listen"])
        time.sleep(max(0.0, begun_s + CALM_S + ATTACK_S - time.time()))
        read = settled(prometheus, round(plan.fps * ATTACK_S) * len(CHOSEN))
        fired = prometheus.first_times(f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}', begun_s, time.time())
        used = system.cpu_seconds()
        system.interrupt()
        report = system.finish(300)
    status, audited = audit(state)
    attacked, counted = _attacked(layout.database)
    cameras = sorted(attacked)
    return {
        "condition": name,
        "size": list(size),
        "seed": seed,
        **read,
        "seconds_to_alert": {
            camera: round(fired[camera] - attacked[camera][0] / 1000, 2) if camera in fired else None
            for camera in cameras
        },
        "seconds_from_record_to_alert": {
            camera: round(fired[camera] - attacked[camera][1] / 1000, 2) if camera in fired else None
            for camera in cameras
        },
        "false_alerts": sorted(set(fired) - set(attacked)),
        "records_agree": counted == read["attacked"],
        "audit": {"status": status, "frames_lost": audited["frames_lost"]},
        "frames_recorded": report["frames_recorded"],
        "latency_s": report["latency_s"],
        "fleet_cpu_s": used.get("fleet"),
        "load_before": load,
    }


def settled(prometheus: Prometheus, expected: int) -> Result:
    """Return `accuracies` after about `expected` attacked frames are recorded and scraped.

    This is the case when three successive readings are equal. If frames of the target class were not attacked, the wait
    ends by timeout.
    """
    looks: list[Result] = []
    end = time.monotonic() + _SETTLED_S
    while time.monotonic() < end:
        looks = [*looks[-2:], accuracies(prometheus)]
        counts = [look["attacked"] for look in looks]
        if len(counts) == 3 and counts.count(counts[0]) == 3 and counts[0][0] >= expected - 2 * len(CHOSEN):
            break
        time.sleep(2)
    return looks[-1]


def accuracies(prometheus: Prometheus) -> Result:
    """Return the counts in Prometheus: frames and correct ones, attacked, clean on the same cameras, clean on all."""

    def counts(family: str, **labels: str) -> tuple[int, int]:
        where = ", ".join(f'{label}="{value}"' for label, value in labels.items())
        by = prometheus.by_label(f"sum by (result) ({family}{{{where}}})", "result")
        return round(sum(by.values())), round(by.get("correct", 0.0))

    cameras = prometheus.by_label(f'sum by (camera_id) ({CAMERA_TRUTH.name}{{picture="attacked"}})', "camera_id")
    return {
        "attacked": counts(CAMERA_TRUTH.name, picture="attacked"),
        "clean": counts(TRUTH.name),
        "attacked_by_camera": {
            camera: counts(CAMERA_TRUTH.name, picture="attacked", camera_id=camera) for camera in sorted(cameras)
        },
    }


def _await_start(layout: Layout) -> float:
    """Return the time of the cameras' first capture in Unix seconds."""
    file = layout.folder / "fleet.json"
    wait_until(lambda: "started_ms" in read_json(file), "a start of the cameras", 120)
    return float(read_json(file)["started_ms"]) / 1000


def _attacked(database: Path) -> tuple[dict[str, tuple[int, int]], tuple[int, int]]:
    """Return the capture and record times of each camera's first attacked frame in ms, and counts.

    The counts are the number of attacked frames and of the correct ones among them.
    """
    first = "select camera, min(captured_ms), min(recorded_ms) from frames where truth > ? group by camera"
    counts = "select count(*), coalesce(sum(class_id = (truth - 1) % ? / 2), 0) from frames where truth > ?"
    times = {camera: (captured_ms, recorded_ms) for camera, captured_ms, recorded_ms in rows(database, first, ATTACKED)}
    ((count, right),) = rows(database, counts, ATTACKED, ATTACKED)
    return times, (count, right)


def lens_costs(generator: Generator, sizes: Iterable[tuple[int, int]] = LENS_SIZES) -> list[Result]:
    """Return the CPU milliseconds of one thread per attacked frame, by its size. Other load has no influence."""
    costs = []
    for width, height in sizes:
        frames = [SceneSimulator(0, 0, (height, width)).render(index)[0] for index in range(4)]
        took = []
        for number in range(LENS_FRAMES + 5):
            begun = time.thread_time()
            attack(frames[number % 4], generator, number % generator.settings.class_count, 0.03)
            took.append(1000 * (time.thread_time() - begun))
        warm = np.sort(took[5:])
        costs.append(
            {
                "size": [width, height],
                "ms": float(median(warm)),
                "ms_p95": float(warm[int(0.95 * len(warm))]),
                "frames": len(warm),
            }
        )
    return costs


def _model(folder: Path) -> str:
    settings = tomllib.loads((folder / "model.toml").read_text())
    return f"{folder.name} ({settings['name']}@{settings['version']}+{_digest(folder / settings['weights'])})"


def _generator(name: str) -> str:
    return f"{name}+{_digest(find_generator(name) / NETWORK)}"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    """Run the missing cases, write the JSON and the page, print the figures."""
    arguments = command_line(
        __doc__,
        against_plain=Option("scene", "a folder with generator.toml, or a shipped generator"),
        against_hardened=Option("scene-hardened", "the same, made against the hardened network"),
        plain=Option(Path("scene-plain"), "a bundle, or the name of a shipped one"),
        hardened=Path("scene"),
        conditions=Option(list(CONDITIONS), several="+", choices=CONDITIONS),
        eps=Option(float, "attack strength (default: that of the generator's training)"),
        target=Option("random", "a class by name or number, random or other"),
        sizes=Option(["32x32"], "frames, WIDTHxHEIGHT", several="+"),
        fps=2.0,
        seeds=1,
        json=Option(Path, required=True),
    )
    generators = (arguments.against_plain, arguments.against_hardened)
    generator = Generator(find_generator(arguments.against_plain))
    plain, hardened = (bundle_folder(UpSettings(bundle=bundle)) for bundle in (arguments.plain, arguments.hardened))
    target = int(arguments.target) if arguments.target.isdecimal() else arguments.target
    for name in generators:
        read_generator(find_generator(name)).check_target(target)
    eps = generator.settings.eps if arguments.eps is None else arguments.eps
    plan = Plan(*generators, eps, target, arguments.fps, plain, hardened)
    result = _before(arguments.json, plan)
    result["lens_ms"] = lens_costs(generator)
    with tempfile.TemporaryDirectory(prefix="pointillist-red-team-") as folder:
        for seed in range(arguments.seeds):
            for shape in arguments.sizes:
                width, height = map(int, shape.split("x"))
                for name in arguments.conditions:
                    place = (name, [width, height], seed)
                    if place in [(each["condition"], each["size"], each["seed"]) for each in result["runs"]]:
                        continue
                    state = Path(folder) / f"{name}-{shape}-{seed}"
                    found = run(state, plan, name, (width, height), seed)
                    shutil.rmtree(state)
                    print(json.dumps(found), flush=True)
                    result["runs"].append(found)
                    _keep(result, arguments.json)
    _keep(result, arguments.json)
    print(json.dumps(result["figures"], indent=2))


def _before(file: Path, plan: Plan) -> Result:
    """Return the results of earlier runs of the same plan in the file."""
    fresh: Result = {"plan": plan.described(), "machine": _machine(), "runs": []}
    found = read_json(file)
    return found if found.get("plan") == fresh["plan"] else fresh


def _keep(result: Result, file: Path) -> None:
    plan = result["plan"]
    result["figures"] = judged(result["runs"])
    sizes = dict.fromkeys("x".join(map(str, each["size"])) for each in result["runs"])
    seeds = len({each["seed"] for each in result["runs"]})
    result["command"] = (
        f"python -m benchmarks.models.red_team_live --against-plain {plan['against_plain'].split('+')[0]} "
        f"--against-hardened {plan['against_hardened'].split('+')[0]} "
        f"--plain {plan['plain'].split()[0]} --hardened {plan['hardened'].split()[0]} "
        f"--eps {plan['eps']:g} --target {plan['target']} --fps {plan['fps']:g} "
        f"--sizes {' '.join(sizes)} --seeds {seeds} --json {file}"
    )
    write_json(file, result)
    write_text(file.with_suffix(".md"), page(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
