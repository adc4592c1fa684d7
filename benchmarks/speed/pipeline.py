"""The whole pipeline compared with its bare stages: `python -m benchmarks.speed.pipeline --json FILE`.

Both classify the same kind of frames with the same bundle on the same cores, in turn, in two rounds. `ratio` is the
pipeline's frames per second ÷ the bare stages'. The bare stages are reconstruct, denoise and classify in one process,
on frames in memory, with the backends and the threads that a processor would choose. `overhead_receives` is the
pipeline's additional CPU time per frame ÷ the CPU time of one bare paho receive of the same payload. The additional CPU
time covers all processes, brokers and supervisor included. With `--baseline CHECKOUT` the pipeline of another checkout
takes turns too, and `over_baseline` is the frames per second of this one ÷ its.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.harness.checkout import run_in_checkout
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.records import count_frames
from benchmarks.harness.services import started
from benchmarks.harness.system import RunningSystem, undisturbed
from benchmarks.harness.waiting import wait_until
from benchmarks.speed.receive import bare_receive_seconds
from infra.local.mosquitto import Mosquitto
from infra.state_folder import Layout
from infra.up.settings import UpSettings, bundle_folder
from processors.bundle import load_bundle
from processors.device.backends.choose import BackendRequest
from processors.device.backends.engines import engines
from producers.scene import SceneSimulator
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import Encoding, encode_frame
from schemas.pixels.masks import kept_mask

BATCH = 64
DROPPED = 16
WARM_S = 10.0
DRAIN_S = 120.0
FRAMES_S = 120.0
"""Longest wait for recorded frames."""
SECRET = bytes(range(32))


def pictures(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return rendered scenes (count, 32, 32, 3)."""
    simulator = SceneSimulator(0, 0, (32, 32))
    return np.stack([simulator.render(index)[0] for index in range(count)])


