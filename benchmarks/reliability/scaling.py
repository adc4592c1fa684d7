"""Scaling on one machine, for the drills `scaling` and `rolling` of `benchmarks.reliability.drills`.

Processors are processes. Their network sleeps for each frame, as a device of limited speed that costs this machine no
CPU. A controller decides as the autoscaler does with the shipped rule (`benchmarks.reliability.scaling_rule`), but its
window downwards is a fifth, so that the drill ends within minutes.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import yaml

from benchmarks.harness.system import COMMAND, Result, RunningSystem, await_healthy, summary
from benchmarks.reliability.nodes import gaps
from benchmarks.reliability.scaling_rule import SYNC_S, Autoscaler
from infra.local.ports import free_port
from infra.local.process import Child, last_lines
from infra.state_folder import Layout
from infra.up.scrape import RunTotals, Samples
from processors.bundle import shipped_bundle
from schemas import metrics
from schemas.clock import unix_ms

_RULE: Final = Path(__file__).parents[2] / "infra/kubernetes/base/scaling.yaml"
_LEAST, _MOST = 3, 8
_FRAME_S: Final = 0.05
"""Time of the device for each frame: a processor finishes 20 frames a second."""
_CAMERAS, _FPS = 8, 2.5
_TIMES: Final = 4
_USUAL_S, _HIGH_S, _AFTER_S = 40.0, 150.0, 150.0
_FASTER: Final = 5
"""The window and the policies downwards are divided by this."""
_NETWORK: Final = f'''
import time

from processors.networks.resnet import ResNet


class Sleeping(ResNet):
    """The scene network as on a device that takes {_FRAME_S} seconds for each frame."""

    def forward(self, frames):
        time.sleep({_FRAME_S} * len(frames))
        return super().forward(frames)
'''


def scaling(folder: Path) -> Result:
    """Run a load, four times the load, and the load again, while the controller adds and removes processors."""
    bundle = _sleeping_bundle(folder / "sleeping")
    options = _scenario(folder, _CAMERAS * _TIMES, dark=_CAMERAS)
    state = folder / "scaling"
    with (
        RunningSystem(state, *options, "--bundle", bundle, *_eager(folder), "--processors", _LEAST) as system,
        _Pool(system, bundle) as pool,
    ):
        system.await_role("fleet")
        begun_s = time.monotonic()
        begun_ms = unix_ms()
        steps = _control(pool, begun_s, _USUAL_S + _HIGH_S + _AFTER_S)
        system.interrupt()
        shown = summary(system.finish(), state)
    risen = _USUAL_S
    late = [step for step in steps if step["at_s"] >= risen and step["waiting_s"] >= _target_s()]
    return {
        "steps": steps,
        "most_processors": max(step["processors"] for step in steps),
        "waiting_under_target_after_s": max((step["at_s"] - risen for step in late), default=0.0),
        "changes_of_direction": changes_of_direction([step["processors"] for step in steps]),
        "longest_gap_s": _longest_gap_s(Layout(state).database, begun_ms, f"local/cam-{_CAMERAS:02}"),
        **shown,
    }


def rolling(folder: Path, cameras: int = 32, fps: float = 4.0, processors: int = 3) -> Result:
    """Restart every processor by SIGTERM, one after the other, each once its predecessor works again."""
    state = folder / "rolling"
    options = ("--cameras", cameras, "--fps", fps, "--processors", processors, "--no-prometheus")
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        time.sleep(15)
        begun_ms = unix_ms()
        restarted = {}
        for name in (f"processor-{number + 1}" for number in range(processors)):
            begun = time.monotonic()
            pid = system.await_role(name)
            system.send(name, signal.SIGTERM)
            system.await_role(name, but_not=pid)
            await_healthy(system.roles()[name]["metrics"])
            restarted[name] = round(time.monotonic() - begun, 2)
            time.sleep(5)
        system.interrupt()
        return {
            "restarted_after_s": restarted,
            **summary(system.finish(), state),
            "longest_gap_s": _longest_gap_s(Layout(state).database, begun_ms),
        }


def changes_of_direction(numbers: list[int]) -> int:
    """Return how often a series turned from rising to falling or back."""
    changes = [after - before for before, after in pairwise(numbers) if after != before]
    return sum(before * after < 0 for before, after in pairwise(changes))


def _longest_gap_s(database: Path, since_ms: int, below: str = "~") -> float:
    """Return the longest time between two verdicts of one camera that ended after `since_ms`."""
    return max((gap for at, gap in gaps(database, below) if at >= since_ms), default=0.0)


def _sleeping_bundle(folder: Path) -> Path:
    shutil.copytree(shipped_bundle("scene-plain"), folder)
    (folder / "sleeping.py").write_text(_NETWORK)
    settings = folder / "model.toml"
    before = 'factory = "processors.networks.resnet:ResNet"'
    settings.write_text(settings.read_text().replace(before, 'factory = "sleeping.py:Sleeping"'))
    return folder


def _eager(folder: Path) -> tuple[object, ...]:
    """Return the options under which torch runs the bundle's own network, with its sleep, not a compiled copy."""
    file = folder / "up.toml"
    file.write_text('prometheus = false\n[processor]\nbackend = "torch"\nbatch_frames = 8\n')
    return "--config", file, "--allow-code"