def bare_stages(bundle: Path, seconds: float) -> dict[str, float]:
    """Return frames per second and CPU seconds per frame of the stages alone, over batches in memory."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    pipeline, _ = engines(load_bundle(bundle, torch.device("cpu")), BackendRequest())
    key = derive_camera_key(SECRET, CameraId("bench/camera"))
    scenes = pictures(BATCH)
    kept = np.stack([kept_mask(key, 1, seq, 32, 32, DROPPED) for seq in range(BATCH)])[:, None]
    frames = torch.from_numpy(scenes.transpose(0, 3, 1, 2).copy()).float().div_(255)
    mask = torch.from_numpy(kept)
    frames = frames * mask
    for _ in range(5):
        pipeline(frames, mask)
    done = 0
    cpu = time.process_time()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        pipeline(frames, mask)
        done += BATCH
    elapsed = time.perf_counter() - begun
    return {"frames_per_second": done / elapsed, "cpu_s_per_frame": (time.process_time() - cpu) / done}


def whole_pipeline(bundle: Path, cameras: int, seconds: float, *more: str) -> dict[str, Any]:
    """Return frames per second and CPU seconds per frame of `pointillist up` at full speed after the warm-up.

    `more` are further options.
    """
    load = ("--cameras", cameras, "--fps", 0, "--seconds", seconds + 2 * WARM_S, "--probe-share", 0)
    options = ("--drain-s", DRAIN_S, "--bundle", bundle, "--batch-frames", BATCH, "--no-prometheus", *more)
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        state = Path(folder) / "state"
        with RunningSystem(state, *load, *options) as system:
            window = measure_window(system, seconds)
            # On a busy machine the drain may end early: frames that still wait are neither lost nor measured.
            _, report = system.wait(DRAIN_S + 300)
            undisturbed(report, system.output())
    if report["frames_lost"]:
        raise RuntimeError(f"pipeline: expected no lost frames, got {report['frames_lost']}")
    by_role = {role: used / window.frames for role, used in window.cpu_s.items()}
    return {
        "frames_per_second": window.frames / window.seconds,
        "cpu_s_per_frame": sum(by_role.values()),
        "cpu_s_per_frame_by_role": by_role,
        "frames_lost": report["frames_lost"],
        "frames_recorded": report["frames_recorded"],
    }


class Window(NamedTuple):
    """The work of a system in a part of its run."""

    begun_ms: int
    ended_ms: int
    """Unix times."""
    frames: int
    """Recorded frames."""
    cpu_s: dict[str, float]
    """CPU seconds by role, and of the supervisor as `up`."""

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return (self.ended_ms - self.begun_ms) / 1000


def measure_window(system: RunningSystem, seconds: float) -> Window:
    """Return the work of `seconds` after the warm-up. Check by `undisturbed` that no role was restarted meanwhile."""
    warm_up(system)
    database = Layout(system.state).database
    counted, begun_ms, before = count_frames(database), unix_ms(), system.cpu_seconds()
    time.sleep(seconds)
    frames, ended_ms, after = count_frames(database) - counted, unix_ms(), system.cpu_seconds()
    return Window(begun_ms, ended_ms, frames, {role: after.get(role, 0.0) - used for role, used in before.items()})


def warm_up(system: RunningSystem) -> None:
    """Wait for the first recorded frame, and `WARM_S` longer."""
    system.await_role("fleet")
    await_recorded(system, 1)
    time.sleep(WARM_S)


def await_recorded(system: RunningSystem, frames: int) -> None:
    """Wait until this many frames are recorded. Raises TimeoutError after `FRAMES_S`, or RuntimeError if `up` ends."""
    database = Layout(system.state).database
    wait_until(lambda: count_frames(database) >= frames, f"{frames} recorded frames", FRAMES_S, system=system)


def receive_cost(messages: int = 20000) -> float:
    """Return the CPU seconds of one bare paho receive of a frame message."""
    key = derive_camera_key(SECRET, CameraId("bench/camera"))
    payload = encode_frame(key, 1, 0, unix_ms(), pictures(1)[0], Encoding(DROPPED))
    with (
        tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder,
        started(Mosquitto(Path(folder))) as broker,
    ):
        return bare_receive_seconds(broker.host, broker.port, payload, messages)


def of_checkout(checkout: Path, cameras: int, seconds: float) -> float:
    """Return the frames per second of another checkout, by its own benchmark and with its own default bundle."""
    options = ("--rounds", 1, "--cameras", cameras, "--seconds", seconds)
    return float(run_in_checkout(checkout, Path(__file__).name, *options)["median"]["pipeline_frames_per_second"])


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        bundle=bundle_folder(UpSettings(source="cifar10")),
        cameras=8,
        seconds=30.0,
        rounds=2,
        baseline=Option(Path, "another checkout, whose packages this Python can run"),
        baseline_name=Option("", "its name in the tables, such as its commit"),
    )
    baseline: list[float] = []
    bare: list[dict[str, float]] = []
    pipeline: list[dict[str, Any]] = []
    receive: list[float] = []
    for _ in range(arguments.rounds):
        bare.append(bare_stages(arguments.bundle, arguments.seconds / 3))
        receive.append(receive_cost())
        pipeline.append(whole_pipeline(arguments.bundle, arguments.cameras, arguments.seconds))
        if arguments.baseline:
            baseline.append(of_checkout(arguments.baseline, arguments.cameras, arguments.seconds))
    middle = {
        "bare_frames_per_second": statistics.median(b["frames_per_second"] for b in bare),
        "bare_cpu_s_per_frame": statistics.median(b["cpu_s_per_frame"] for b in bare),
        "pipeline_frames_per_second": statistics.median(p["frames_per_second"] for p in pipeline),
        "pipeline_cpu_s_per_frame": statistics.median(p["cpu_s_per_frame"] for p in pipeline),
        "receive_cpu_s": statistics.median(receive),
    }
    added = middle["pipeline_cpu_s_per_frame"] - middle["bare_cpu_s_per_frame"]
    document = {
        "ratio": middle["pipeline_frames_per_second"] / middle["bare_frames_per_second"],
        "overhead_receives": added / middle["receive_cpu_s"],
        "median": middle,
        **(
            {
                "over_baseline": middle["pipeline_frames_per_second"] / statistics.median(baseline),
                "baseline": arguments.baseline_name,
            }
            if baseline
            else {}
        ),
        "rounds": {"bare": bare, "pipeline": pipeline, "receive_cpu_s": receive, "baseline": baseline},
        "machine": machine("torch"),
        "command": arguments.command,
    }
    report(document, arguments.json)


if __name__ == "__main__":
    main()