def _scenario(folder: Path, cameras: int, dark: int) -> tuple[object, ...]:
    """Return the options of a scenario in which the cameras from the `dark`-th on are there for a time only."""
    later = [f"cam-{number:02}" for number in range(dark, cameras)]
    back_s = _USUAL_S + _HIGH_S
    faults = [
        {"kind": "dark", "camera": later, "at_s": 0, "for_s": _USUAL_S},
        {"kind": "dark", "camera": later, "at_s": back_s, "for_s": 10 * _AFTER_S},
    ]
    source = {"kind": "scene", "seed": 5, "prerendered": 64}
    group = {"name": "cam-{index:02}", "count": cameras, "source": source, "fps": _FPS, "probe_share": 0}
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump({"site": "local", "cameras": [group], "faults": faults}))
    return "--scenario", file


def _rule() -> dict[str, Any]:
    """Return the shipped rule with the bounds and the speed of the drill."""
    scaled = deepcopy(next(each for each in yaml.safe_load_all(_RULE.read_text()) if each["kind"] == "ScaledObject"))
    spec = scaled["spec"]
    spec["minReplicaCount"], spec["maxReplicaCount"] = _LEAST, _MOST
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    down["stabilizationWindowSeconds"] /= _FASTER
    for policy in down["policies"]:
        policy["periodSeconds"] /= _FASTER
    return dict(scaled)


def _target_s() -> float:
    return next(
        float(each["metadata"]["threshold"]) for each in _rule()["spec"]["triggers"] if each["name"] == "waiting"
    )


def _control(pool: _Pool, begun_s: float, seconds: float) -> list[Result]:
    """Decide every `SYNC_S` seconds; return what was measured and decided."""
    scaler, steps = Autoscaler(_rule()), []
    busy_before, at_before = pool.busy_s(), time.monotonic()
    while (now_s := time.monotonic() - begun_s) < seconds:
        busy, at = pool.busy_s(), time.monotonic()
        values = {"busy": (busy - busy_before) / max(at - at_before, 1e-3), **pool.backlog()}
        busy_before, at_before = busy, at
        wanted = scaler.decide(now_s, pool.size, values)
        steps.append(
            {
                "at_s": round(now_s, 1),
                "busy": round(values["busy"], 2),
                "waiting_s": round(values["waiting"], 1),
                "lag": values["lag"],
                "processors": wanted,
            }
        )
        pool.resize(wanted)
        time.sleep(max(0.0, SYNC_S - (time.monotonic() - begun_s - now_s)))
    return steps


class _Pool:
    """The processors of `up`, and those that the controller has added, which end with the pool."""

    def __init__(self, system: RunningSystem, bundle: Path) -> None:
        self._system = system
        self._bundle = bundle
        self._added: list[tuple[str, Child]] = []
        self._addresses: set[str] = set()
        self._totals = RunTotals()
        self._backlog = {"waiting": 0.0, "lag": 0.0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _, process in self._added:
            process.identity.send(signal.SIGTERM)
        for _, process in self._added:
            process.stop(60)

    @property
    def size(self) -> int:
        return _LEAST + len(self._added)

    def resize(self, wanted: int) -> None:
        """Stop or start processors. Raises RuntimeError if an added one has ended."""
        for name, process in self._added:
            if process.poll() is not None:
                raise RuntimeError(f"{name}: expected a processor that runs, it has ended: {last_lines(process.log)}")
        while self.size > wanted:
            self._added.pop()[1].identity.send(signal.SIGTERM)
        while self.size < wanted:
            name, address = f"processor-{self.size + 1}", f"127.0.0.1:{free_port()}"
            certify = [*COMMAND, "ca", "role", name, "--state", str(self._system.state)]
            subprocess.run(certify, check=True, stdout=subprocess.DEVNULL)
            command = [
                *COMMAND, "process", "--state", str(self._system.state), "--bundle", str(self._bundle), "--instance",
                name, "--metrics", address, "--backend", "torch", "--batch-frames", "8", "--allow-code",
            ]  # fmt: skip
            child = Child(command, self._system.state.with_name(f"{name}.log"))
            child.start()
            self._addresses.add(address)
            self._added.append((name, child))

    def busy_s(self) -> float:
        """Return the busy seconds of all processors' devices so far; one that does not answer counts as before."""
        self._addresses |= {entry["metrics"] for name, entry in self._system.roles().items() if "processor" in name}
        return self._totals.scrape(sorted(self._addresses)).sum(metrics.DEVICE_BUSY.name)

    def backlog(self) -> Mapping[str, float]:
        """Return the seconds of waiting work, and the lag in frames; the last ones if the monitor does not answer."""
        waiting, lag = metrics.WORK_WAITING.name, metrics.KAFKA_GROUP_LAG.name
        found = Samples.scrape([self._system.roles()["monitor"]["metrics"]], [waiting, lag])
        if found.by(waiting, ""):
            processors = found.sum(lag, group="pointillist-processors")
            self._backlog = {"waiting": found.sum(waiting), "lag": processors}
        return self._backlog
